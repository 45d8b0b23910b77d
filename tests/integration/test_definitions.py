"""Definitions of polls and sessions, from a real PostgreSQL through a worker and a real Valkey to the vote service."""

import asyncio
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import redis

from tests.integration.test_counter import Bench, working
from tests.measured import value_of
from tests.waiting import background, until
from voting.broker.poll_cache import PollCache
from voting.broker.stream import STREAM
from voting.operate.secrets import ACL
from voting.polls.poll import Poll
from voting.polls.session import Session
from voting.service import metrics
from voting.settings.services import RedisSettings
from voting.worker import definitions
from voting.worker.app import Worker
from voting.worker.metrics import WorkerMetrics

pytestmark = pytest.mark.anyio
OPTIONS = '[{"key": "a", "label": "Soup"}, {"key": "b", "label": "Bread"}]'
CODE = "ACD346"
MEETING = "INSERT INTO sessions (code, title, polls, host_hash) VALUES ('ACD346', 'Meeting', '{lunch}', '')"
RESET = """
    INSERT INTO rounds (poll, round, question, options, kind) SELECT slug, round, question, options, kind FROM polls
    WHERE slug = 'lunch';
    UPDATE polls SET state = 'draft', round = round + 1 WHERE slug = 'lunch'
"""


class Stores(Bench):
    """The two stores, with functions to change definitions, and to read those published."""

    def run(self, *statements: str) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def define(self, slug: str = "lunch", **columns: str) -> None:
        """Make a poll, with SQL expressions for further columns."""
        more = {"slug": f"'{slug}'", "question": "'?'", "options": f"'{OPTIONS}'"} | columns
        self.run(f"INSERT INTO polls ({', '.join(more)}) VALUES ({', '.join(more.values())})")  # noqa: S608 - a test

    def published(self) -> dict[str, Poll]:
        with redis.Redis.from_url(self.redis_url) as client:
            found = client.hgetall("polls")
        return {slug.decode(): Poll.from_json(slug.decode(), text) for slug, text in found.items()}

    def sessions(self) -> dict[str, Session]:
        with redis.Redis.from_url(self.redis_url) as client:
            found = client.hgetall("sessions")
        return {code.decode(): Session.from_json(code.decode(), text) for code, text in found.items()}

    def counted(self) -> dict[str, int]:
        query = "SELECT poll, sum(votes)::int FROM tallies GROUP BY poll"
        return {poll: votes for poll, votes in self.rows(query) if votes}

    def dead(self) -> list[str]:
        return [reason for (reason,) in self.rows("SELECT reason FROM dead_letters")]


@pytest.fixture
def stores(redis_url: str, database_url: str) -> Stores:
    return Stores(redis_url, database_url)


