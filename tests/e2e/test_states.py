"""The pages in unusual states: waiting votes, stopped parts, no network, twenty options."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.stack import Stack, stopped
from tests.e2e.test_accessibility import violations
from tests.waiting import eventually
from voting.web.language import language

LONG = "A label that goes on and on, as long as anybody could want, " * 3
LABELS = [
    "🐈 Cats",
    "🐕‍🦺 Dogs",
    "قطط صغيرة",
    "חתולים",
    LONG.replace(",", "")[:180].strip(),
    "Donaudampfschifffahrtsgesellschaft" * 3,
]
LABELS += [f"Option {number}" for number in range(7, 21)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("many") / "data", workers=1, OPTIONS=",".join(LABELS)).start()
    yield stack
    assert stack.stop() == 0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("states") / "data", workers=1).start()
    yield stack
    assert stack.stop() == 0


def votes(number: int) -> str:
    return f"{number:,} vote{'' if number == 1 else 's'}"


@pytest.mark.parametrize("width", [320, 1280])
def test_twenty_options_in_any_script_look_right(
    many: Stack, open_browser: OpenBrowser, artefacts: Path, width: int
) -> None:
    browser = open_browser(viewport={"width": width, "height": 800}, reduced_motion="reduce")
    ballot, result = browser.new_page(), browser.new_page()
    ballot.goto(many.vote_url)
    assert ballot.locator("button.option").count() == 20
    for label in LABELS[:4]:
        ballot.get_by_role("button", name=label).click()
        expect(ballot.get_by_role("status")).to_contain_text(f"Your vote for {label} is in")
    for page, url, name in (
        (ballot, "", "ballot"),
        (result, many.result_url, "result"),
        (result, f"{many.result_url}/present", "present"),
    ):
        if url:
            page.goto(url)
            expect(page.locator("#state")).to_contain_text("Live")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []
        page.screenshot(path=artefacts / f"{name}-twenty-{width}.png", full_page=True)
        if name == "present" and width == 1280:
            assert page.evaluate("document.getElementById('tally').getBoundingClientRect().bottom") <= 800
    small = [
        box for each in ballot.locator("button.option").all() if (box := each.bounding_box()) and box["height"] < 44
    ]
    assert small == []


def test_the_result_says_what_waits_and_that_counting_has_paused(
    own: Stack, open_browser: OpenBrowser, artefacts: Path
) -> None:
    page = open_browser().new_page()
    page.goto(own.result_url)
    expect(page.locator("#state")).to_have_text("Live")
    before = own.tally()["a"]
    with psycopg.connect(own.state["database_url"]) as blocker:
        blocker.execute("LOCK TABLE votes IN EXCLUSIVE MODE")
        with own.broker() as broker, broker.pipeline() as votes_at_once:
            for _ in range(3):
                votes_at_once.xadd("votes", {"poll": "default", "voter": os.urandom(16), "choice": "a"})
            votes_at_once.execute()
        expect(page.locator("#state")).to_have_text("Live · 3 votes waiting to be counted")
        expect(page.locator("[data-key=a] .votes")).to_have_text(votes(before))
        page.screenshot(path=artefacts / "result-waiting.png")
    expect(page.locator("#state")).to_have_text("Live")
    expect(page.locator("[data-key=a] .votes")).to_have_text(votes(before + 3))
    with own.frozen("worker-1"):
        httpx.post(own.vote_url, data={"vote": "b"})
        expect(page.locator("#state")).to_contain_text("Counting paused since")
        assert violations(page) == []
        page.screenshot(path=artefacts / "result-paused.png")
    expect(page.locator("#state")).to_have_text("Live")


def test_while_the_database_is_silent_the_page_says_since_when_the_numbers_are_old(
    own: Stack, open_browser: OpenBrowser, artefacts: Path
) -> None:
    browser = open_browser()
    page = browser.new_page()
    page.goto(own.result_url)
    expect(page.locator("#state")).to_have_text("Live")
    with own.frozen("postgres"):
        expect(page.locator("#state")).to_contain_text("Last known result, from")
        assert violations(page) == []
        page.screenshot(path=artefacts / "result-stale.png")
        late = browser.new_page()
        late.goto(own.result_url)
        expect(late.locator("#state")).to_contain_text("Last known result, from")
    expect(page.locator("#state")).to_have_text("Live")


def test_a_vote_tapped_offline_is_kept_and_sent_once_the_network_is_back(
    own: Stack, open_browser: OpenBrowser, artefacts: Path
) -> None:
    browser = open_browser(viewport={"width": 390, "height": 800})
    page = browser.new_page()
    before = own.tally()
    page.goto(own.vote_url)
    browser.set_offline(True)
    for name in ("Cats", "Dogs", "Cats", "Dogs"):
        page.get_by_role("button", name=name).click()
    expect(page.get_by_role("status")).to_contain_text("Your vote for Dogs will be sent again in a moment")
    page.screenshot(path=artefacts / "ballot-offline.png")
    browser.set_offline(False)
    expect(page.get_by_role("status")).to_contain_text("Your vote for Dogs is in")
    eventually(lambda: own.tally() == before | {"b": before["b"] + 1})


def test_while_the_broker_is_silent_the_ballot_tries_again_and_the_plain_form_says_so(
    own: Stack, open_browser: OpenBrowser, artefacts: Path
) -> None:
    page = open_browser().new_page()
    plain = open_browser(java_script_enabled=False, locale="fr").new_page()
    before = own.tally()
    page.goto(own.vote_url)
    plain.goto(own.vote_url)
    with own.frozen("valkey"):
        page.get_by_role("button", name="Cats").click()
        expect(page.get_by_role("status")).to_contain_text("Voting is busy just now.")
        plain.get_by_role("button", name="Cats").click()
        expect(plain.locator(".kicker")).to_have_text("503")
        expect(plain.locator("h1")).to_have_text(language("fr").text("Service unavailable"))
        assert violations(page) == []
        plain.screenshot(path=artefacts / "refused-503.png")
    eventually(lambda: httpx.get(f"{own.vote_url}/readyz").status_code == 200)
    plain.get_by_role("button", name=language("fr").text("Send it again")).click()
    expect(plain.get_by_role("button", name="Cats")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("status")).to_contain_text("Your vote for Cats is in")
    eventually(lambda: own.tally() == before | {"a": before["a"] + 2})


def test_the_big_screen_goes_on_after_the_result_service_was_killed(own: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser().new_page()
    page.goto(f"{own.result_url}/present")
    expect(page.locator("#state")).to_have_text("Live")
    before = own.tally()["a"]
    for number in (1, 2):
        with stopped(own.process.pid):  # so that nothing is started again meanwhile
            own.kill("result")
            expect(page.locator("#state")).to_contain_text("reconnecting")
        httpx.post(own.vote_url, data={"vote": "a"})
        expect(page.locator("#state")).to_have_text("Live")
        expect(page.locator("[data-key=a] .votes")).to_have_text(votes(before + number))
