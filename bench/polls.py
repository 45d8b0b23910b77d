"""Measures with ten thousand polls in the database, a hundred of them moving, against one poll."""

import contextlib
import time

import psycopg
from tests.e2e.stack import Stack
from tests.waiting import eventually

from bench import machine
from bench.count import drain
from bench.live import vote_delays, watching
from bench.report import Outcome, Threshold, generator_threshold, median, percentile
from bench.runner import CpuMeter, Runner, delete_votes, process_ids

MOVING, VIEWERS = 100, 100
SHARE = 0.9
MAX_CPU = 1.1  # of one poll's, for a vote
MAX_MORE_MIB = 30
MAX_MORE_CPU = 3  # % of a core


def polls(runner: Runner) -> Outcome:
    """10,000 polls, 100 of them moving: accept, count, freshness, idle memory; limit: one poll."""
    number, seconds = int(runner.quick_or_full(2000, 10_000)), runner.quick_or_full(3, 8)
    moving = {"one": 1, "many": MOVING}
    rates: dict[str, list[float]] = {name: [] for name in moving}
    counts: dict[str, list[float]] = {name: [] for name in moving}
    fresh: dict[str, list[float]] = {name: [] for name in moving}
    late: dict[str, list[float]] = {name: [] for name in moving}
    cpu: dict[str, list[float]] = {}
    busy: list[float] = []
    with contextlib.ExitStack() as opened:
        stacks = {name: opened.enter_context(runner.stack(workers=1)) for name in moving}
        for name, stack in stacks.items():
            _make_polls(stack, number if name == "many" else 1)
            stack.stop()
            stack.start()
        idle = {name: _idle(runner, stack) for name, stack in stacks.items()}
        runner.log(f"idle: {idle}")
        for round_ in range(runner.rounds):
            for name, stack in stacks.items():
                with CpuMeter(**process_ids(stack)) as meter:
                    load = runner.wrk(stack.vote_url, seconds, paths=[f"/p/p{each}" for each in range(moving[name])])
                if load.failed:
                    raise RuntimeError(f"{load.failed} requests failed: this is no measure of accepting")
                eventually(stack.drained, within=60)
                meter.add_round(cpu, load.requests, f"{name}, accept: ")
                rates[name].append(load.rate)
                busy.append(load.busy)
            for name, stack in stacks.items():
                delete_votes(stack)
                rate, meter = drain(stack, runner.backlog // 2, "b", round_, moving[name])
                meter.add_round(cpu, runner.backlog // 2, f"{name}, count: ")
                counts[name].append(rate)
            for name, stack in stacks.items():
                with watching(stack.result_port, VIEWERS, "/p/p0/ws") as viewers:
                    waits, _ = vote_delays(runner, stack, viewers, moving[name])
                fresh[name].append(1000 * percentile(waits, 0.5))
                late[name].append(1000 * percentile(waits, 0.99))
            runner.log(
                f"round {round_ + 1}, of one poll's: accept {_ratio(rates, -1):.2f}, count {_ratio(counts, -1):.2f}, "
                f"p50 {fresh['many'][-1]:.1f} ms against {fresh['one'][-1]:.1f}"
            )
    thresholds = [
        Threshold("accepting, to one poll's", _ratio(rates), SHARE),
        Threshold("counting, to one poll's", _ratio(counts), SHARE),
        Threshold(
            "CPU of vote for an accepted vote, to one poll's", _cpu_ratio(cpu, "accept", "vote"), MAX_CPU, at_most=True
        ),
        Threshold(
            "CPU of worker and database for a counted vote, to one poll's",
            _cpu_ratio(cpu, "count", "worker-1", "postgres"),
            MAX_CPU,
            at_most=True,
        ),
        Threshold("freshness (1 / p50), to one poll's", 1 / _ratio(fresh), SHARE),
        Threshold("freshness (1 / p99), to one poll's", 1 / _ratio(late), SHARE),
        Threshold(
            "idle memory more than with one poll, MiB", idle["many"][0] - idle["one"][0], MAX_MORE_MIB, at_most=True
        ),
        Threshold("idle CPU more, % of a core", idle["many"][1] - idle["one"][1], MAX_MORE_CPU, at_most=True),
        generator_threshold(busy),
    ]
    notes = {
        "polls": number,
        "moving": MOVING,
        "count, votes/s": counts,
        "p50 ms": fresh,
        "p99 ms": late,
        "idle: MiB, % of a core": idle,
    }
    return Outcome("polls", "votes/s accepted", rates["many"], rates["one"], thresholds, cpu, notes)


def _make_polls(stack: Stack, number: int) -> None:
    """Make the open polls p0, p1 and so on, and wait until they are published."""
    with psycopg.connect(stack.state["database_url"], autocommit=True) as database:
        database.execute(
            "INSERT INTO polls (slug, question, options, created) "
            "SELECT 'p' || n, 'Question ' || n || '?', options, created "
            "FROM generate_series(0, %s) AS n, polls WHERE slug = 'default'",
            [number - 1],
        )
        database.execute("VACUUM ANALYZE polls")
    with stack.broker() as client:
        eventually(lambda: client.hlen("polls") == number + 1, within=120)


def _idle(runner: Runner, stack: Stack) -> tuple[float, float]:
    """Return the memory of all processes, and the share of a core that they take when nothing happens."""
    eventually(lambda: stack.results()["total"] == 0)
    time.sleep(5)  # the definitions are compared at the start
    busy, began = machine.cpu_seconds(stack.process.pid), time.monotonic()
    time.sleep(runner.quick_or_full(5, 60))  # the idle time that is measured, with one comparison of all definitions
    share = 100 * (machine.cpu_seconds(stack.process.pid) - busy) / (time.monotonic() - began)
    return round(machine.memory_mib(stack.process.pid), 1), round(share, 2)


def _ratio(figures: dict[str, list[float]], round_: int | None = None) -> float:
    """Return that of many polls to that of one: of the medians, or of one round."""
    one, many = figures["one"], figures["many"]
    return many[round_] / one[round_] if round_ is not None else median(many) / median(one)


def _cpu_ratio(cpu: dict[str, list[float]], measure: str, *parts: str) -> float:
    """Return the CPU time of some parts for a vote, with many polls to one."""
    one, many = (sum(median(cpu[f"{name}, {measure}: {part}"]) for part in parts) for name in ("one", "many"))
    return many / one
