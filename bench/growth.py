"""Measures with ten million votes in the table, against a table that is nearly empty."""

import asyncio
import contextlib
import time

import psycopg
from tests.e2e.stack import Stack
from tests.waiting import eventually

from bench.count import drain
from bench.live import vote_delays, watching
from bench.report import Outcome, Threshold, median, percentile
from bench.runner import Runner
from voting.database.connection import connect
from voting.database.poll_state import poll_states

VIEWERS = 100


def growth(runner: Runner) -> Outcome:
    """Counting, freshness and a snapshot with a full table; limit: the same with 10,000 votes."""
    rows = {"full": int(runner.quick_or_full(300_000, 10_000_000)), "nearly empty": 10_000}
    rates: dict[str, list[float]] = {name: [] for name in rows}
    fresh: dict[str, list[float]] = {name: [] for name in rows}
    reads: dict[str, list[float]] = {name: [] for name in rows}
    cpu: dict[str, list[float]] = {}
    with contextlib.ExitStack() as opened:
        stacks = {name: opened.enter_context(runner.stack()) for name in rows}
        for name, stack in stacks.items():
            runner.log(f"writing {rows[name]:,} votes into a table")
            _preload(stack, rows[name])
        for number in range(runner.rounds):
            for name, stack in stacks.items():
                rate, meter = drain(stack, runner.backlog, "b", 1000 + number)
                meter.add_round(cpu, runner.backlog, f"{name}: ")
                rates[name].append(rate)
                with watching(stack.result_port, VIEWERS) as viewers:
                    waits, _ = vote_delays(runner, stack, viewers)
                fresh[name].append(1000 * percentile(waits, 0.5))
                reads[name].append(_snapshot_cost(stack))
            full, small = rates.values()
            runner.log(f"round {number + 1}: {full[-1]:,.0f} votes/s; nearly empty {small[-1]:,.0f}")
    (full, small), (late, soon), (slow, quick) = rates.values(), fresh.values(), reads.values()
    thresholds = [
        Threshold("rate of counting, to a nearly empty table's", median(full) / median(small), 0.8),
        Threshold("freshness (1 / p50), to a nearly empty table's", median(soon) / median(late), 0.8),
        Threshold("a snapshot's time, to a nearly empty table's", median(slow) / median(quick), 1.25, at_most=True),
    ]
    notes = {"rows": rows["full"], "backlog": runner.backlog, "p50 ms": fresh, "snapshot ms": reads}
    return Outcome("growth", "votes/s", full, small, thresholds, cpu, notes)


def _preload(stack: Stack, rows: int) -> None:
    """Fill the table; build the index afterwards, which is much faster and makes it as dense as possible."""
    with psycopg.connect(stack.state["database_url"]) as database:
        database.execute("SET LOCAL maintenance_work_mem = '1GB'")
        database.execute("TRUNCATE votes")  # in the same transaction as the insert, which then writes no WAL
        database.execute("ALTER TABLE votes DROP CONSTRAINT votes_pkey")
        database.execute(
            "INSERT INTO votes (poll, voter, choice, entry_ms, entry_seq) "
            "SELECT 'default', int8send(hashint8extended(n, 1)) || int8send(hashint8extended(n, 2)), 'a', n, 0 "
            "FROM generate_series(1, %s) AS n",
            [rows],
        )
        database.execute("ALTER TABLE votes ADD PRIMARY KEY (poll, voter)")
        database.execute(
            "INSERT INTO tallies (poll, choice, votes) VALUES ('default', 'a', %s) "
            "ON CONFLICT (poll, choice) DO UPDATE SET votes = tallies.votes + excluded.votes",
            [rows],
        )
        database.commit()
        database.autocommit = True
        database.execute("VACUUM ANALYZE votes")
        database.execute("CHECKPOINT")
    eventually(lambda: stack.results()["total"] == rows, within=30)


def _snapshot_cost(stack: Stack) -> float:
    """Return the milliseconds that the query of result takes, best of 300."""

    async def measure() -> float:
        best = float("inf")
        async with connect(stack.state["database_url"], name="bench", timeout=10) as database:
            for _ in range(300):
                began = time.perf_counter()
                await poll_states(database, ["default"])
                best = min(best, time.perf_counter() - began)
        return 1000 * best

    return asyncio.run(measure())
