"""Counting: one worker on a backlog of new voters, and of known ones."""

import os
import random
import signal
import time

from tests.e2e.stack import Stack

from bench.report import Mark, Outcome, median
from bench.setting import Meter, Setting, empty, parts, voters


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
    votes = setting.backlog
    ours, limit = [], []
    cpu: dict[str, list[float]] = {}
    with setting.stack() as stack:
        url = stack.state["database_url"]
        for number in range(setting.rounds):
            empty(stack)
            if known:
                drain(stack, votes, "a", number)
            rate, meter = drain(stack, votes, "b", number)
            meter.note(cpu, votes)
            if voters(stack) != votes:
                raise RuntimeError(f"{votes} votes became {voters(stack)} rows")
            empty(stack)
            if known:
                setting.helper("-m", "bench.feed", url, str(votes), "a", str(number))
            with Meter(postgres=stack.pid("postgres")) as meter:
                fed = setting.helper("-m", "bench.feed", url, str(votes), "b", str(number))
            meter.note(cpu, votes, "limit: ")
            cpu.setdefault("limit: feeder", []).append(1000 * fed["cpu"] / votes)
            ours.append(rate)
            limit.append(fed["rate"])
            setting.say(f"round {number + 1}: {rate:,.0f} votes/s; limit {fed['rate']:,.0f}")
    marks = [Mark("rate to that of the limit", median(ours) / median(limit), share)]
    if not known:
        marks.append(Mark("votes a second", median(ours), 20_000))
    return Outcome(name, "votes/s", ours, limit, marks, cpu, {"backlog": votes})
