"""The vote service's response to each vote, with a real Valkey that is paused or killed."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis
from prometheus_client import CollectorRegistry

from tests.integration.broker import Broker
from tests.integration.test_producer import POLL, open_poll
from tests.waiting import background, until
from voting.broker.stream import STREAM
from voting.service.lifecycle import Stop
from voting.settings.services import VoteSettings
from voting.vote.app import create_app
from voting.vote.endpoint import VoteEndpoint
from voting.vote.metrics import VoteMetrics
from voting.web.rate_limit import with_rate_limit
from voting.web.rendering import Pages

pytestmark = pytest.mark.anyio
JSON = {"accept": "application/json"}
KEY = {"idempotency-key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
FROM_PAGE = {"ballot": POLL.digest, "vote": "a"}
Client = Callable[[], httpx.AsyncClient]


@asynccontextmanager
async def serving(broker: Broker, **given: Any) -> AsyncIterator[Client]:
    """Run the application and its producer; yield a function that makes clients, each with its own cookie jar."""
    await open_poll(broker.url)
    settings = VoteSettings.model_validate({"redis_url": broker.url, "secret_key": "k" * 32} | given)
    pages, metrics = Pages("voting.vote"), VoteMetrics(CollectorRegistry())
    endpoint = VoteEndpoint(settings, pages, metrics)
    app = with_rate_limit(create_app(settings, pages, endpoint, Stop()), settings, pages, metrics.limited.inc)
    async with background(endpoint.run()), contextlib.AsyncExitStack() as clients:

        def client() -> httpx.AsyncClient:
            made = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers=JSON)
            clients.push_async_callback(made.aclose)
            return made

        await until(lambda: endpoint.ready)
        yield client


def stored(broker: Broker) -> list[tuple[bytes, bytes]]:
    """Return voter and choice of each vote on the stream."""
    with redis.Redis.from_url(broker.url) as client:
        return [(fields[b"voter"], fields[b"choice"]) for _, fields in client.xrange(STREAM)]


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Return status, reason and `counted` of a refusal; check that it is a problem as RFC 9457 defines it."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == "about:blank"
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert len(problem["detail"]) > 20
    return answer.status_code, problem["reason"], problem["counted"]


async def post_until_accepted(client: httpx.AsyncClient, **request: Any) -> httpx.Response:
    """Send a vote until it is accepted; the client keeps its cookie, as a browser does."""
    async with asyncio.timeout(10):
        while (answer := await client.post("/", **request)).status_code == 503:
            await asyncio.sleep(0.05)
    return answer


@pytest.mark.parametrize("key", [{}, KEY], ids=["a new voter", "an idempotency key"])
async def test_a_vote_without_a_reply_may_be_counted_and_sent_again_with_the_cookie_it_is_the_same_vote(
    broker: Broker, key: dict[str, str]
) -> None:
    async with serving(broker) as client:
        voter = client()
        broker.pause()
        answer = await voter.post("/", data={"vote": "a"}, headers=key)
        assert refusal(answer) == (503, "broker_silent", "unknown")
        assert answer.headers["retry-after"] == "1"
        assert "voter_id" in answer.cookies
        broker.resume()
        assert (await post_until_accepted(voter, data={"vote": "b"})).status_code == 200
        votes = stored(broker)
    assert votes[-1][1] == b"b"
    assert len({voter for voter, _ in votes}) == 1
    assert len(votes) == 2, "the first vote did not arrive: this proves nothing"


async def test_the_page_says_that_it_is_not_known_and_its_form_sends_the_vote_again_for_the_same_voter(
    broker: Broker,
) -> None:
    async with serving(broker) as client:
        browser = client()
        browser.headers["accept"] = "text/html"
        broker.pause()
        page = await browser.post("/", data={"vote": "a"})
        assert page.status_code == 503
        assert "It is not known whether your vote was counted." in page.text
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)">', page.text))
        assert fields == FROM_PAGE
        broker.resume()
        assert (await post_until_accepted(browser, data=fields)).status_code == 200
        assert len({voter for voter, _ in stored(broker)}) == 1


async def test_a_vote_that_was_not_published_is_not_counted_and_sets_no_cookie(broker: Broker) -> None:
    async with serving(broker) as client:
        broker.kill()
        voter = client()
        await until_refused(voter, "broker_away")
        answer = await voter.post("/", data={"vote": "a"}, headers=KEY)
        assert refusal(answer) == (503, "broker_away", "no")
        assert "set-cookie" not in answer.headers
        await asyncio.to_thread(broker.start)
        assert (await post_until_accepted(voter, data={"vote": "b"}, headers=KEY)).status_code == 200
        assert [choice for _, choice in stored(broker)] == [b"b"]


async def until_refused(client: httpx.AsyncClient, reason: str) -> None:
    async def is_refused() -> bool:
        answer = await client.post("/", data={"vote": "a"})
        return bool(answer.json().get("reason") == reason)

    await until(is_refused)


@pytest.mark.parametrize(
    ("method", "path", "request_", "expected"),
    [
        ("POST", "/", {"data": {"vote": "x"}}, (400, "bad_choice", "no")),
        ("POST", "/", {"json": {"vote": "a"}}, (415, "media_type", "no")),
        ("POST", "/", {"data": {"vote": "a" * 5000}}, (413, "too_large", "no")),
        ("POST", "/", {"data": {"vote": "a"}, "headers": {"origin": "http://evil.example"}}, (403, "cross_site", "no")),
        ("POST", "/p/none", {"data": {"vote": "a"}}, (404, "unknown_poll", "no")),
        ("POST", "/nowhere", {}, (404, "not_found", "no")),
        ("POST", "/results", {}, (405, "method_not_allowed", "no")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_every_other_refused_vote_is_not_counted(
    broker: Broker, method: str, path: str, request_: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    async with serving(broker) as client:
        assert refusal(await client().request(method, path, **request_)) == expected
        assert stored(broker) == []


async def test_a_vote_over_the_rate_limit_is_not_counted(broker: Broker) -> None:
    async with serving(broker, rate_limit=0.01, rate_burst=1) as client:
        answers = [await client().post("/", data={"vote": "a"}) for _ in range(2)]
        assert answers[0].status_code == 200
        assert refusal(answers[1]) == (429, "rate_limit", "no")


async def test_a_problem_of_a_get_does_not_say_whether_it_is_counted(broker: Broker) -> None:
    async with serving(broker) as client:
        answer = await client().get("/p/none", headers={"accept": "application/problem+json", "accept-language": "de"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-language"] == "de"
    assert answer.json().keys() == {"type", "title", "status", "detail", "reason"}


async def test_the_same_idempotency_key_is_the_same_voter_with_or_without_quotes_and_so_is_its_cookie(
    broker: Broker,
) -> None:
    async with serving(broker) as client:
        first = client()
        assert (await first.post("/", data={"vote": "a"}, headers=KEY)).status_code == 200
        unquoted = {"idempotency-key": KEY["idempotency-key"].strip('"')}
        assert (await client().post("/p/default", data={"vote": "b"}, headers=unquoted)).status_code == 200
        assert (await first.post("/", data={"vote": "a"})).status_code == 200  # with the cookie of the first answer
        votes = stored(broker)
    assert [choice for _, choice in votes] == [b"a", b"b", b"a"]
    assert len({voter for voter, _ in votes}) == 1


async def test_another_idempotency_key_is_another_voter_and_a_cookie_has_priority(broker: Broker) -> None:
    async with serving(broker) as client:
        known = client()
        for key in ("12345678", "12345679"):
            await known.post("/", data={"vote": "a"}, headers={"idempotency-key": key})
        await client().post("/", data={"vote": "a"}, headers={"idempotency-key": "12345679"})
        voters = [voter for voter, _ in stored(broker)]
    assert voters[0] == voters[1]
    assert voters[2] != voters[0]


@pytest.mark.parametrize(
    "key", ["", "1234567", "x" * 129, "with a space", "naïve-key", '"12345678', '"1234567"', "a" * 8 + '"']
)
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_an_invalid_idempotency_key_is_refused(broker: Broker, key: str, *, known: bool) -> None:
    async with serving(broker) as client:
        voter = client()
        if known:
            await voter.get("/")
        answer = await voter.post("/", data={"vote": "a"}, headers=[(b"idempotency-key", key.encode("latin-1"))])
        assert refusal(answer) == (400, "idempotency_key", "no")
        assert stored(broker) == []


async def test_a_vote_from_a_page_that_showed_another_ballot_is_refused(broker: Broker) -> None:
    before = replace(POLL, options=tuple(replace(each, label=f"Old {each.label}") for each in POLL.options)).digest
    async with serving(broker) as client:
        for stale in (f"ballot={before}&vote=a", f"vote=a&ballot={before}", "ballot=&vote=a", "ballot=%ff&vote=z"):
            form = {"content-type": "application/x-www-form-urlencoded"}
            browser = client()
            await browser.get("/")
            assert refusal(await browser.post("/", content=stale, headers=form | JSON)) == (409, "poll_changed", "no")
            page = await browser.post("/", content=stale, headers=form | {"accept": "text/html"})
            assert page.status_code == 409
            assert "This poll has changed" in page.text
            assert 'href="/"' in page.text
    assert stored(broker) == []


async def test_a_vote_from_the_page_is_refused_without_a_cookie_and_accepted_with_one(broker: Broker) -> None:
    async with serving(broker) as client:
        for body in (f"ballot={POLL.digest}&vote=a", f"vote=a&ballot={POLL.digest}"):
            form = {"content-type": "application/x-www-form-urlencoded"}
            answer = await client().post("/", content=body, headers=form)
            assert refusal(answer) == (403, "no_cookie", "no")
            assert "set-cookie" not in answer.headers
        assert stored(broker) == []
        browser = client()
        await browser.get("/")
        assert (await browser.post("/", data=FROM_PAGE)).status_code == 200
        assert (await client().post("/", data=FROM_PAGE, headers=KEY)).status_code == 200  # the key makes it repeatable


async def test_where_only_browsers_may_vote_an_idempotency_key_is_not_enough(broker: Broker) -> None:
    async with serving(broker, ballot_policy="browser") as client:
        for headers in ({}, KEY):
            assert refusal(await client().post("/", data={"vote": "a"}, headers=headers)) == (403, "no_cookie", "no")


@pytest.mark.parametrize("policy", ["open", "browser"])
async def test_too_many_new_voters_are_refused_with_the_wait_and_known_voters_are_accepted(
    broker: Broker, policy: str
) -> None:
    async with serving(broker, ballot_policy=policy, new_voters_per_hour=3) as client:
        known = client()
        for each in (known, client(), client()):
            assert (await each.get("/")).status_code == 200
        page = await client().get("/", headers={"accept": "text/html"})
        assert page.status_code == 429
        assert 19 * 60 < int(page.headers["retry-after"]) <= 20 * 60
        assert "You can vote in about 20 minutes." in page.text
        assert "set-cookie" not in page.headers
        for data in ({"vote": "a"}, FROM_PAGE):
            answer = await client().post("/", data=data)
            assert refusal(answer) == (429, "new_voters", "no")
            assert answer.json()["detail"].endswith("You can vote in about 20 minutes.")
            assert int(answer.headers["retry-after"]) > 19 * 60
        assert (await known.get("/")).status_code == 200
        assert (await known.post("/", data=FROM_PAGE)).status_code == 200


async def test_votes_that_are_never_counted_do_not_count_as_new_voters(broker: Broker) -> None:
    async with serving(broker, new_voters_per_hour=2) as client:
        for _ in range(5):
            assert (await client().post("/", data=FROM_PAGE)).status_code == 403
        broker.kill()
        await until_refused(client(), "broker_away")
        for _ in range(5):
            assert refusal(await client().post("/", data={"vote": "a"}))[1:] == ("broker_away", "no")
        await asyncio.to_thread(broker.start)
        assert (await post_until_accepted(client(), data={"vote": "a"})).status_code == 200
        statuses = [(await client().post("/", data={"vote": "a"})).status_code for _ in range(2)]
    assert statuses == [200, 429]


async def test_a_vote_that_may_be_counted_counts_as_one_new_voter_however_often_it_is_sent(broker: Broker) -> None:
    async with serving(broker, new_voters_per_hour=1) as client:
        voter = client()
        broker.pause()
        assert refusal(await voter.post("/", data={"vote": "a"}))[2] == "unknown"
        broker.resume()
        assert (await post_until_accepted(voter, data={"vote": "a"})).status_code == 200
        assert refusal(await client().post("/", data={"vote": "a"}))[1] == "new_voters"


async def test_concurrent_votes_do_not_exceed_the_limit_of_new_voters(broker: Broker) -> None:
    async with serving(broker, new_voters_per_hour=5) as client:
        answers = await asyncio.gather(*(client().post("/", data={"vote": "a"}) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 15
        assert len(stored(broker)) == 5
