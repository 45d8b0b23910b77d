"""The ballots of each kind, state and session over HTTP, with a real Valkey."""

import time
from typing import Any

import pytest
import redis

from tests.integration.broker import Broker
from tests.integration.test_endpoint import refusal, serving
from tests.waiting import until
from voting.broker.poll_hash import CHANNEL, POLLS, SESSIONS
from voting.broker.stream import STREAM
from voting.polls.poll import Kind, Option, Poll
from voting.polls.session import Session

pytestmark = pytest.mark.anyio
HTML = {"accept": "text/html"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
OPTIONS = tuple(Option(key, label) for key, label in zip("abcd", ("Soup", "Salad", "Bread", "Cake"), strict=True))
NUMBERS = tuple(Option(str(number), str(number)) for number in range(1, 6))
CODE, TICKET = "ACDEFG", "0123456789abcdef"


def poll(slug: str = "lunch", kind: Kind = "single", **more: Any) -> Poll:
    return Poll(slug, "What?", NUMBERS if kind == "rating" else OPTIONS, kind, **more)


def publish(broker: Broker, *published: Poll | Session) -> None:
    """Publish definitions as the workers do."""
    with redis.Redis.from_url(broker.url) as client:
        for each in published:
            is_poll = isinstance(each, Poll)
            name = each.slug if isinstance(each, Poll) else each.code
            client.hset(POLLS if is_poll else SESSIONS, name, each.to_json())
            client.publish(CHANNEL, f"{'poll' if is_poll else 'session'} {name}")


def votes(broker: Broker) -> list[tuple[bytes, bytes]]:
    """Return box and choice of each vote on the stream."""
    with redis.Redis.from_url(broker.url) as client:
        return [(fields[b"poll"], fields[b"choice"]) for _, fields in client.xrange(STREAM)]


@pytest.mark.parametrize(
    ("ballot", "form", "stored"),
    [
        (poll(), "vote=c", b"c"),
        (poll(kind="multiple"), "vote=ca", b"ac"),
        (poll(kind="multiple"), "vote=c&vote=a", b"ac"),
        (poll(kind="multiple", max_choices=2), "vote=&vote=d&vote=b", b"bd"),
        (poll(kind="rating", scale=5), "vote=5", b"5"),
        (poll(kind="ranking"), "vote=dab", b"dab"),
        (poll(kind="ranking"), "vote=d&vote=&vote=a&vote=", b"da"),
    ],
    ids=lambda value: value.kind if isinstance(value, Poll) else "",
)
async def test_a_choice_of_each_kind_is_stored_and_shown(
    broker: Broker, ballot: Poll, form: str, stored: bytes
) -> None:
    async with serving(broker) as client:
        publish(broker, ballot)
        answer = await client().post("/p/lunch", content=form, headers=FORM)
        assert answer.json().keys() == {"poll", "choice", "receipt"}
        assert (answer.json()["poll"], answer.json()["choice"]) == ("lunch", stored.decode())
        page = await client().post("/p/lunch", content=form, headers=FORM | HTML)
        assert page.status_code == 200
        assert 'class="status done"' in page.text
        labels = {option.key: option.label for option in ballot.options}
        if ballot.limit > 1:
            assert "".join(f"<li><bdi>{labels[key]}</bdi></li>" for key in stored.decode()) in page.text
        else:
            assert f"Your vote for <bdi>{labels[stored.decode()]}</bdi> is in" in page.text
        assert votes(broker) == [(b"lunch", stored)] * 2


@pytest.mark.parametrize(
    ("ballot", "form", "sentence"),
    [
        (poll(), "vote=a&vote=b", "exactly one option"),
        (poll(), "vote=ab", "exactly one option"),
        (poll(kind="multiple"), "", "names no option"),
        (poll(kind="multiple"), "vote=&vote=", "names no option"),
        (poll(kind="multiple"), "vote=ax", "an option that this poll does not have"),
        (poll(kind="multiple"), "vote=a&vote=a", "an option twice"),
        (poll(kind="multiple", max_choices=2), "vote=abc", "at most 2 can be chosen"),
        (poll(kind="ranking"), "vote=aba", "an option twice"),
        (poll(kind="ranking"), "vote=%C3%A9", "an option that this poll does not have"),
        (poll(kind="rating", scale=5), "vote=6", "one number from 1 to 5"),
        (poll(kind="rating", scale=5), "vote=1&vote=2", "one number from 1 to 5"),
        (poll(kind="rating", scale=5), "vote=", "one number from 1 to 5"),
    ],
)
async def test_a_bad_choice_is_refused_with_a_sentence_about_it(
    broker: Broker, ballot: Poll, form: str, sentence: str
) -> None:
    async with serving(broker) as client:
        publish(broker, ballot)
        answer = await client().post("/p/lunch", content=form, headers=FORM)
        assert refusal(answer) == (400, "bad_choice", "no")
        assert sentence in answer.json()["detail"]
        assert votes(broker) == []


NOW = time.time()
NOT_OPEN, CLOSED = "Voting has not opened yet", "Voting is closed"


@pytest.mark.parametrize(
    ("ballot", "reason", "title"),
    [
        (poll(state="draft"), "not_open", NOT_OPEN),
        (poll(state="draft", opens_at=NOW + 90_000), "not_open", NOT_OPEN),
        (poll(state="draft", opens_at=NOW - 9, closes_at=NOW - 1), "not_open", NOT_OPEN),
        (poll(state="closed"), "closed", CLOSED),
        (poll(state="open", closes_at=NOW - 1), "closed", CLOSED),
    ],
)
async def test_a_poll_that_is_not_open_says_so_and_takes_no_vote(
    broker: Broker, ballot: Poll, reason: str, title: str
) -> None:
    async with serving(broker) as client:
        publish(broker, ballot)
        for form in ({"vote": "a"}, {"vote": "zz"}, {"vote": "a", "ballot": ballot.digest}):
            answer = await client().post("/p/lunch", data=form)
            assert refusal(answer) == (409, reason, "no")
            assert title in answer.json()["detail"]
        page = await client().post("/p/lunch", data={"vote": "a"}, headers=HTML)
        assert page.status_code == 409
        assert f"<title>{title}</title>" in page.text
        page = await client().get("/p/lunch", headers=HTML)
        assert f"{title}." in page.text
        assert "What?" in page.text
        assert "Soup" not in page.text, "the options are shown only while the poll is open"
        assert '<noscript><meta http-equiv="refresh"' in page.text
        assert votes(broker) == []


async def test_a_poll_opens_by_the_clock_of_the_service(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, poll(state="draft", opens_at=NOW - 1, closes_at=NOW + 90_000))
        assert "Soup" in (page := await client().get("/p/lunch", headers=HTML)).text
        assert "http-equiv" not in page.text, "a form would be cleared"
        assert "Closes: " in page.text
        assert " UTC</p>" in page.text
        assert (await client().post("/p/lunch", data={"vote": "a"})).status_code == 200


async def test_a_later_round_has_votes_of_its_own_and_refuses_those_of_the_earlier(broker: Broker) -> None:
    first, second = poll(), poll(round=2, changed=1)
    async with serving(broker) as client:
        publish(broker, first)
        browser = client()
        await browser.get("/p/lunch")
        assert (await browser.post("/p/lunch", data={"vote": "a"})).status_code == 200
        publish(broker, second)

        async def is_second() -> bool:
            return second.digest in (await browser.get("/p/lunch", headers=HTML)).text

        await until(is_second)
        answer = await browser.post("/p/lunch", data={"vote": "a", "ballot": first.digest})
        assert refusal(answer) == (409, "poll_changed", "no")
        assert (await browser.post("/p/lunch", data={"vote": "b", "ballot": second.digest})).status_code == 200
    assert votes(broker) == [(b"lunch", b"a"), (b"lunch#2", b"b")]


async def test_a_poll_for_browsers_takes_no_vote_without_a_cookie(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, poll(access="browser"), poll("tea"))
        program = client()
        refused = await program.post("/p/lunch", content="vote=a", headers=FORM)
        assert refusal(refused) == (403, "no_cookie", "no")
        assert (await program.post("/p/tea", content="vote=a", headers=FORM)).status_code == 200
        browser = client()
        await browser.get("/p/lunch", headers=HTML)
        assert (await browser.post("/p/lunch", content="vote=a", headers=FORM)).status_code == 200


async def test_only_a_vote_in_an_after_vote_poll_gives_the_ticket(broker: Broker) -> None:
    link = f"/p/lunch/results?ticket={TICKET}"
    async with serving(broker) as client:
        publish(broker, poll(results="after_vote", ticket=TICKET), poll("live", ticket=TICKET))
        assert (await client().post("/p/lunch", data={"vote": "a"})).json()["ticket"] == TICKET
        before = await client().get("/p/lunch", headers=HTML)
        assert TICKET not in before.text
        assert "You can see the result when you have voted." in before.text
        assert link in (await client().post("/p/lunch", data={"vote": "a"}, headers=HTML)).text
        assert "ticket" not in (await client().post("/p/live", data={"vote": "a"})).json()
        assert TICKET not in (await client().post("/p/live", data={"vote": "a"}, headers=HTML)).text
        assert refusal(await client().post("/p/lunch", data={"vote": "zz"}))[1] == "bad_choice"


@pytest.mark.parametrize(
    ("given", "location"),
    [
        ("/results", "http://x:8081/"),
        (f"/results?ticket={TICKET}", f"http://x:8081/?ticket={TICKET}"),
        (f"/p/lunch/results?ticket={TICKET}", f"http://x:8081/p/lunch?ticket={TICKET}"),
        ("/p/lunch/results?ticket=short", "http://x:8081/p/lunch"),
        ("/p/lunch/results?ticket=0123456789%0d%0ax:y", "http://x:8081/p/lunch"),
        (f"/p/lunch/results?ticket={'a' * 65}", "http://x:8081/p/lunch"),
        (f"/{CODE.lower()}/results", f"http://x:8081/s/{CODE}"),
    ],
)
async def test_links_to_the_result_pass_on_the_ticket(broker: Broker, given: str, location: str) -> None:
    async with serving(broker) as client:
        assert (await client().get(given)).headers["location"] == location


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"results": "live"}, "See the live result"),
        ({"results": "after_close"}, "The result is shown when voting is closed."),
        ({"results": "hidden"}, "The host shows the result."),
        ({"results": "after_vote", "state": "closed"}, "See the result"),
        ({"results": "after_close", "state": "closed"}, "See the result"),
        ({"results": "hidden", "state": "closed"}, "The host shows the result."),
    ],
)
async def test_the_page_leads_to_the_result_where_it_can_be_seen(
    broker: Broker, more: dict[str, Any], shown: str
) -> None:
    async with serving(broker) as client:
        publish(broker, poll(**more))
        page = (await client().get("/p/lunch", headers=HTML)).text
    assert shown in page
    assert ('href="/p/lunch/results"' in page) == shown.startswith("See")


