"""Through outages of the database, workers and result services keep trying, and no vote becomes a dead letter."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from tests.integration.test_counter import Bench, working
from tests.measured import value_of
from tests.waiting import until
from voting.database import roles
from voting.database.connection import connect
from voting.polls.vote import MAX_AHEAD_SECONDS, max_entry_ms
from voting.result.hub import Hub
from voting.result.metrics import ResultMetrics
from voting.result.watcher import Watcher
from voting.service import metrics
from voting.service.lifecycle import pause
from voting.settings.services import ResultSettings
from voting.worker.app import Worker

pytestmark = pytest.mark.anyio

END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


@dataclass
class Installation:
    """A worker and a result service, each with its own role in the database, and statements of the owner."""

    bench: Bench
    worker: Worker
    hub: Hub
    result: ResultMetrics

    def run(self, *statements: str) -> None:
        """Run statements as the owner, each in a transaction of its own."""
        with psycopg.connect(self.bench.database_url, autocommit=True) as owner:
            owner.execute("SET default_transaction_read_only = off")
            for statement in statements:
                owner.execute(statement.format(database=owner.info.dbname, now=int(time.time() * 1000)).encode())

    def interruptions(self) -> dict[str, float]:
        """Return how often each service lost the database."""
        return {
            "worker": value_of(self.worker._metrics.interruptions),
            "result": value_of(self.result.interruptions),
        }

    def shows(self, votes: dict[str, int]) -> bool:
        """Return whether the result service shows these numbers, and they are not stale."""
        channel = self.hub.channels["default"]
        if channel is None or (snapshot := channel.feeds["public"].snapshot)["stale_since"]:
            return False
        return {option["key"]: option["votes"] for option in snapshot["options"]} == votes


def define_roles(url: str) -> None:
    async def define() -> None:
        async with connect(url, name="roles", timeout=10) as owner:
            await roles.define_role(owner, "worker", "p" * 20)
            await roles.define_role(owner, "result", "p" * 20)

    asyncio.run(define())


@pytest.fixture
async def installation(redis_url: str, database_url: str) -> AsyncIterator[Installation]:
    await asyncio.to_thread(define_roles, database_url)
    bench = Bench(redis_url, database_url)
    worker_url, result_url = (database_url.replace("//voting@", f"//voting_{each}@") for each in ("worker", "result"))
    measures = ResultMetrics(metrics.registry("result"))
    hub, stop = Hub(measures), asyncio.Event()
    watcher = Watcher(ResultSettings(database_url=result_url), hub, measures)
    watching = asyncio.create_task(watcher.run(stop))
    try:
        async with working(bench.settings(database_url=worker_url)) as (worker,):
            await until(lambda: worker.ready and hub.loaded)
            yield Installation(bench, worker, hub, measures)
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await watching


@asynccontextmanager
async def voters(bench: Bench) -> AsyncIterator[list[int]]:
    """Add votes of different voters until the end of the block; yield the list of their numbers."""
    voted: list[int] = []
    stop = asyncio.Event()

    async def vote() -> None:
        while not stop.is_set():
            await asyncio.to_thread(bench.vote, len(voted), b"b")
            voted.append(len(voted))
            await pause(stop, 0.01)

    voting = asyncio.create_task(vote())
    try:
        yield voted
    finally:
        stop.set()
        await voting


BOTH = ("worker", "result")
OUTAGES = {
    "read-only": (
        BOTH[:1],
        ("ALTER DATABASE {database} SET default_transaction_read_only = on", END_SESSIONS),
        ("ALTER DATABASE {database} RESET default_transaction_read_only", END_SESSIONS),
    ),
    "rights revoked": (
        BOTH,
        ("REVOKE INSERT ON votes FROM voting_worker", "REVOKE SELECT ON tallies FROM voting_result"),
        ("GRANT INSERT ON votes TO voting_worker", "GRANT SELECT ON tallies TO voting_result"),
    ),
    "no login": (
        BOTH,
        ("ALTER ROLE voting_worker NOLOGIN", "ALTER ROLE voting_result NOLOGIN", END_SESSIONS),
        ("ALTER ROLE voting_worker LOGIN", "ALTER ROLE voting_result LOGIN"),
    ),
    "too many connections": (
        BOTH,
        ("ALTER ROLE voting_worker CONNECTION LIMIT 0", "ALTER ROLE voting_result CONNECTION LIMIT 0", END_SESSIONS),
        ("ALTER ROLE voting_worker CONNECTION LIMIT 40", "ALTER ROLE voting_result CONNECTION LIMIT 10"),
    ),
    "table replaced": (BOTH, ("ALTER TABLE tallies RENAME TO gone",), ("ALTER TABLE gone RENAME TO tallies",)),
    "column without a default": (
        BOTH[:1],
        ("ALTER TABLE votes ADD extra int NOT NULL DEFAULT 0", "ALTER TABLE votes ALTER extra DROP DEFAULT"),
        ("ALTER TABLE votes DROP extra",),
    ),
    "index that allows one vote": (
        BOTH[:1],
        ("CREATE UNIQUE INDEX lone ON votes ((1)) WHERE choice = 'b' AND entry_ms > {now}",),
        ("DROP INDEX lone",),
    ),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_outage_under_load_ends_nothing_and_loses_nothing(installation: Installation, outage: str) -> None:
    hit, begin, end = OUTAGES[outage]
    async with voters(installation.bench) as voted:
        await until(lambda: len(voted) > 5)
        before = installation.interruptions()
        await asyncio.to_thread(installation.run, *begin)
        await until(lambda: all(installation.interruptions()[each] >= before[each] + 3 for each in hit), 20)
        await until(lambda: not installation.worker.ready)
        waiting = len(voted)
        await asyncio.to_thread(installation.run, *end)
        await until(lambda: installation.worker.ready and len(voted) > waiting + 5, 20)
    await until(lambda: installation.bench.left() == (0, 0))
    await until(lambda: installation.shows({"a": 0, "b": len(voted)}))
    assert installation.bench.rows("SELECT count(*) FROM votes") == [(len(voted),)]
    assert installation.bench.rows("SELECT reason FROM dead_letters") == []


async def test_a_prepared_statement_is_prepared_again_after_a_column_has_changed(installation: Installation) -> None:
    await until(lambda: installation.shows({"a": 0, "b": 0}))
    before = installation.interruptions()["result"]
    await asyncio.to_thread(installation.run, "ALTER TABLE workers ALTER lag TYPE int, ALTER pending TYPE int")
    await until(lambda: installation.interruptions()["result"] > before)
    installation.bench.vote(1)
    await until(lambda: installation.shows({"a": 1, "b": 0}))


async def test_no_vote_becomes_a_dead_letter_while_the_workers_clock_is_two_days_behind(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def behind() -> int:
        return max_entry_ms() - 2 * MAX_AHEAD_SECONDS * 1000

    with monkeypatch.context() as patch:
        for module in ("worker.batch", "broker.stream"):
            patch.setattr(f"voting.{module}.max_entry_ms", behind)
        installation.bench.vote(1)
        await until(lambda: installation.interruptions()["worker"] >= 2)
        assert installation.bench.left()[0] == 1
    await until(lambda: installation.shows({"a": 1, "b": 0}))
    assert installation.bench.rows("SELECT reason FROM dead_letters") == []


async def test_numbers_are_stale_at_once_however_long_the_other_connection_takes_to_end(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, stale, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def fail(*_: object) -> None:
        await asyncio.sleep(0.01)
        raise psycopg.OperationalError("the server is silent")

    async def end_late(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await ended.wait()  # as psycopg waits for a silent server to cancel a statement

    measures = ResultMetrics(metrics.registry("result"))
    hub = Hub(measures)
    monkeypatch.setattr(hub, "mark_stale", stale.set)
    watcher = Watcher(ResultSettings(database_url=database_url), hub, measures)
    for one, other in (("_read", "_listen"), ("_listen", "_read")):
        monkeypatch.setattr(watcher, one, fail)
        monkeypatch.setattr(watcher, other, end_late)
        for each in (ended, stale, stop):
            each.clear()
        watching = asyncio.create_task(watcher.run(stop))
        async with asyncio.timeout(10):
            await stale.wait()
            stop.set()
            ended.set()
            await watching