@pytest.fixture
async def notified(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """A worker that only NOTIFY and the schedule wake.

    It would notice a stop as rarely, so it is cancelled. A client of Redis may swallow that, so it is stopped as well.
    """
    monkeypatch.setattr(definitions, "POLL_SECONDS", 3600)
    worker, stop = Worker(stores.settings(), WorkerMetrics(metrics.registry("worker"))), asyncio.Event()
    async with background(worker.count(stop), worker.report(stop), worker.publish(stop)):
        await until(stores.published)
        yield
        stop.set()


@asynccontextmanager
async def caching(stores: Stores) -> AsyncIterator[PollCache]:
    cache = PollCache(functools.partial(RedisSettings(redis_url=stores.redis_url).reread, "redis_url"))
    async with background(cache.run()):
        await until(lambda: cache.find("default"))
        yield cache


async def test_polls_and_sessions_are_published_as_they_are_defined(stores: Stores) -> None:
    stores.define(
        kind="'multiple'", max_choices="2", state="'draft'", results="'hidden'", opens_at="'2099-01-01 0:00Z'"
    )
    stores.run(MEETING)
    async with working(stores.settings()):
        await until(lambda: stores.published().keys() == {"default", "lunch"} and stores.sessions())
    lunch, session = stores.published()["lunch"], stores.sessions()[CODE]
    assert (lunch.kind, lunch.max_choices, lunch.state, lunch.results) == ("multiple", 2, "draft", "hidden")
    assert lunch.opens_at == 4070908800
    assert lunch.ticket
    assert (session.title, session.polls, session.current) == ("Meeting", ("lunch",), None)
    assert stores.rows("SELECT changed FROM polls WHERE slug = 'lunch'") == [(lunch.changed,)]
    assert stores.rows("SELECT changed FROM sessions") == [(session.changed,)]


@pytest.mark.usefixtures("notified")
async def test_voting_codes_are_published_with_each_poll_that_uses_them(stores: Stores) -> None:
    def published(slug: str) -> object:
        with redis.Redis.from_url(stores.redis_url) as client:
            text = client.hget("polls", slug)
        return json.loads(text).get("codes") if text else None

    stores.define(access="'code'")
    stores.define("dinner", access="'code'")
    stores.run(MEETING, "INSERT INTO code_lists (owner, key, issued) VALUES ('ACD346', repeat('a', 64), 2)")
    codes = {"key": "a" * 64, "issued": 2, "changes": {}}
    await until(lambda: published("lunch") == codes)
    assert published("dinner") is None
    stores.run("UPDATE sessions SET polls = '{lunch, dinner}'")
    await until(lambda: published("dinner") == codes)
    stores.run("""UPDATE code_lists SET changes = '{"2": -1}'""")
    await until(lambda: published("lunch") == published("dinner") == codes | {"changes": {"2": -1}})
    stores.run("DELETE FROM sessions")
    await until(lambda: published("lunch") is None and published("dinner") is None)
    assert stores.rows("SELECT owner FROM code_lists") == []


@pytest.mark.usefixtures("notified")
async def test_a_notification_makes_a_change_known_at_once(stores: Stores) -> None:
    stores.define()
    stores.run(MEETING)
    async with caching(stores) as cache:
        await until(lambda: stores.sessions() and "lunch" in stores.published())
        assert await cache.load("lunch")
        assert await cache.load_session(CODE)
        stores.run("UPDATE polls SET state = 'closed' WHERE slug = 'lunch'")
        await until(lambda: cache.find("lunch").state == "closed")  # type: ignore[union-attr]
        stores.run("UPDATE sessions SET current = 'lunch'")
        await until(lambda: cache.find_session(CODE).current == "lunch")  # type: ignore[union-attr]
        stores.run("DELETE FROM polls WHERE slug = 'lunch'")
        await until(lambda: cache.find("lunch") is None)
        await until(lambda: cache.find_session(CODE).polls == ())  # type: ignore[union-attr]
        stores.run("DELETE FROM sessions")
        await until(lambda: cache.find_session(CODE) is None)


async def test_one_worker_listens_and_another_takes_over(stores: Stores) -> None:
    def listeners() -> set[int]:
        return {pid for (pid,) in stores.rows("SELECT pid FROM pg_locks WHERE locktype = 'advisory'")}

    async with working(stores.settings(), stores.settings("w2")):
        await until(listeners)
        (first,) = listeners()
        stores.run(f"SELECT pg_terminate_backend({first})")
        await until(lambda: listeners() - {first})
        await until(lambda: len(listeners()) == 1)


async def test_a_change_whose_notification_was_lost_is_published_by_a_later_read(stores: Stores) -> None:
    async with working(stores.settings()) as (worker,):
        await until(lambda: worker.ready and stores.published())
        stores.run(
            "CREATE OR REPLACE FUNCTION stamp_poll() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN NEW.changed := next_change(); RETURN NEW; END'"
        )
        stores.run("UPDATE polls SET state = 'closed'")
        await until(lambda: stores.published()["default"].state == "closed", within=10)  # far less than COMPARE_SECONDS


async def test_hashes_that_were_lost_or_changed_are_published_again(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "COMPARE_SECONDS", 0.5)
    monkeypatch.setattr(definitions, "CHUNK", 2)
    for number in range(5):
        stores.define(f"p{number}")
    stores.run(MEETING)
    async with working(stores.settings(), stores.settings("w2")):
        await until(lambda: len(stores.published()) == 6 and stores.sessions())
        with redis.Redis.from_url(stores.redis_url) as client:
            before = client.hgetall("polls")
            client.delete("polls", "sessions")
            await until(lambda: client.hgetall("polls") == before and stores.sessions())
            client.hset("polls", mapping={"p1": "x", "p2": before[b"p1"], "else": "x", b"\xff": "x"})
            client.hdel("polls", "p3")
            await until(lambda: client.hgetall("polls") == before)


async def test_an_invalid_row_is_not_compared_again_and_again(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    compare = definitions.DefinitionPublisher._compare

    async def count(self: definitions.DefinitionPublisher, stop: asyncio.Event) -> None:
        nonlocal compared
        compared += 1
        await compare(self, stop)

    monkeypatch.setattr(definitions.DefinitionPublisher, "_compare", count)
    monkeypatch.setattr(definitions, "POLL_SECONDS", 0.05)
    stores.define("default2")
    stores.run("ALTER TABLE polls DISABLE TRIGGER check_poll")
    stores.define("bad1", kind="'else'")
    async with working(stores.settings()) as (worker,):
        await until(lambda: worker.ready and stores.published().keys() == {"default", "default2"})
        stores.define("bad2", kind="'else'")
        stores.run("UPDATE polls SET kind = 'else' WHERE slug = 'default2'")
        stores.define("good")
        await until(lambda: stores.published().keys() == {"default", "default2", "good"})
        stores.run("DELETE FROM polls WHERE slug IN ('bad1', 'default2')")
        await until(lambda: stores.published().keys() == {"default", "good"})
    assert compared == 1


@pytest.mark.usefixtures("notified")
async def test_the_schedule_is_kept_and_nothing_happens_early(stores: Stores) -> None:
    def state() -> str:
        return str(stores.rows("SELECT state FROM polls WHERE slug = 'lunch'")[0][0])

    async with caching(stores) as cache:
        stores.define(state="'draft'", opens_at="now() + interval '1 s'")
        await until(lambda: state() == "open")
        stores.run("UPDATE polls SET closes_at = now() + interval '1 s' WHERE slug = 'lunch'")
        await cache.load("lunch")
        await until(lambda: state() == "closed")
        await until(lambda: (lunch := cache.find("lunch")) and lunch.state == "closed")
    in_time = "SELECT opened >= opens_at, closed >= closes_at FROM polls WHERE slug = 'lunch'"
    assert stores.rows(in_time) == [(True, True)]
    assert stores.rows("SELECT actor, action, poll FROM audit ORDER BY id") == [
        ("schedule", "open", "lunch"),
        ("schedule", "close", "lunch"),
    ]


async def test_a_schedule_that_cannot_be_kept_stops_nothing_else(
    stores: Stores, capsys: pytest.CaptureFixture[str]
) -> None:
    stores.define(state="'draft'", opens_at="now() + interval '0.1 s'")
    stores.run("ALTER TABLE polls ADD CHECK (slug <> 'lunch' OR state <> 'open')")  # somebody's own rule
    async with working(stores.settings()) as (worker,):
        await until(lambda: "schedule.failed" in capsys.readouterr().out)
        await until(stores.published)
        stores.run("UPDATE polls SET state = 'closed' WHERE slug = 'default'")
        await until(lambda: stores.published()["default"].state == "closed")
        stores.vote(1)
        await until(lambda: stores.counted() == {"default": 1})
        assert value_of(worker._metrics.interruptions) == 0


async def test_a_vote_is_counted_in_the_round_in_which_it_was_accepted(stores: Stores) -> None:
    stores.define()
    async with working(stores.settings()):
        stores.vote(1, poll=b"lunch")
        await until(lambda: stores.counted() == {"lunch": 1})
    stores.vote(2, poll=b"lunch")
    stores.run(RESET)
    stores.vote(1, poll=b"lunch#2")
    async with working(stores.settings()) as (worker,):
        await until(lambda: stores.counted() == {"lunch": 2, "lunch#2": 1})
        await until(lambda: stores.rows("SELECT final IS NOT NULL FROM closings") == [(True,)])
        stores.vote(3, poll=b"lunch#2")
        stores.vote(4, poll=b"lunch")  # after its end: the vote service has refused it
        stores.vote(5, poll=b"lunch#4")
        stores.vote(6, poll=b"lunch#1")
        await until(lambda: stores.left() == (0, 0))
        assert value_of(worker._metrics.late) == 1
    assert stores.counted() == {"lunch": 2, "lunch#2": 2}
    assert stores.dead() == ["unknown poll"] * 2


async def test_a_vote_for_a_deleted_poll_is_dropped_and_one_for_a_poll_made_again_is_counted(stores: Stores) -> None:
    stores.define()
    stores.run(RESET)
    async with working(stores.settings()) as (worker,):
        stores.vote(1, poll=b"lunch#2")
        await until(lambda: stores.counted() == {"lunch#2": 1} and "lunch" in stores.published())
        stores.run("DELETE FROM polls WHERE slug = 'lunch'")
        await until(lambda: "lunch" not in stores.published())  # the worker forgets it before that
        for box in (b"lunch", b"lunch#2", b"lunch#3", b"nowhere"):
            stores.vote(2, poll=box)
        await until(lambda: stores.left() == (0, 0))
        assert stores.dead() == ["unknown poll"]
        assert value_of(worker._metrics.dropped) == 3
        assert stores.counted() == {"lunch#2": 1}
        stores.define()
        stores.vote(3, poll=b"lunch")
        await until(lambda: stores.counted() == {"lunch": 1, "lunch#2": 1})
        assert value_of(worker._metrics.dropped) == 3


async def test_choices_that_a_changed_poll_accepts_are_counted(stores: Stores) -> None:
    stores.define()
    async with working(stores.settings()):
        stores.vote(1, poll=b"lunch")
        await until(lambda: stores.counted() == {"lunch": 1})
        stores.run("DELETE FROM votes", "UPDATE tallies SET votes = 0", "UPDATE polls SET kind = 'multiple'")
        stores.vote(2, b"ab", poll=b"lunch")
        await until(lambda: stores.tallies() == {"ab": 1})
    assert stores.dead() == []


async def test_votes_of_many_polls_are_counted_by_a_worker_that_keeps_few(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voting.polls.vote_parser.KNOWN_POLLS", 10)
    copies = "INSERT INTO polls (slug, question, options) SELECT 'p' || n, question, options FROM polls, "
    stores.run(f"{copies} generate_series(1, 300) AS n")
    with redis.Redis.from_url(stores.redis_url) as client:
        for number in range(1200):
            client.xadd(STREAM, {"poll": f"p{number % 300 + 1}", "voter": number.to_bytes(16), "choice": "a"})
    async with working(stores.settings(batch_size=100)) as (worker,):
        await until(lambda: stores.left() == (0, 0) and len(stores.published()) == 301)
        assert len(worker._parser._polls) <= 110
    assert stores.counted() == {f"p{number}": 4 for number in range(1, 301)}
    assert stores.dead() == []


async def test_the_worker_user_has_the_rights_that_it_needs(stores: Stores) -> None:
    with redis.Redis.from_url(stores.redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">x", *ACL["worker"].split(" "))
        try:
            url = stores.redis_url.replace("unix://", "unix://worker:x@")
            stores.define()
            async with working(stores.settings(redis_url=url)) as (worker,):
                await until(lambda: stores.published().keys() == {"default", "lunch"})
                stores.vote(1, poll=b"lunch")
                await until(lambda: stores.counted() == {"lunch": 1})
                stores.run("DELETE FROM polls WHERE slug = 'lunch'")
                await until(lambda: stores.published().keys() == {"default"})
                admin.hset("polls", "other", stores.published()["default"].to_json())
                await until(lambda: stores.published().keys() == {"default"})
                assert value_of(worker._metrics.interruptions) == 0
        finally:
            admin.acl_deluser("worker")