async def test_a_session_shows_its_current_poll_and_a_vote_stays_in_it(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, poll(), poll("next"), Session(CODE, "All hands", ("first", "lunch", "next"), "lunch", 1))
        for path in (f"/{CODE}", f"/{CODE.lower()}", "/acd-efg", f"/p/lunch?s={CODE.lower()}"):
            page = (await client().get(path, headers=HTML)).text
            for part in (
                "<bdi>All hands</bdi> · Question 2 of 3",
                f'action="/p/lunch?s={CODE}"',
                f'data-socket="/s/{CODE}/ws?view=ballot"',
                f'href="/{CODE}?lang=de"',
                f'href="/{CODE}/results"',
            ):
                assert part in page
        browser = client()
        await browser.get(f"/{CODE}")
        form = {"ballot": poll().digest, "vote": "a"}
        page = (await browser.post(f"/p/lunch?s={CODE}", data=form, headers=HTML)).text
        assert f'data-here="/{CODE}"' in page
        again = f"/{CODE}?voted={poll().digest}"
        assert f'<noscript><meta http-equiv="refresh" content="10; url={again}"></noscript>' in page
        assert "Your vote is in." in (waits := (await browser.get(again, headers=HTML)).text)
        assert "Soup" not in waits
        assert '<noscript><meta http-equiv="refresh"' in waits
        refused = await browser.post(f"/p/lunch?s={CODE}", data={"vote": "zz"}, headers=HTML)
        assert f'href="/p/lunch?s={CODE}"' in refused.text
        publish(broker, Session(CODE, "All hands", ("first", "lunch", "next"), "next", 2))

        async def is_next() -> bool:
            return 'data-poll="next"' in (await browser.get(again, headers=HTML)).text

        await until(is_next)
        assert (await browser.post(f"/p/lunch?s={CODE}", data=form)).status_code == 200  # it is still open


