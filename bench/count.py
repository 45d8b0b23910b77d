"""Counting: one worker on a backlog, new voters and known ones, and with ten million votes in the table."""

import asyncio
import os
import random
import signal
import time

import psycopg
from tests.e2e.stack import Stack
from tests.waiting import eventually

from bench.report import Mark, Outcome, median
from bench.setting import Meter, Setting, empty, parts, voters
from voting.core import store


def fill(stack: Stack, votes: int, choice: str, seed: int) -> None:
    """Put a backlog on the stream, as vote would."""
    names = random.Random(seed)
    with stack.broker() as client:
        for start in range(0, votes, 10_000):
            batch = client.pipeline(transaction=False)
            for _ in range(min(10_000, votes - start)):
                batch.execute_command(
                    "XADD", "votes", "*", "poll", "default", "voter", names.randbytes(16), "choice", choice
                )
            batch.execute()


def drain(stack: Stack, votes: int, choice: str, seed: int) -> tuple[float, Meter]:
    """Let the worker sleep while a backlog grows; return its rate from the first batch on, and what it took."""
    worker = stack.pid("worker-1")
    os.kill(worker, signal.SIGSTOP)
    try:
        fill(stack, votes, choice, seed)
    finally:
        os.kill(worker, signal.SIGCONT)
    with stack.broker() as client, Meter(**parts(stack)) as meter:
        left = votes
        while left == votes:
            left = client.xlen("votes")
        began, first = time.monotonic(), left
        while left := client.xlen("votes"):
            time.sleep(0.002)
    return first / (time.monotonic() - began), meter


def count(setting: Setting) -> Outcome:
    """New voters; limit: the same statement fed from memory."""
    return _against_memory(setting, "count", known=False, share=0.8)


def revotes(setting: Setting) -> Outcome:
    """Every voter votes again."""
    return _against_memory(setting, "revotes", known=True, share=0.7)


def _against_memory(setting: Setting, name: str, *, known: bool, share: float) -> Outcome:
    votes = int(setting.short(50_000, 500_000))
    ours, limit, notes = [], [], {}
    with setting.stack() as stack:
        url = stack.state["database_url"]
        for number in range(setting.rounds):
            empty(stack)
            if known:
                drain(stack, votes, "a", number)
            rate, meter = drain(stack, votes, "b", number)
            if voters(stack) != votes:
                raise RuntimeError(f"{votes} votes became {voters(stack)} rows")
            empty(stack)
            if known:
                setting.helper("-m", "bench.feed", url, str(votes), "a", str(number))
            fed = setting.helper("-m", "bench.feed", url, str(votes), "b", str(number))
            ours.append(rate)
            limit.append(fed["rate"])
            notes = {
                "cpu seconds per 1000 votes": meter.per_thousand(votes),
                "limit: cpu seconds per 1000 votes, without postgres": round(fed["cpu"] / votes * 1000, 4),
            }
            setting.say(f"round {number + 1}: {rate:,.0f} votes/s; limit {fed['rate']:,.0f}")
    marks = [
        Mark("rate to that of the limit", median(ours) / median(limit), share),
        Mark("votes a second", median(ours), 20_000),
    ]
    return Outcome(name, "votes/s", ours, limit, marks, notes | {"backlog": votes})


def growth(setting: Setting) -> Outcome:
    """Counting with a full table; limit: the same with a nearly empty one. And what a snapshot costs in each."""
    votes, rows = int(setting.short(20_000, 100_000)), int(setting.short(300_000, 10_000_000))
    ours, limit = [], []
    costs: dict[str, list[float]] = {"full": [], "empty": []}
    with setting.stack() as full, setting.stack() as small:
        for stack, number in ((full, rows), (small, 10_000)):
            setting.say(f"writing {number:,} votes into a table")
            _preload(stack, number)
        for number in range(setting.rounds):
            rate, _ = drain(full, votes, "b", 1000 + number)
            rate_small, _ = drain(small, votes, "b", 1000 + number)
            ours.append(rate)
            limit.append(rate_small)
            for stack, name in ((full, "full"), (small, "empty")):
                costs[name].append(_snapshot_cost(stack))
            setting.say(f"round {number + 1}: {rate:,.0f} votes/s; nearly empty {rate_small:,.0f}")
    marks = [
        Mark("rate to that with a nearly empty table", median(ours) / median(limit), 0.8),
        Mark(
            "a snapshot's time to that with a nearly empty table",
            median(costs["full"]) / median(costs["empty"]),
            1.25,
            at_most=True,
        ),
    ]
    return Outcome("growth", "votes/s", ours, limit, marks, {"rows": rows, "snapshot ms": costs})


def _preload(stack: Stack, rows: int) -> None:
    with psycopg.connect(stack.state["database_url"], autocommit=True) as database:
        database.execute(
            "INSERT INTO votes (poll, voter, choice, entry_ms, entry_seq) "
            "SELECT 'default', uuid_send(gen_random_uuid()), 'a', n, 0 FROM generate_series(1, %s) AS n",
            [rows],
        )
        database.execute(
            "INSERT INTO tallies (poll, choice, votes) VALUES ('default', 'a', %s) "
            "ON CONFLICT (poll, choice) DO UPDATE SET votes = tallies.votes + excluded.votes",
            [rows],
        )
        database.execute("VACUUM ANALYZE votes")
    eventually(lambda: stack.results()["total"] == rows, within=30)


def _snapshot_cost(stack: Stack) -> float:
    """Milliseconds for what result reads, best of many."""

    async def measure() -> float:
        best = float("inf")
        async with store.connect(stack.state["database_url"], name="bench", patience=10) as database:
            for _ in range(300):
                began = time.perf_counter()
                await store.standings(database)
                best = min(best, time.perf_counter() - began)
        return 1000 * best

    return asyncio.run(measure())
