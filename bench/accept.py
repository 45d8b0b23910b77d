"""Accepting votes: one process, all cores, and the whole way at four fifths of the maximum."""

import contextlib
import os
import threading
import time

import httpx
from tests.e2e.stack import Stack
from tests.waiting import eventually

from bench.report import Mark, Outcome, idle_enough, median
from bench.setting import Load, Meter, Setting, find, parts, voters


def accept(setting: Setting) -> Outcome:
    """Durable `POST /`, 64 connections, one process; limit: the same server and bytes, no cookie, no Redis."""
    seconds = setting.short(3, 8)
    ours, limit, loads = [], [], []
    cpu: dict[str, list[float]] = {}
    with setting.stack() as stack, setting.bare(stack) as (url, pid):
        for number in range(setting.rounds):
            with Meter(**parts(stack)) as meter:
                load = _clean(setting.wrk(stack.vote_url, seconds))
            eventually(stack.drained, within=60)
            with Meter(server=pid) as bare_meter:
                bare = _clean(setting.wrk(url, seconds))
            ours.append(load.rate)
            limit.append(bare.rate)
            meter.note(cpu, load.requests)
            bare_meter.note(cpu, bare.requests, "limit: ")
            loads += [load, bare]
            setting.say(f"round {number + 1}: {load.rate:,.0f} votes/s; limit {bare.rate:,.0f}")
    marks = [
        Mark("rate to that of the limit", median(ours) / median(limit), 0.5),
        Mark(
            "CPU of vote to that of the limit, per vote",
            median(cpu["vote"]) / median(cpu["limit: server"]),
            2,
            at_most=True,
        ),
        idle_enough([load.busy for load in loads]),
    ]
    notes = {"p99 ms": [load.p99 for load in loads[::2]], "limit: p99 ms": [load.p99 for load in loads[1::2]]}
    return Outcome("accept", "votes/s", ours, limit, marks, cpu, notes)


def cores(setting: Setting) -> Outcome:
    """The same in as many processes as there are cores, to one process; limit: the bare server's multiple."""
    seconds, number = setting.short(3, 6), os.cpu_count() or 1
    ours, limit, busy = [], [], []
    cpu: dict[str, list[float]] = {}
    with (
        setting.stack() as one,
        setting.stack(WEB_CONCURRENCY=str(number)) as many,
        setting.bare(one) as (bare_one, _),
        setting.bare(one, number) as (bare_many, _),
    ):
        for round_ in range(setting.rounds):
            rates = []
            for stack, name, times in ((one, "one process: ", 1), (many, f"{number} processes: ", number)):
                with Meter(**parts(stack)) as meter:
                    load = _clean(setting.wrk(stack.vote_url, seconds, 64 * times))
                meter.note(cpu, load.requests, name)
                rates.append(load.rate)
                busy.append(load.busy)
                eventually(stack.drained, within=60)
            for url, times in ((bare_one, 1), (bare_many, number)):
                load = _clean(setting.wrk(url, seconds, 64 * times))
                rates.append(load.rate)
                busy.append(load.busy)
            ours.append(rates[1] / rates[0])
            limit.append(rates[3] / rates[2])
            setting.say(f"round {round_ + 1}: {ours[-1]:.2f} times one process; limit {limit[-1]:.2f}")
    each = median(cpu["one process: vote"]) / median(cpu[f"{number} processes: vote"])
    marks = [
        Mark("votes for a CPU second of vote, to one process", each, 0.9),
        Mark("rate's multiple to that of the limit", median(ours) / median(limit), 0.9),
        idle_enough(busy),
    ]
    notes = {"processes": number, "note": "generator, broker, worker and database share these cores, and so run out"}
    return Outcome("accept, all cores", "times one process", ours, limit, marks, cpu, notes)