async def test_a_vote_in_a_session_that_was_not_stored_can_be_sent_again_from_the_page(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, poll(), Session(CODE, "All hands", ("lunch",), "lunch", 1))
        browser = client()
        await browser.get(f"/{CODE}")
        broker.pause()
        page = await browser.post(f"/p/lunch?s={CODE}", data={"vote": "a"}, headers=HTML)
        assert page.status_code == 503
        assert f'<form method="post" action="/p/lunch?s={CODE}">' in page.text
        broker.resume()


async def test_a_session_without_a_current_poll_waits(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, Session(CODE, "<All> hands", ("lunch",), None, 7), Session("HJKMNP", "Gone", ("x",), "x", 1))
        for code, version in ((CODE, 7), ("HJKMNP", 1)):
            page = await client().get(f"/{code}", headers=HTML)
            assert page.status_code == 200
            assert "Waiting for the next question" in page.text
            assert f'data-version="{version}"' in page.text
            assert '<noscript><meta http-equiv="refresh"' in page.text
        assert "&lt;All&gt; hands" in (await client().get(f"/{CODE}", headers=HTML)).text


async def test_what_is_no_code_or_no_session_is_not_found_and_asks_for_a_code(broker: Broker) -> None:
    async with serving(broker) as client:
        publish(broker, Session(CODE, "All hands"))
        for method, path, expected in (
            ("GET", "/HJKMNP", (404, "unknown_session")),
            ("GET", "/favicon.ico", (404, "not_found")),
            ("GET", "/p/%2e%2e", (404, "unknown_poll")),
            ("POST", "/nowhere", (404, "not_found")),
            ("POST", f"/{CODE}", (405, "method_not_allowed")),
            ("GET", "/nowhere/results", (404, "not_found")),
            ("GET", "/join?code=B0SSED", (404, "unknown_session")),
        ):
            answer = await client().request(method, path)
            assert (answer.status_code, answer.json()["reason"]) == expected, path
        page = await client().get("/HJKMNP", headers=HTML)
        assert '<form class="join" action="/join">' in page.text
        assert "HJKMNP" in page.text
        assert (await client().get("/livez")).text == "alive\n"


