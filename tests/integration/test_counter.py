"""A whole worker between a real Valkey and a real PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from tests.measured import value_of
from tests.waiting import until
from voting.broker import stream
from voting.broker.connection import redis_client
from voting.broker.poll_hash import POLLS, read_polls
from voting.broker.stream import GROUP, STREAM
from voting.polls.vote import MAX_AHEAD_SECONDS, MAX_SEQ, VOTER_BYTES, EntryId, max_entry_ms
from voting.service import metrics
from voting.settings.services import WorkerSettings
from voting.worker.app import Worker
from voting.worker.metrics import WorkerMetrics

pytestmark = pytest.mark.anyio


@dataclass
class Bench:
    """The two stores, with functions to vote, to read them and to configure workers."""

    redis_url: str
    database_url: str

    def settings(self, name: str = "w1", **more: Any) -> WorkerSettings:
        stores = {"redis_url": self.redis_url, "database_url": self.database_url}
        return WorkerSettings.model_validate(stores | {"worker_name": name} | more)

    def vote(self, number: int, choice: bytes = b"a", **more: bytes) -> bytes:
        with redis.Redis.from_url(self.redis_url) as client:
            fields = {b"poll": b"default", b"voter": number.to_bytes(VOTER_BYTES), b"choice": choice}
            fields |= {name.encode(): value for name, value in more.items()}
            entry: bytes = client.xadd(STREAM, fields)
            return entry

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query.encode()).fetchall()

    def tallies(self) -> dict[str, int]:
        return {choice: votes for choice, votes in self.rows("SELECT choice, votes FROM tallies") if votes}

    def left(self) -> tuple[int, int]:
        """Return the numbers of entries on the stream and of pending ones; the latter is -1 without a group."""
        with redis.Redis.from_url(self.redis_url) as client:
            try:
                return client.xlen(STREAM), client.xpending(STREAM, GROUP)["pending"]
            except redis.ResponseError:
                return client.xlen(STREAM), -1


@pytest.fixture
def bench(redis_url: str, database_url: str) -> Bench:
    return Bench(redis_url, database_url)


@asynccontextmanager
async def working(*settings: WorkerSettings) -> AsyncIterator[list[Worker]]:
    """Run workers; at the end stop them as SIGTERM does, and wait until they have ended."""
    stop = asyncio.Event()
    workers = [Worker(each, WorkerMetrics(metrics.registry("worker"))) for each in settings]
    loops = [loop for each in workers for loop in (each.count, each.report, each.publish, each.close_rounds)]
    tasks = [asyncio.create_task(loop(stop)) for loop in loops]
    try:
        yield workers
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)


def is_usable(entry: EntryId) -> bool:
    """Return whether a vote may have an id after this one."""
    return entry.ms < max_entry_ms() and entry.seq < MAX_SEQ


async def test_a_lone_vote_is_counted_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.worker.counter.BLOCK_SECONDS", 3)
    async with working(bench.settings()) as (worker,):
        await until(lambda: worker.ready)
        began = time.monotonic()
        bench.vote(1)
        await until(lambda: bench.tallies() == {"a": 1})
        assert time.monotonic() - began < 2  # far less than BLOCK_SECONDS
    assert bench.left() == (0, 0)


async def test_votes_are_counted_and_each_malformed_entry_becomes_one_dead_letter_with_its_reason(bench: Bench) -> None:
    bench.vote(1)
    with redis.Redis.from_url(bench.redis_url) as client:
        client.xadd(STREAM, {"poll": "default", "choice": "a"})
        client.xadd(STREAM, {b"\xff\xfe": b"\0"})
    bench.vote(2, poll=b"nowhere")
    bench.vote(3, choice=b"z")
    bench.vote(4, choice=b"\0")
    bench.vote(5, choice=b"\xff")
    bench.vote(6, voter=b"x" * 1_000_000)
    bench.vote(7, b"b")
    async with working(bench.settings()) as (worker,):
        await until(lambda: bench.left() == (0, 0) and bool(bench.tallies()))
        assert value_of(worker._metrics.interruptions) == 0
    assert bench.tallies() == {"a": 1, "b": 1}
    assert [reason for (reason,) in bench.rows("SELECT reason FROM dead_letters ORDER BY entry_ms, entry_seq")] == [
        "missing field: voter",
        "missing field: poll, voter, choice",
        "unknown poll",
        "choice is not an option of the poll",
        "choice is not an option of the poll",
        "choice is not an option of the poll",
        "voter has 1000000 bytes, expected 16",
    ]


async def test_only_the_vote_that_the_database_rejects_becomes_a_dead_letter(bench: Bench) -> None:
    for number in range(6):
        bench.vote(number)
    with psycopg.connect(bench.database_url) as connection:
        connection.execute("ALTER TABLE votes ADD CHECK (voter <> decode(repeat('78', 16), 'hex'))")
    bench.vote(int.from_bytes(b"x" * 16))
    async with working(bench.settings()):
        await until(lambda: bench.left() == (0, 0) and bool(bench.tallies()))
    assert bench.tallies() == {"a": 6}
    assert bench.rows("SELECT reason FROM dead_letters") == [("database: CheckViolation",)]


async def test_a_poll_defined_while_the_worker_runs_is_known_with_its_first_vote(bench: Bench) -> None:
    async with working(bench.settings()) as (worker,):
        await until(lambda: worker.ready)
        with psycopg.connect(bench.database_url) as connection:
            connection.execute(
                "INSERT INTO polls (slug, question, options) VALUES ('lunch', '?', %s)",
                ['[{"key": "a", "label": "Soup"}, {"key": "b", "label": "Bread"}]'],
            )
        bench.vote(1, poll=b"lunch")
        await until(lambda: bench.tallies() == {"a": 1})
        async with redis_client(bench.redis_url, timeout=5) as client:
            assert set((await read_polls(client))[0]) == {"default", "lunch"}
    assert bench.rows("SELECT count(*) FROM dead_letters") == [(0,)]


async def test_a_poll_whose_row_becomes_invalid_stops_no_worker_and_loses_no_vote(bench: Bench) -> None:
    options = '[{"key": "a", "label": "Soup"}, {"key": "b", "label": "Bread"}]'
    with (
        psycopg.connect(bench.database_url, autocommit=True) as connection,
        redis.Redis.from_url(bench.redis_url) as client,
    ):
        connection.execute("INSERT INTO polls (slug, question, options) VALUES ('lunch', '?', %s)", [options])
        async with working(bench.settings()):
            bench.vote(1, poll=b"lunch")
            await until(lambda: bench.left() == (0, 0) and bool(bench.tallies()) and client.hexists(POLLS, "lunch"))
            connection.execute("ALTER TABLE polls DISABLE TRIGGER check_poll")
            connection.execute("""UPDATE polls SET options = '[{"key": "a"}]' WHERE slug = 'lunch'""")
            bench.vote(2, poll=b"lunch")
            await until(lambda: bench.left() == (0, 0))
        for number in (3, 4):
            bench.vote(number, poll=(b"lunch", b"default")[number % 2])
        async with working(bench.settings()) as (worker,):  # which knows the poll only as it was published
            await until(lambda: bench.left() == (0, 0))
            assert value_of(worker._metrics.interruptions) == 0
    assert bench.rows("SELECT poll, votes FROM tallies ORDER BY poll") == [("default", 1), ("lunch", 3)]
    assert bench.rows("SELECT count(*) FROM dead_letters") == [(0,)]


@pytest.mark.parametrize("workers", [2, 4])
async def test_several_workers_at_once_give_exact_tallies_under_revotes(bench: Bench, workers: int) -> None:
    expected: dict[int, bytes] = {}
    with redis.Redis.from_url(bench.redis_url) as client:
        for turn in range(6000):
            number, choice = turn * 7919 % 500, b"ab"[turn % 2 : turn % 2 + 1]
            client.xadd(STREAM, {"poll": "default", "voter": number.to_bytes(16), "choice": choice})
            expected[number] = choice
    settings = [bench.settings(f"w{number}", batch_size=50) for number in range(workers)]
    async with working(*settings) as running:
        await until(lambda: bench.left() == (0, 0) and bool(bench.tallies()))
    shares = [value_of(worker._metrics.entries) for worker in running]
    assert sum(shares) == 6000
    assert all(shares)
    held = {bytes(name): choice for name, choice in bench.rows("SELECT voter, choice FROM votes")}
    assert held == {number.to_bytes(16): choice.decode() for number, choice in expected.items()}
    assert bench.tallies() == {key: list(held.values()).count(key) for key in "ab"}


async def test_stopping_in_the_middle_of_a_backlog_leaves_nothing_pending(bench: Bench) -> None:
    for number in range(100):
        bench.vote(number)
    with psycopg.connect(bench.database_url) as other:
        other.execute("LOCK TABLE votes IN SHARE MODE")
        async with working(bench.settings(batch_size=10)):
            await until(lambda: bench.rows("SELECT FROM pg_locks WHERE mode = 'RowExclusiveLock' AND NOT granted"))
            asyncio.get_running_loop().call_soon(other.rollback)  # after `working` has set `stop`
    waiting, pending = bench.left()
    assert pending == 0
    assert waiting in {80, 90}  # a batch that had been read ahead is counted too
    assert bench.tallies() == {"a": 100 - waiting}


async def test_the_pending_entries_of_a_dead_worker_are_counted_by_another(bench: Bench) -> None:
    async with redis_client(bench.redis_url, timeout=5) as client:
        dead = stream.Consumer(client, "dead")
        await dead.ensure_group(EntryId(0, 0))
        for number in range(10):
            bench.vote(number)
        assert len(await dead.read_new(10, 0.1)) == 10
    async with working(bench.settings(reclaim_seconds=0.5)):
        await until(lambda: bench.left() == (0, 0))
    assert bench.tallies() == {"a": 10}


async def test_a_worker_survives_losing_both_stores_and_the_whole_stream(bench: Bench) -> None:
    async with working(bench.settings()) as (worker,):
        await until(lambda: worker.ready)
        bench.vote(1)
        await until(lambda: bench.tallies() == {"a": 1})
        bench.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'voting%' "
            "AND datname = current_database()"
        )
        bench.vote(2)
        await until(lambda: bench.tallies() == {"a": 2})
        with redis.Redis.from_url(bench.redis_url) as client:
            client.client_kill_filter(_type="normal", skipme=True)
            bench.vote(3)
            await until(lambda: bench.tallies() == {"a": 3})
            client.flushdb()
            await until(lambda: bool(client.exists(STREAM)) and bool(client.exists(POLLS)))
        bench.vote(3, b"b")
        await until(lambda: bench.tallies() == {"a": 2, "b": 1})


async def test_a_commit_whose_acknowledgement_was_lost_is_not_counted_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(*_: object) -> None:
        raise redis.ConnectionError("cut between COMMIT and XACK")

    async with working(bench.settings()) as (worker,):
        await until(lambda: worker.ready)
        with monkeypatch.context() as patch:
            patch.setattr(stream.Consumer, "acknowledge", lost)
            bench.vote(1)
            bench.vote(2, b"b")
            await until(lambda: bool(bench.tallies()) and value_of(worker._metrics.interruptions) > 2)
            waiting, pending = bench.left()
            assert waiting == 2
            assert pending >= 1
        await until(lambda: bench.left() == (0, 0))
    assert bench.tallies() == {"a": 1, "b": 1}


async def test_stopping_while_the_database_is_away_does_not_hang(bench: Bench, tmp_path: Path) -> None:
    settings = bench.settings().model_copy(update={"database_url": f"postgresql://nobody@/none?host={tmp_path}"})
    async with working(settings) as (worker,):
        await until(lambda: value_of(worker._metrics.interruptions) > 0)
        assert not worker.ready


@pytest.mark.parametrize(("ahead", "seq"), [(MAX_AHEAD_SECONDS + 60, 0), (3600, 2**63)])
async def test_an_entry_with_a_forged_id_becomes_a_dead_letter_and_votes_go_on(
    bench: Bench, ahead: int, seq: int
) -> None:
    bench.vote(1)
    with redis.Redis.from_url(bench.redis_url) as client:
        vote = {b"poll": b"default", b"voter": (1).to_bytes(VOTER_BYTES), b"choice": b"b"}
        client.xadd(STREAM, vote, id=f"{int(time.time() + ahead) * 1000}-{seq}")
    async with working(bench.settings()):
        await until(lambda: bench.left() == (0, 0) and bench.tallies() == {"a": 1})
        with redis.Redis.from_url(bench.redis_url) as client:
            await until(lambda: client.xinfo_stream(STREAM)["last-generated-id"] != b"0-0")
            await until(lambda: is_usable(EntryId.parse(client.xinfo_stream(STREAM)["last-generated-id"])))
        bench.vote(1, b"b")
        await until(lambda: bench.tallies() == {"b": 1})
    assert bench.rows("SELECT reason FROM dead_letters") == [("the id is more than a day ahead, or too large",)]


async def test_a_batch_that_takes_too_long_is_read_again_in_smaller_ones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voting.worker.counter.DATABASE_TIMEOUT", 1.0)
    monkeypatch.setattr("voting.worker.app.DATABASE_TIMEOUT", 1.0)
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_sleep(0.004); RETURN new; END'"
        )
        connection.execute("CREATE TRIGGER slow BEFORE INSERT ON votes FOR EACH ROW EXECUTE FUNCTION slow()")
    for number in range(300):
        bench.vote(number)
    async with working(bench.settings(batch_size=300)):
        await until(lambda: bench.left() == (0, 0))
    assert bench.tallies() == {"a": 300}
