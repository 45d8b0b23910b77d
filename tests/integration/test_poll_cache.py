"""The cache of published polls and sessions, at a real Valkey that may be away."""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis

from tests.integration.broker import Broker
from tests.waiting import background, until
from voting.broker import cached_hash, poll_cache
from voting.broker.poll_cache import BrokerAway, PollCache
from voting.operate.secrets import ACL
from voting.polls.poll import Option, Poll
from voting.polls.session import Session
from voting.settings.services import RedisSettings

pytestmark = pytest.mark.anyio
OPTIONS = (Option("a", "A"), Option("b", "B"))
DEFAULT, LUNCH = Poll("default", "?", OPTIONS), Poll("lunch", "What?", OPTIONS)
SESSION = Session("ACD346", "Meeting", ("lunch",))


class Cached:
    """A cache, what it reported, and a client of the same broker."""

    def __init__(self, url: str, client: redis.Redis, rights: str = "") -> None:
        self.client = client
        self.seen: list[tuple[str, Poll | Session | None]] = []
        if rights:
            rules = ["reset", "on", "nopass", *rights.split(" ")]
            client.execute_command("ACL", "SETUSER", "vote", *rules)  # type: ignore[no-untyped-call]
            url = url.replace("unix://", "unix://vote:x@")

        def report(name: str, found: Poll | Session | None) -> None:
            self.seen.append((name, found))

        reread = functools.partial(RedisSettings(redis_url=url).reread, "redis_url")
        self.cache = PollCache(reread, on_poll=report, on_session=report)

    def put(self, *definitions: Poll | Session, announce: bool = True) -> None:
        for each in definitions:
            (key, name) = ("polls", each.slug) if isinstance(each, Poll) else ("sessions", each.code)
            self.client.hset(key, name, each.to_json())
            if announce:
                self.client.publish("definitions", f"{key[:-1]} {name}")

    def commands(self) -> int:
        """Return how often HMGET was called."""
        statistics = self.client.info("commandstats")
        return int(statistics.get("cmdstat_hmget", {"calls": 0})["calls"])


