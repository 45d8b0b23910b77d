"""Accepting votes: one process, all cores, and the whole way at four fifths of the maximum."""

import os
import threading
import time

import httpx
from tests.e2e.stack import Stack
from tests.waiting import eventually

from bench.report import Mark, Outcome, median
from bench.setting import Load, Meter, Setting, parts, voters


def accept(setting: Setting) -> Outcome:
    """Durable `POST /`, 64 connections, one process; limit: the same server and bytes, no cookie, no Redis."""
    seconds = setting.short(3, 8)
    ours, limit, cpu, cpu_limit, notes = [], [], [], [], {}
    with setting.stack() as stack, setting.bare(stack) as (url, pid):
        for number in range(setting.rounds):
            with Meter(**parts(stack)) as meter:
                load = _clean(setting.wrk(stack.vote_url, seconds))
            eventually(stack.drained, within=60)
            with Meter(bare=pid) as bare_meter:
                bare = _clean(setting.wrk(url, seconds))
            ours.append(load.rate)
            limit.append(bare.rate)
            cpu.append(meter.cpu["vote"] / load.requests)
            cpu_limit.append(bare_meter.cpu["bare"] / bare.requests)
            notes = {"cpu seconds per 1000 votes": meter.per_thousand(load.requests), "p99 ms": load.p99}
            setting.say(f"round {number + 1}: {load.rate:,.0f} votes/s; limit {bare.rate:,.0f}")
    marks = [
        Mark("rate to that of the limit", median(ours) / median(limit), 0.5),
        Mark("CPU of vote to that of the limit, per vote", median(cpu) / median(cpu_limit), 2, at_most=True),
    ]
    notes["limit: cpu seconds per 1000 votes"] = round(1000 * median(cpu_limit), 4)
    return Outcome("accept", "votes/s", ours, limit, marks, notes)


def cores(setting: Setting) -> Outcome:
    """The same in as many processes as there are cores, to one process; limit: the bare server's multiple."""
    seconds, number = setting.short(3, 6), os.cpu_count() or 1
    ours, limit = [], []
    with (
        setting.stack() as one,
        setting.stack(WEB_CONCURRENCY=str(number)) as many,
        setting.bare(one) as (bare_one, _),
        setting.bare(one, number) as (bare_many, _),
    ):
        for round_ in range(setting.rounds):
            rates = []
            for stack, url in ((one, one.vote_url), (many, many.vote_url), (None, bare_one), (None, bare_many)):
                rates.append(_clean(setting.wrk(url, seconds)).rate)
                if stack:
                    eventually(stack.drained, within=60)
            ours.append(rates[1] / rates[0])
            limit.append(rates[3] / rates[2])
            setting.say(f"round {round_ + 1}: {ours[-1]:.2f} times one process; limit {limit[-1]:.2f}")
    marks = [Mark("scaling to that of the limit", median(ours) / median(limit), 0.9)]
    notes = {"processes": number, "note": "generator, broker, worker and database share these cores"}
    return Outcome("accept, all cores", "times one process", ours, limit, marks, notes)


def whole(setting: Setting) -> Outcome:
    """Four fifths of what is accepted at most, for a minute; how long the oldest vote waits meanwhile."""
    seconds = setting.short(8, 60)
    with setting.stack(workers=2) as stack:
        most = _clean(setting.wrk(stack.vote_url, setting.short(3, 8), connections=256)).rate
        eventually(stack.drained, within=60)
        target, connections = 0.8 * most, 256
        trial = setting.wrk(stack.vote_url, 3, connections, delay=max(1, int(1000 * connections / target)))
        eventually(stack.drained, within=60)
        delay = max(1, round(1000 * connections / target - trial.p50))
        before, ages = voters(stack), Ages(stack)
        ages.start()
        with Meter(**parts(stack)) as meter:
            load = _clean(setting.wrk(stack.vote_url, seconds, connections, delay))
        ended = time.monotonic()
        eventually(stack.drained, within=60)
        drained = time.monotonic() - ended
        ages.stop()
        lost = load.requests - (voters(stack) - before)
        eventually(lambda: stack.results()["total"] == voters(stack))
    marks = [
        Mark("longest wait of a vote, seconds", max(ages.seen), 1, at_most=True),
        Mark("drained after the end, seconds", drained, 1, at_most=True),
        Mark("lost", max(0, lost), 0, at_most=True),  # wrk does not count answers that came after its end
    ]
    notes = {
        "accepted at most": round(most),
        "cpu seconds per 1000 votes": meter.per_thousand(load.requests),
        "seconds": seconds,
        "share of the maximum": round(load.rate / most, 2),
    }
    return Outcome("whole way", "votes/s", [load.rate], marks=marks, notes=notes)


class Screen(threading.Thread):
    """Looks at the result until it shows a total; `seen` is when that was, by the monotonic clock."""

    def __init__(self, stack: Stack, total: int) -> None:
        super().__init__(daemon=True)
        self._stack, self._total = stack, total
        self.seen = 0.0

    def run(self) -> None:
        """Until it does, or a minute has passed."""
        with httpx.Client() as client:
            eventually(
                lambda: client.get(f"{self._stack.result_url}/api/results").json()["total"] >= self._total, within=60
            )
        self.seen = time.monotonic()


class Ages(threading.Thread):
    """Looks ten times a second how old the oldest waiting vote is."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._stopped = threading.Event()
        self.seen: list[float] = [0.0]

    def run(self) -> None:
        """Until stopped."""
        with self._stack.broker() as client:
            while not self._stopped.wait(0.1):
                if oldest := client.xrange("votes", count=1):
                    seconds, microseconds = client.time()
                    born = int(oldest[0][0].split(b"-")[0]) / 1000
                    self.seen.append(seconds + microseconds / 1e6 - born)

    def stop(self) -> None:
        """Enough."""
        self._stopped.set()
        self.join()


def _clean(load: Load) -> Load:
    if load.failed:
        raise RuntimeError(f"{load.failed} requests failed: this is no measure of accepting")
    return load


def burst(setting: Setting) -> Outcome:
    """Voters with cookies of their own, each a connection, a GET and a POST, all within two seconds."""
    number = int(setting.short(2000, 10_000))
    slowest, shown, failed = [], [], 0
    with setting.stack(workers=2) as stack:
        for round_ in range(setting.rounds):
            total = stack.results()["total"] + number
            screen = Screen(stack, total)
            screen.start()
            crowd = setting.helper("-m", "bench.crowd", str(stack.vote_port), str(number), "2")
            screen.join()
            failed += crowd["failed"]
            slowest.append(crowd["p99"])
            shown.append(screen.seen - crowd["began"])
            setting.say(f"round {round_ + 1}: p99 {slowest[-1]:.2f} s, all on screen after {shown[-1]:.2f} s")
    marks = [
        Mark("failed", failed, 0, at_most=True),
        Mark("p99 from arrival to answer, seconds", median(slowest), 2, at_most=True),
        Mark("all on screen, seconds", median(shown), 3, at_most=True),
    ]
    return Outcome("burst", "s (p99)", slowest, marks=marks, notes={"voters": number, "on screen after": shown})
