"""Votes with voting codes over HTTP, with a real Valkey."""

from typing import Any

import httpx
import pytest

from tests.integration.broker import Broker
from tests.integration.test_ballots import CODE, FORM, HTML, poll, publish
from tests.integration.test_endpoint import KEY, refusal, serving, stored
from tests.waiting import until
from voting.polls.codes import CodeList
from voting.polls.poll import Poll
from voting.polls.session import Session

pytestmark = pytest.mark.anyio
CODES = CodeList(bytes(range(32)), 20)
OTHER = CodeList(bytes(32), 20)
REMEMBERED = "This browser remembers your voting code."


def coded(slug: str = "lunch", codes: CodeList | None = CODES, **more: Any) -> Poll:
    return poll(slug, access="code", codes=codes, **more)


def code(serial: int, codes: CodeList = CODES) -> str:
    return codes.code(serial) or ""


async def vote(client: httpx.AsyncClient, typed: str | None, choice: str = "a", path: str = "/p/lunch") -> object:
    """Vote with a code, or without one; return 200, or what `refusal` returns."""
    answer = await client.post(path, data={"vote": choice} | ({} if typed is None else {"code": typed}))
    return 200 if answer.status_code == 200 else refusal(answer)


async def test_a_code_is_one_voter_in_every_browser_and_its_cookie_is_enough_the_next_time(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, coded(), coded("next"))
        first, second = client(), client()
        answer = await first.post("/p/lunch", data={"vote": "a", "code": code(7)})
        assert answer.status_code == 200
        assert [each.split("=")[0] for each in answer.headers.get_list("set-cookie")] == ["voting_code"]
        assert answer.headers["set-cookie"].endswith("; Path=/; Max-Age=4838400; HttpOnly; SameSite=Lax")
        assert code(7).replace("-", "")[3:] not in answer.headers["set-cookie"].replace("-", "").upper()
        again = await first.post("/p/lunch", data={"vote": "b", "code": ""})
        assert again.status_code == 200
        assert "set-cookie" not in again.headers
        assert await vote(second, code(7).lower(), "c") == 200
        assert await vote(first, None, "d", "/p/next") == 200
        assert await vote(client(), code(8), "d") == 200
        voters, choices = zip(*stored(broker), strict=True)
    assert choices == (b"a", b"b", b"c", b"d", b"d")
    assert set(voters[:3]) == {CODES.pseudonym(7, b"lunch")}
    assert voters[3:] == (CODES.pseudonym(7, b"next"), CODES.pseudonym(8, b"lunch"))


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (None, "no_code"),
        ("", "no_code"),
        ("  ", "no_code"),
        ("0000-0000-0000-0001", "code_typo"),
        (code(1)[:-1], "code_typo"),
        ("0000-0000-0000-0000", "unknown_code"),
        (code(1, OTHER), "unknown_code"),
        (code(2), "unknown_code"),
    ],
)
async def test_a_vote_without_a_valid_code_is_refused(broker: Broker, typed: str | None, reason: str) -> None:
    revoked = CodeList(CODES.key, 20, {2: -1})
    async with serving(broker) as client:
        publish(broker, coded(codes=revoked), Session(CODE, "All hands", ("lunch",), "lunch", 1))
        for path in ("/p/lunch", f"/p/lunch?s={CODE}"):
            browser = client()
            await browser.get("/")  # sets the cookie of other polls
            assert await vote(browser, typed, path=path) == (403, reason, "no")
            page = await browser.post(path, data={"vote": "a", "code": typed or ""}, headers=HTML)
            assert page.status_code == 403
            assert f'href="{path}"' in page.text
            assert "set-cookie" not in page.headers
            answer = await client().post(path, data={"vote": "a"}, headers=KEY)
            assert refusal(answer) == (403, "no_code", "no")
        assert stored(broker) == []


