"""Voting codes with the whole stack: 2,000 people with two browsers each, guesses, and the ballot in Chromium."""

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.polls import execute, make_poll, make_session, step
from tests.e2e.stack import Stack
from tests.e2e.test_accessibility import violations
from tests.waiting import PLAIN, eventually, until, when_not_busy
from voting.polls.codes import CodeList, new_key
from voting.polls.vote import EntryId

PEOPLE = 2000
GUESSES = int(os.environ.get("GUESSES", "2000"))  # noqa: TID251 - of a test
JSON = {"accept": "application/json"}
MADE: list[CodeList] = []  # no log or metric may have their codes
REMEMBERED = "This browser remembers your voting code."


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that takes the address of a client from X-Forwarded-For, so that only the guesses have their address.

    In the end its logs and metrics are searched for codes.
    """
    started = Stack(tmp_path_factory.mktemp("codes") / "data", TRUSTED_PROXIES="1").start()
    yield started
    metrics = httpx.HTTPTransport(uds=str(started.data / "run" / "vote.sock"))
    with httpx.Client(transport=metrics, base_url="http://vote") as client:
        said = client.get("/metrics").text
    assert "voting_votes_accepted_total" in said
    assert started.stop() == 0
    said += started.output.read_text() + "".join(each.read_text() for each in started.data.rglob("*.log"))
    assert "vote.starting" in said
    for codes in MADE:
        for serial in range(1, 10):
            secrets = code(codes, serial), code(codes, serial).replace("-", ""), codes.token(serial).decode()
            assert not [each for each in (*secrets, codes.key.hex()) if each.lower() in said.lower()]


def make_codes(stack: Stack, owner: str, number: int = PEOPLE) -> CodeList:
    """Insert the code list of a poll or session."""
    codes = CodeList(new_key(), number)
    MADE.append(codes)
    execute(
        stack, "INSERT INTO code_lists (owner, key, issued) VALUES (%s, %s, %s)", owner, codes.key.hex(), codes.issued
    )
    return codes


def change_codes(stack: Stack, owner: str, codes: CodeList, changes: dict[int, int]) -> CodeList:
    """Revoke and replace codes; return the list as it is now."""
    execute(stack, "UPDATE code_lists SET changes = %s WHERE owner = %s", json.dumps(changes), owner)
    return CodeList(codes.key, codes.issued, changes)


def code(codes: CodeList, serial: int) -> str:
    found = codes.code(serial)
    assert found
    return found


def is_shown(stack: Stack, path: str, text: str = "Voting code") -> bool:
    answer = httpx.get(stack.vote_url + path)
    return answer.status_code == 200 and text in answer.text


Browser = Callable[[], httpx.AsyncClient]


@pytest.fixture
async def browser(coded: Stack) -> AsyncIterator[Browser]:
    """Make clients with a cookie jar each, which share their connections."""
    async with httpx.AsyncHTTPTransport(verify=PLAIN, limits=httpx.Limits(max_connections=64)) as transport:
        yield lambda: httpx.AsyncClient(
            transport=transport, base_url=coded.vote_url, headers=JSON, timeout=60, trust_env=False
        )


async def vote(client: httpx.AsyncClient, slug: str, choice: str, typed: str = "") -> dict[str, str]:
    """Vote, again while the service is busy; return the receipt or the problem."""
    answer = await when_not_busy(lambda: client.post(f"/p/{slug}", data={"vote": choice, "code": typed}))
    found: dict[str, str] = answer.json()
    return found


@pytest.mark.anyio
async def test_2000_codes_in_two_browsers_each_at_the_same_time_are_counted_once_each(
    coded: Stack, browser: Browser
) -> None:
    make_poll(coded, "c-people", access="code")
    codes = make_codes(coded, "c-people")
    await until(lambda: is_shown(coded, "/p/c-people"))
    await until(lambda: code_is_known(coded, "c-people", code(codes, 1)))

    at_a_time = asyncio.Semaphore(32)  # more only wait for a connection

    async def person(serial: int) -> list[dict[str, str]]:
        first, second = browser(), browser()
        one, other, changed = random.choices("abcd", k=3)  # noqa: S311
        typed = code(codes, serial)
        async with at_a_time:
            at_once = await asyncio.gather(
                vote(first, "c-people", one, typed), vote(second, "c-people", other, typed.lower())
            )
            return [*at_once, await vote(first, "c-people", changed)]  # with its cookie

    votes = await asyncio.gather(*(person(serial) for serial in range(1, PEOPLE + 1)))
    last = [max(each, key=lambda one: EntryId.parse(one["receipt"].encode()))["choice"] for each in votes]
    await until(coded.drained)
    assert dict(coded.rows("SELECT choice, votes FROM tallies WHERE poll = 'c-people'")) == Counter(last)
    assert coded.rows("SELECT count(*), count(DISTINCT voter) FROM votes WHERE poll = 'c-people'") == [(PEOPLE, PEOPLE)]
    assert coded.results("/p/c-people")["total"] == PEOPLE


def code_is_known(stack: Stack, slug: str, typed: str) -> bool:
    """Whether the vote service has the list; each refusal counts as a wrong code of an address of this function."""
    headers = JSON | {"x-forwarded-for": "192.0.2.99"}
    answer = httpx.post(f"{stack.vote_url}/p/{slug}", data={"vote": "a", "code": typed}, headers=headers)
    return answer.status_code == 200


def guess(codes: CodeList) -> str:
    """Return a random code without a typing error, with the serial of a valid one."""
    forger = CodeList(new_key(), codes.issued)
    return code(forger, random.randint(1, codes.issued))  # noqa: S311


@pytest.mark.anyio
async def test_guesses_find_no_code_and_are_slowed_and_those_who_have_voted_are_not(
    coded: Stack, browser: Browser
) -> None:
    make_poll(coded, "c-guess", access="code")
    codes = make_codes(coded, "c-guess")
    await until(lambda: is_shown(coded, "/p/c-guess"))
    await until(lambda: code_is_known(coded, "c-guess", code(codes, 1)))
    hall = {"x-forwarded-for": "192.0.2.1"}
    known, late, attacker = browser(), browser(), browser()
    for each in (known, late, attacker):
        each.headers.update(hall)
    assert "receipt" in await vote(known, "c-guess", "a", code(codes, 2))
    started = time.monotonic()
    reasons: Counter[str] = Counter()
    for _ in range(GUESSES // 50):
        found = await asyncio.gather(*(vote(attacker, "c-guess", "b", guess(codes)) for _ in range(50)))
        reasons.update(each.get("reason", "accepted") for each in found)
    refilled = (time.monotonic() - started) / 36
    assert reasons.keys() == {"unknown_code", "wrong_codes"}
    assert 100 <= reasons["unknown_code"] <= 101 + refilled

    async def no_guess_is_left() -> bool:
        return (await vote(attacker, "c-guess", "b", guess(codes)))["reason"] == "wrong_codes"

    await until(no_guess_is_left)
    refused = await late.post("/p/c-guess", data={"vote": "b", "code": code(codes, 3)})
    assert (refused.status_code, refused.json()["reason"]) == (429, "wrong_codes")
    assert 0 < int(refused.headers["retry-after"]) <= 36
    assert "receipt" in await vote(known, "c-guess", "c")
    assert "receipt" in await vote(browser(), "c-guess", "d", code(codes, 3))  # on another network
    await until(coded.drained)
    assert dict(coded.rows("SELECT choice, votes FROM tallies WHERE poll = 'c-guess' AND votes > 0")) == {
        "a": 1,  # of `code_is_known`
        "c": 1,
        "d": 1,
    }


@pytest.mark.anyio
async def test_a_revoked_code_is_refused_within_a_second_and_a_new_code_is_the_same_voter(
    coded: Stack, browser: Browser
) -> None:
    for slug in ("c-one", "c-two"):
        make_poll(coded, slug, access="code")
    session = make_session(coded, "c-one", "c-two", current="c-one")
    codes = make_codes(coded, session)
    await until(lambda: is_shown(coded, f"/{session}"))
    await until(lambda: code_is_known(coded, "c-one", code(codes, 1)))
    await until(lambda: code_is_known(coded, "c-two", code(codes, 1)))
    holders = {serial: browser() for serial in (2, 3, 4)}
    for serial, choice in zip(holders, "bcb", strict=True):
        assert "receipt" in await vote(holders[serial], "c-one", choice, code(codes, serial))
    changes: dict[int, int] = {}
    took = []
    for serial, change in ((2, -1), (3, 1), (4, -1)):
        changes[serial] = change
        now = change_codes(coded, session, codes, changes)
        changed = time.monotonic()

        async def is_refused(holder: httpx.AsyncClient = holders[serial]) -> bool:
            found = [await vote(holder, slug, "b") for slug in ("c-one", "c-two")]
            return {each.get("reason") for each in found} == {"no_code"}

        await until(is_refused)
        took.append(time.monotonic() - changed)
    assert min(took) < 1  # the best of three, since the machine may be busy
    for serial in holders:
        assert (await vote(browser(), "c-one", "d", code(codes, serial)))["reason"] == "unknown_code"
    assert "receipt" in await vote(browser(), "c-one", "d", code(now, 3))
    await until(coded.drained)
    found = dict(coded.rows("SELECT choice, votes FROM tallies WHERE poll = 'c-one' AND votes > 0"))
    assert found == {"a": 1, "b": 2, "d": 1}


def show_next(stack: Stack, session: str, slug: str, page: Page) -> None:
    step(stack, session, slug)
    expect(page.get_by_role("heading")).to_have_text(f"The question of {slug}?")


def test_a_link_fills_in_the_code_and_the_browser_remembers_it_for_the_session(
    coded: Stack, open_browser: OpenBrowser
) -> None:
    for slug in ("c-first", "c-second"):
        make_poll(coded, slug, access="code")
    session = make_session(coded, "c-first", "c-second")
    codes = make_codes(coded, session)
    eventually(lambda: is_shown(coded, f"/{session}", "Waiting"))
    eventually(lambda: code_is_known(coded, "c-second", code(codes, 1)))
    page = open_browser().new_page()
    page.goto(f"{coded.vote_url}/{session}#code={code(codes, 7)}")
    expect(page.get_by_role("heading")).to_have_text("Waiting for the next question")
    assert page.url == f"{coded.vote_url}/{session}"
    page.reload()
    show_next(coded, session, "c-first", page)
    expect(page.get_by_label("Voting code")).to_have_value(code(codes, 7))
    page.get_by_role("button", name="Soup").click()
    expect(page.locator("#status")).to_contain_text("Your vote for Soup is in")
    show_next(coded, session, "c-second", page)
    expect(page.locator("#page")).to_contain_text(REMEMBERED)
    page.get_by_role("button", name="Bread").click()
    expect(page.locator("#status")).to_contain_text("Your vote for Bread is in")
    page.get_by_text("Use another voting code").click()
    expect(page.get_by_label("Voting code")).to_have_value("")
    page.goto(f"{coded.vote_url}/{session}#code={code(codes, 8)}")  # another card in the same tab
    expect(page.get_by_label("Voting code")).to_have_value(code(codes, 8))
    page.get_by_role("button", name="Cake").click()
    expect(page.locator("#status")).to_contain_text("Your vote for Cake is in")
    eventually(coded.drained)
    found = dict(coded.rows("SELECT choice, votes FROM tallies WHERE poll = 'c-second' AND votes > 0"))
    assert found == {"a": 1, "c": 1, "d": 1}


def test_a_code_is_typed_corrected_and_remembered_on_the_second_visit(coded: Stack, open_browser: OpenBrowser) -> None:
    path = make_poll(coded, "c-type", "multiple", access="code")
    codes = make_codes(coded, "c-type")
    eventually(lambda: is_shown(coded, path))
    eventually(lambda: code_is_known(coded, "c-type", code(codes, 1)))
    page = open_browser().new_page()
    page.goto(coded.vote_url + path)
    field = page.get_by_label("Voting code")
    page.get_by_label("Soup").check()
    page.get_by_role("button", name="Send your vote").click()
    expect(field).to_be_focused()  # the browser says that it is required
    right = code(codes, 9)
    page.keyboard.type(f"{right[:-1]}{'0' if right[-1] != '0' else '1'}")
    page.keyboard.press("Enter")  # must not press the first button of the form
    page.get_by_role("button", name="Send your vote").click()
    expect(page.locator("#status")).to_contain_text("This voting code has a typing error.")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill(right.lower().replace("-", " "))
    expect(field).not_to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Send your vote").click()
    expect(page.locator("#status")).to_contain_text("Your vote is in.")
    page.goto(coded.vote_url + path)
    expect(page.locator("#page")).to_contain_text(REMEMBERED)
    expect(page.locator("#status")).to_contain_text("Your vote is in.")
    page.get_by_label("Salad").check()
    page.get_by_role("button", name="Send your vote").click()
    expect(page.locator("#status li")).to_have_text(["Soup", "Salad"])
    change_codes(coded, "c-type", codes, {9: -1})
    eventually(lambda: not code_is_known(coded, "c-type", right))
    page.get_by_role("button", name="Send your vote").click()
    expect(page.locator("#status")).to_contain_text("This poll needs a voting code.")
    expect(page.get_by_label("Voting code")).to_be_focused()


def votes_taken(stack: Stack) -> int:
    with stack.broker() as broker:
        return int(broker.xinfo_stream("votes")["entries-added"])


def test_enter_in_the_field_does_not_vote(coded: Stack, open_browser: OpenBrowser) -> None:
    path = make_poll(coded, "c-enter", access="code")
    codes = make_codes(coded, "c-enter")
    eventually(lambda: is_shown(coded, path))
    eventually(lambda: code_is_known(coded, "c-enter", code(codes, 1)))
    before = votes_taken(coded)
    for options in ({}, {"java_script_enabled": False}):
        page = open_browser(**options).new_page()
        page.goto(coded.vote_url + path)
        page.get_by_label("Voting code").fill(code(codes, 1))
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Salad").click()
        expect(page.locator("#status")).to_contain_text("Your vote for Salad is in")
    assert votes_taken(coded) == before + 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_without_javascript_a_small_phone_votes_with_a_code_and_axe_finds_nothing(
    coded: Stack, open_browser: OpenBrowser, artefacts: Path, scheme: str, language: str
) -> None:
    slug = f"c-plain-{scheme}-{language}"
    path = make_poll(coded, slug, access="code")
    codes = make_codes(coded, slug)
    eventually(lambda: is_shown(coded, path))
    eventually(lambda: code_is_known(coded, slug, code(codes, 1)))
    size = {"width": 320, "height": 640}
    plain = open_browser(java_script_enabled=False, viewport=size).new_page()
    with_axe = open_browser(viewport=size, color_scheme=scheme, reduced_motion="reduce").new_page()
    for number, page in enumerate((plain, with_axe), 2):
        page.goto(f"{coded.vote_url}{path}?lang={language}")
        for is_remembered in (False, True):
            if is_remembered:
                page.locator("#voting-code").fill(code(codes, number))
                page.locator("#ballot button[value=b]").click()
                expect(page.locator("#status")).to_have_class("status done")
                page.goto(coded.vote_url + path)
                page.locator("#code-entry summary").click()
            expect(page.locator("#voting-code")).to_be_visible()
            box = page.locator("#voting-code").bounding_box()
            assert box
            assert box["height"] >= 44
            if page is with_axe:
                assert violations(page) == []
                page.screenshot(path=artefacts / f"{slug}-{is_remembered}.png", full_page=True)
            else:
                page.locator("#ballot button[value=c]").scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
