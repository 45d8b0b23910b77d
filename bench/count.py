"""Measures of counting: one worker on a backlog of new voters, and of known ones."""

import os
import random
import signal
import time

from tests.e2e.stack import Stack

from bench.report import Outcome, Threshold, median
from bench.runner import CpuMeter, Runner, delete_votes, process_ids, voters


def fill(stack: Stack, votes: int, choice: str, seed: int, polls: int = 0) -> None:
    """Add a backlog to the stream, as vote would: for the default poll, or for the polls p0, p1, … in turn."""
    boxes = [f"p{number}" for number in range(polls)] or ["default"]
    names = random.Random(seed)
    with stack.broker() as client:
        for start in range(0, votes, 10_000):
            batch = client.pipeline(transaction=False)
            for vote in range(start, min(start + 10_000, votes)):
                batch.execute_command(
                    "XADD",
                    "votes",
                    "*",
                    "poll",
                    boxes[vote % len(boxes)],
                    "voter",
                    names.randbytes(16),
                    "choice",
                    choice,
                )
            batch.execute()


def drain(stack: Stack, votes: int, choice: str, seed: int, polls: int = 0) -> tuple[float, CpuMeter]:
    """Stop the worker until there is a backlog; return its rate from the first batch on, and the CPU time."""
    worker = stack.pid("worker-1")
    os.kill(worker, signal.SIGSTOP)
    try:
        fill(stack, votes, choice, seed, polls)
    finally:
        os.kill(worker, signal.SIGCONT)
    with stack.broker() as client, CpuMeter(**process_ids(stack)) as meter:
        left = votes
        while left == votes:
            left = client.xlen("votes")
        began, first = time.monotonic(), left
        while left := client.xlen("votes"):
            time.sleep(0.002)
    return first / (time.monotonic() - began), meter


def count(runner: Runner) -> Outcome:
    """New voters; limit: the same statement fed from memory."""
    return _against_memory(runner, "count", known=False, share=0.8)


def revotes(runner: Runner) -> Outcome:
    """Every voter votes again."""
    return _against_memory(runner, "revotes", known=True, share=0.7)


def _against_memory(runner: Runner, name: str, *, known: bool, share: float) -> Outcome:
    votes = runner.backlog
    ours, limit = [], []
    cpu: dict[str, list[float]] = {}
    with runner.stack() as stack:
        url = stack.state["database_url"]
        for number in range(runner.rounds):
            delete_votes(stack)
            if known:
                drain(stack, votes, "a", number)
            rate, meter = drain(stack, votes, "b", number)
            meter.add_round(cpu, votes)
            if voters(stack) != votes:
                raise RuntimeError(f"{votes} votes became {voters(stack)} rows")
            delete_votes(stack)
            if known:
                runner.run_program("-m", "bench.limit_count", url, str(votes), "a", str(number))
            with CpuMeter(postgres=stack.pid("postgres")) as meter:
                fed = runner.run_program("-m", "bench.limit_count", url, str(votes), "b", str(number))
            meter.add_round(cpu, votes, "limit: ")
            cpu.setdefault("limit: feeder", []).append(1000 * fed["cpu"] / votes)
            ours.append(rate)
            limit.append(fed["rate"])
            runner.log(f"round {number + 1}: {rate:,.0f} votes/s; limit {fed['rate']:,.0f}")
    thresholds = [Threshold("rate to that of the limit", median(ours) / median(limit), share)]
    if not known:
        thresholds.append(Threshold("votes a second", median(ours), 20_000))
    return Outcome(name, "votes/s", ours, limit, thresholds, cpu, {"backlog": votes})