async def test_no_code_is_valid_before_any_was_made(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, coded(codes=None))
        assert await vote(client(), code(1)) == (403, "unknown_code", "no")
        assert await vote(client(), None) == (403, "no_code", "no")
        assert 'name="code"' in (await client().get("/p/lunch", headers=HTML)).text


@pytest.mark.parametrize("kind", ["single", "multiple", "ranking"])
async def test_the_code_may_be_anywhere_in_the_form(broker: Broker, kind: Any) -> None:
    ballot = coded(kind=kind)
    typed, encoded = code(3), code(3).replace("-", "%E2%80%93").lower()
    forms = [
        f"vote=a&code={typed}",
        f"code={typed}&vote=a",
        f"ballot={ballot.digest}&code={typed}&vote=a",
        f"ballot={ballot.digest}&vote=a&code={encoded}",
        f"vote=a&code=&code={typed}&code={code(4)}",
        f"x=1&code={encoded}&vote=a&vote=",
    ]
    async with serving(broker) as client:
        publish(broker, ballot)
        for form in forms:
            assert (await client().post("/p/lunch", content=form, headers=FORM)).status_code == 200, form
        for form, reason in (
            (f"code={typed}", "bad_choice"),
            (f"vote=zz&code={typed}", "bad_choice"),
            (f"ballot=old&vote=a&code={typed}", "poll_changed"),
            (f"vote=a&xcode={typed}", "no_code"),
        ):
            assert refusal(await client().post("/p/lunch", content=form, headers=FORM))[1] == reason
        assert stored(broker) == [(CODES.pseudonym(3, b"lunch"), b"a")] * len(forms)


async def test_a_code_in_the_form_replaces_the_remembered_one_and_a_cookie_of_another_list_is_ignored(
    broker: Broker,
) -> None:
    async with serving(broker) as client:
        publish(broker, coded(), coded("other", OTHER))
        browser = client()
        for typed, choice in ((code(1), "a"), (code(2), "b"), (None, "c")):
            assert await vote(browser, typed, choice) == 200
        assert await vote(browser, None, path="/p/other") == (403, "no_code", "no")
        assert REMEMBERED not in (await browser.get("/p/other", headers=HTML)).text
        for cookie in ("voting_code=", "voting_code=2.0", f"voting_code={code(2)}", "voting_code=99999." + "0" * 32):
            answer = await client().post("/p/lunch", data={"vote": "a"}, headers={"cookie": cookie})
            assert refusal(answer) == (403, "no_code", "no")
        voters = [voter for voter, _ in stored(broker)]
    assert voters == [CODES.pseudonym(serial, b"lunch") for serial in (1, 2, 2)]


async def test_a_change_of_the_list_applies_to_codes_and_cookies_and_a_new_code_replaces_the_vote(
    broker: Broker,
) -> None:
    changed = CodeList(CODES.key, 20, {1: -1, 2: 1})
    async with serving(broker) as client:
        publish(broker, coded())
        browsers = [client(), client()]
        for number, browser in enumerate(browsers, 1):
            assert await vote(browser, code(number)) == 200
        publish(broker, coded(codes=changed, changed=1))

        async def is_refused() -> bool:
            return await vote(browsers[0], None) == (403, "no_code", "no")

        await until(is_refused)
        assert await vote(browsers[1], None) == (403, "no_code", "no")
        for serial in (1, 2):
            assert await vote(client(), code(serial)) == (403, "unknown_code", "no")
        assert await vote(client(), code(2, changed), "b") == 200
        assert stored(broker)[-1] == (CODES.pseudonym(2, b"lunch"), b"b")


async def test_limits_and_rules_for_browsers_do_not_apply_to_codes(broker: Broker) -> None:
    async with serving(broker, new_voters_per_hour=1, ballot_policy="browser", https=True) as client:
        publish(broker, coded())
        for serial in range(1, 6):
            page = await client().get("/p/lunch", headers=HTML)
            assert page.status_code == 200
            assert "set-cookie" not in page.headers
            answer = await client().post("/p/lunch", data={"vote": "a", "code": code(serial)})
            assert answer.status_code == 200
        assert answer.headers["set-cookie"].startswith("__Host-voting_code=5.")
        assert "; Secure" in answer.headers["set-cookie"]
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert (await client().post("/p/lunch", data={"vote": "b"}, headers={"cookie": cookie})).status_code == 200