async def test_the_form_for_a_code_leads_to_the_session(broker: Broker) -> None:
    async with serving(broker) as client:
        for typed in (CODE, CODE.lower(), " acd efg ", "ACD-EFG"):
            answer = await client().get("/join", params={"code": typed})
            assert (answer.status_code, answer.headers["location"]) == (303, f"/{CODE}")
        for path in ("/join", "/join?code=", "/"):
            page = await client().get(path, headers=HTML)
            assert page.status_code == 200
            assert "Have a code?" in page.text
        assert (await client().get("/join?lang=de", headers=HTML)).cookies["lang"] == "de"


@pytest.mark.parametrize(
    ("given", "host", "sources"),
    [
        ({}, "vote.example:8080", "'self' ws://vote.example:8081"),
        ({"result_port": 9000}, "192.0.2.1", "'self' ws://192.0.2.1:9000"),
        ({"https": True}, "vote.example", "'self' wss://vote.example:8081"),
        ({"result_url": "https://result.example/x"}, "vote.example", "'self' wss://result.example"),
        ({}, "evil.example; script-src *", "'self'"),
        ({}, "a b", "'self'"),
    ],
)
async def test_a_page_may_connect_only_to_itself_and_to_the_result_service(
    broker: Broker, given: dict[str, Any], host: str, sources: str
) -> None:
    async with serving(broker, **given) as client:
        for method in ("GET", "POST"):
            answer = await client().request(method, "/", headers=HTML | {"host": host}, data={"vote": "a"})
            policy = answer.headers["content-security-policy"]
            assert f"; connect-src {sources}; form-action 'self'; " in policy
            assert policy.count("script-src") == 1
        answer = await client().post("/", headers={"host": host}, data={"vote": "a"})
        assert "connect-src 'self'; " in answer.headers["content-security-policy"]