def whole(setting: Setting) -> Outcome:
    """Four fifths of what is accepted at most, for a minute; how long the oldest vote waits meanwhile."""
    seconds, connections = setting.short(8, 60), 256
    rates, ages, drained, lost, shares, busy = [], [], [], [], [], []
    cpu: dict[str, list[float]] = {}
    with setting.stack(workers=2) as stack:
        for round_ in range(setting.rounds):
            most = _clean(setting.wrk(stack.vote_url, setting.short(3, 8), connections)).rate
            eventually(stack.drained, within=60)
            delay = pace = 1000 * connections / (0.8 * most)  # milliseconds from one vote to the next on a connection
            for _ in range(3):  # less what the answers themselves take, which depends on the load
                trial = setting.wrk(stack.vote_url, 3, connections, delay)
                delay = max(1, delay + pace - 1000 * connections / trial.rate)
            eventually(stack.drained, within=60)
            rows, yes = voters(stack), accepted(stack)
            watch = Ages(stack)
            watch.start()
            with Meter(**parts(stack)) as meter:
                load = _clean(setting.wrk(stack.vote_url, seconds, connections, delay))
            ended = time.monotonic()
            eventually(stack.drained, within=60)
            drained.append(time.monotonic() - ended)
            watch.stop()
            eventually(lambda: stack.results()["total"] == voters(stack))
            meter.note(cpu, load.requests)
            lost.append((accepted(stack) - yes) - (voters(stack) - rows))
            rates.append(load.rate)
            shares.append(load.rate / most)
            ages.append(max(watch.seen))
            busy.append(load.busy)
            setting.say(f"round {round_ + 1}: {load.rate:,.0f} votes/s, oldest waited {1000 * ages[-1]:.0f} ms")
    marks = [
        Mark("load to the maximum", median(shares), 0.75),
        Mark("longest wait of a vote, seconds", max(ages), 1, at_most=True),
        Mark("drained after the end, seconds", max(drained), 1, at_most=True),
        Mark("accepted and not counted, or counted and not accepted", max(map(abs, lost)), 0, at_most=True),
        idle_enough(busy),
    ]
    notes = {"seconds": seconds, "share of the maximum": [round(share, 2) for share in shares]}
    return Outcome("whole way", "votes/s", rates, marks=marks, cpu=cpu, notes=notes)


def accepted(stack: Stack) -> int:
    """How many votes the vote service has said yes to, by its own metrics; for one process."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=stack.state["parts"]["vote"])) as client:
        said = client.get("http://vote/metrics").text
    return int(float(find(r"^voting_votes_accepted_total (\S+)", said)))


class Screen(threading.Thread):
    """Looks at the result until it shows a total; `seen` is when that was, by the monotonic clock, or no number."""

    def __init__(self, stack: Stack, total: int) -> None:
        super().__init__(daemon=True)
        self._stack, self._total = stack, total
        self.seen = float("nan")

    def run(self) -> None:
        """Until it does, or a minute has passed."""
        with httpx.Client() as client, contextlib.suppress(AssertionError):
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
    """Voters with cookies of their own, each a connection, a GET and a POST, within two seconds; a process a core."""
    number = int(setting.short(2000, 10_000))
    slowest, shown, busy, failed = [], [], [], 0
    with setting.stack(workers=2, WEB_CONCURRENCY="auto") as stack:  # as containers have it
        for round_ in range(setting.rounds):
            total = stack.results()["total"] + number
            screen = Screen(stack, total)
            screen.start()
            crowd = setting.helper("-m", "bench.crowd", str(stack.vote_port), str(number), "2")
            screen.join()
            failed += crowd["failed"]
            slowest.append(crowd["p99"])
            shown.append(screen.seen - crowd["began"])
            busy.append(crowd["cpu"] / crowd["seconds"])
            setting.say(f"round {round_ + 1}: p99 {slowest[-1]:.2f} s, all on screen after {shown[-1]:.2f} s")
    marks = [
        Mark("failed", failed, 0, at_most=True),
        Mark("p99 from arrival to answer, seconds", median(slowest), 2, at_most=True),
        Mark("all on screen, seconds", median(shown), 3, at_most=True),
        idle_enough(busy),
    ]
    return Outcome("burst", "s (p99)", slowest, marks=marks, notes={"voters": number, "on screen after, s": shown})