async def test_wrong_codes_are_limited_and_those_who_have_voted_are_not(broker: Broker) -> None:
    async with serving(broker, wrong_codes_per_hour=3, trusted_proxies=1) as client:
        publish(broker, coded(), coded("other", OTHER))
        hall, elsewhere = {"x-forwarded-for": "192.0.2.1"}, {"x-forwarded-for": "2001:db8::1"}

        def person(headers: dict[str, str] = hall) -> httpx.AsyncClient:
            made = client()
            made.headers.update(headers)
            return made

        known = person()
        assert await vote(known, code(1)) == 200
        for _ in range(5):
            assert await vote(person(), code(1)[:-1]) == (403, "code_typo", "no")
        for _ in range(3):
            assert await vote(person(), code(1, OTHER)) == (403, "unknown_code", "no")
        for typed, path in ((code(2), "/p/lunch"), (code(3, OTHER), "/p/lunch"), (code(2, OTHER), "/p/other")):
            answer = await person().post(path, data={"vote": "a", "code": typed})
            assert refusal(answer) == (429, "wrong_codes", "no")
            assert 1100 < int(answer.headers["retry-after"]) <= 1200
            assert "wait about 20 minutes" in answer.json()["detail"]
        assert await vote(person(), code(1)[:-1]) == (403, "code_typo", "no")
        assert await vote(person(), None) == (403, "no_code", "no")
        assert await vote(known, None, "b") == 200
        assert await vote(known, code(1), "c") == 200  # the page that was open sends it again
        assert await vote(known, code(2)) == (429, "wrong_codes", "no")
        assert await vote(person(elsewhere), code(2)) == 200
        assert len(stored(broker)) == 4


async def test_a_vote_that_was_not_stored_can_be_sent_again_from_the_page_without_the_code(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, coded())
        for serial in (1, 2):
            browser = client()
            await browser.get("/p/lunch")
            broker.pause() if serial == 1 else broker.kill()
            data = {"vote": "a", "code": code(serial)}

            async def is_refused(browser: httpx.AsyncClient = browser, data: dict[str, str] = data) -> bool:
                page = await browser.post("/p/lunch", data=data, headers=HTML)
                return page.status_code == 503 and code(serial) not in page.text  # noqa: B023 - awaited in the loop

            await until(is_refused)
            broker.resume() if serial == 1 else broker.start()

            async def is_accepted(browser: httpx.AsyncClient = browser) -> bool:
                answer = await browser.post("/p/lunch", data={"vote": "b"})
                assert answer.status_code in {200, 503}
                return answer.status_code == 200

            await until(is_accepted)
            assert stored(broker)[-1] == (CODES.pseudonym(serial, b"lunch"), b"b")


async def test_the_page_asks_for_a_code_until_one_is_remembered(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, coded(), poll("open"), Session(CODE, "All hands", ("lunch",), "lunch", 1))
        browser = client()
        for path in ("/p/lunch", f"/{CODE}"):
            page = (await browser.get(path, headers=HTML)).text
            assert '<label for="voting-code">' in page
            assert REMEMBERED not in page
        accepted = await browser.post("/p/lunch", data={"vote": "a", "code": code(1)}, headers=HTML)
        for page in (
            accepted.text,
            *[(await browser.get(path, headers=HTML)).text for path in ("/p/lunch", f"/{CODE}")],
        ):
            assert REMEMBERED in page
            assert "<details" in page
            assert code(1) not in page
        assert REMEMBERED not in (await client().get("/p/lunch", headers=HTML)).text
        assert 'name="code"' not in (await browser.get("/p/open", headers=HTML)).text