@asynccontextmanager
async def caching(url: str, rights: str = "", *, published: bool = True) -> AsyncIterator[Cached]:
    with redis.Redis.from_url(url) as client:
        cached = Cached(url, client, rights)
        if published:
            cached.put(DEFAULT)
        async with background(cached.cache.run()):
            if published:
                await until(lambda: cached.cache.find("default"))
            yield cached


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only messages make changes known."""
    monkeypatch.setattr(poll_cache, "REFRESH_SECONDS", 3600)


async def subscribed(cached: Cached) -> None:
    await until(lambda: cached.client.pubsub_numsub("definitions")[0][1] == 1)


async def test_default_is_there_without_being_asked_for_and_others_when_they_are(broker: Broker) -> None:
    async with caching(broker.url) as cached:
        cached.put(LUNCH, SESSION)
        assert cached.cache.has_polls
        assert cached.cache.find("lunch") is None
        assert cached.cache.find_session(SESSION.code) is None
        assert await cached.cache.load("lunch") == cached.cache.find("lunch") == LUNCH
        assert await cached.cache.load_session(SESSION.code) == cached.cache.find_session(SESSION.code) == SESSION
        assert cached.seen == [("default", DEFAULT), ("lunch", LUNCH), (SESSION.code, SESSION)]


@pytest.mark.usefixtures("rarely")
async def test_a_message_makes_a_change_known_at_once(broker: Broker) -> None:
    async with caching(broker.url) as cached:
        await subscribed(cached)
        closed = Poll("default", "?", OPTIONS, state="closed", changed=2)
        cached.put(closed)
        await until(lambda: cached.cache.find("default") == closed)
        cached.client.hdel("polls", "default")
        cached.client.publish("definitions", "poll default")
        await until(lambda: cached.cache.find("default") is None)
        cached.client.publish("definitions", b"poll \xff")
        cached.client.publish("definitions", b"else")
        cached.put(DEFAULT)
        await until(lambda: cached.seen[1:] == [("default", closed), ("default", None), ("default", DEFAULT)])


async def test_a_change_whose_message_was_lost_is_known_after_the_next_read(broker: Broker) -> None:
    async with caching(broker.url) as cached:
        cached.put(LUNCH, SESSION)
        await cached.cache.load("lunch")
        await cached.cache.load_session(SESSION.code)
        moved = Session(SESSION.code, "Meeting", ("lunch",), "lunch", 7)
        cached.put(moved, announce=False)
        await until(lambda: cached.cache.find_session(SESSION.code) == moved)
        cached.client.delete("polls", "sessions")
        await until(lambda: not cached.cache.has_polls)
        assert cached.cache.find("default") is cached.cache.find("lunch") is None
        assert cached.cache.find_session(SESSION.code) is None


@pytest.mark.usefixtures("rarely")
async def test_a_lost_subscription_is_renewed_and_what_was_missed_is_read(broker: Broker) -> None:
    async with caching(broker.url) as cached:
        await subscribed(cached)
        cached.client.client_kill_filter(_type="pubsub")
        new = Poll("default", "new", OPTIONS)
        cached.put(new, announce=False)
        await until(lambda: cached.cache.find("default") == new)


async def test_a_flood_of_unknown_names_is_no_flood_for_redis(broker: Broker) -> None:
    async with caching(broker.url) as cached:
        before = cached.commands()
        assert set(await asyncio.gather(*(cached.cache.load("nowhere") for _ in range(500)))) == {None}
        assert await cached.cache.load("nowhere") is None
        assert await cached.cache.load("../no slug") is None
        assert await cached.cache.load_session("no code") is None
        assert cached.commands() - before <= 3
        names = [f"n{number}" for number in range(3000)]
        assert set(await asyncio.gather(*map(cached.cache.load, names))) == {None}
        assert cached.commands() - before < 40


@pytest.mark.usefixtures("rarely")
async def test_a_poll_that_was_missing_a_moment_ago_is_found(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_hash, "MISS_SECONDS", 3600)
    async with caching(broker.url) as cached:
        await subscribed(cached)
        assert await cached.cache.load("lunch") is None
        cached.put(LUNCH, announce=False)
        assert await cached.cache.load("lunch") is None
        cached.client.publish("definitions", "poll lunch")

        async def is_found() -> bool:
            return await cached.cache.load("lunch") == LUNCH

        await until(is_found)


async def test_while_redis_is_away_what_is_cached_stays_and_nothing_else_is_known(broker: Broker) -> None:
    async with caching(broker.url) as cached:
        broker.pause()
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*(cached.cache.load(f"n{n}") for n in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [BrokerAway] * 3
        with pytest.raises(BrokerAway):
            cached.cache.load("nowhere").send(None)  # it waits for nothing
        assert cached.cache.find("default") == await cached.cache.load("default") == DEFAULT
        assert cached.cache.has_polls
        broker.resume()
        broker.kill()
        await asyncio.to_thread(broker.start)
        cached.put(LUNCH)

        async def is_found() -> bool:
            try:
                return await cached.cache.load("lunch") == LUNCH
            except BrokerAway:
                return False

        await until(is_found)


async def test_before_redis_has_answered_nothing_is_known(broker: Broker) -> None:
    async with caching(broker.url, published=False) as cached:
        with pytest.raises(BrokerAway):
            await cached.cache.load("default")
        assert not cached.cache.has_polls
        cached.put(LUNCH)
        await until(lambda: cached.cache.has_polls)
        assert await cached.cache.load("default") is None


async def test_unreadable_definitions_stay_as_they_were(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    async with caching(broker.url) as cached:
        cached.put(SESSION)
        await cached.cache.load_session(SESSION.code)
        cached.client.hset("polls", mapping={b"default": b"\xff{", b"\xff": b"[]", b"lunch": b'{"question": 1}'})
        cached.client.hset("sessions", SESSION.code, "7")
        logged = ""

        def is_logged() -> bool:
            nonlocal logged
            logged += capsys.readouterr().out
            return "poll=default" in logged and SESSION.code in logged

        await until(is_logged)
        assert await cached.cache.load("lunch") is None
        assert cached.cache.find("default") == DEFAULT
        assert cached.cache.find_session(SESSION.code) == SESSION


async def test_the_vote_user_has_the_rights_that_it_needs(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    async with caching(broker.url, ACL["vote"]) as cached:
        await subscribed(cached)
        cached.put(LUNCH, SESSION)
        assert await cached.cache.load("lunch") == LUNCH
        assert await cached.cache.load_session(SESSION.code) == SESSION
        assert "definitions.refused" not in capsys.readouterr().out


async def test_with_the_rights_of_an_earlier_version_polls_are_read_and_the_fix_is_logged(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = "%W~votes %R~polls -@all +ping +client|setinfo +xadd +hgetall +info"
    async with caching(broker.url, earlier) as cached:
        cached.put(LUNCH, announce=False)
        assert await cached.cache.load("lunch") == LUNCH
        with pytest.raises(BrokerAway):
            await cached.cache.load_session(SESSION.code)
        new = Poll("lunch", "new", OPTIONS)
        cached.put(new)
        await until(lambda: cached.cache.find("lunch") == new)
        logged = capsys.readouterr().out
    assert "definitions.refused" in logged
    assert "restart Redis" in logged
