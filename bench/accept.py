"""Measures of accepting: one process, all cores, the whole way at four fifths of the maximum, and a burst."""

import contextlib
import os
import threading
import time

import httpx
from tests.e2e.stack import Stack
from tests.waiting import eventually

from bench.report import Outcome, Threshold, generator_threshold, median
from bench.runner import CpuMeter, Load, Runner, find, process_ids, voters


def accept(runner: Runner) -> Outcome:
    """Durable `POST /`, 64 connections, one process; limit: the same server and bytes, no cookie, no Redis."""
    seconds = runner.quick_or_full(3, 8)
    ours, limit, loads = [], [], []
    cpu: dict[str, list[float]] = {}
    with runner.stack() as stack, runner.limit_server(stack) as (url, pid):
        for number in range(runner.rounds):
            with CpuMeter(**process_ids(stack)) as meter:
                load = without_failures(runner.wrk(stack.vote_url, seconds))
            eventually(stack.drained, within=60)
            with CpuMeter(server=pid) as limit_meter:
                bare = without_failures(runner.wrk(url, seconds))
            ours.append(load.rate)
            limit.append(bare.rate)
            meter.add_round(cpu, load.requests)
            limit_meter.add_round(cpu, bare.requests, "limit: ")
            loads += [load, bare]
            runner.log(f"round {number + 1}: {load.rate:,.0f} votes/s; limit {bare.rate:,.0f}")
    thresholds = [
        Threshold("rate to that of the limit", median(ours) / median(limit), 0.5),
        Threshold(
            "CPU of vote to that of the limit, per vote",
            median(cpu["vote"]) / median(cpu["limit: server"]),
            2,
            at_most=True,
        ),
        generator_threshold([load.busy for load in loads]),
    ]
    notes = {"p99 ms": [load.p99 for load in loads[::2]], "limit: p99 ms": [load.p99 for load in loads[1::2]]}
    return Outcome("accept", "votes/s", ours, limit, thresholds, cpu, notes)


def cores(runner: Runner) -> Outcome:
    """The same in as many processes as there are cores, to one process; limit: the bare server's multiple."""
    seconds, number = runner.quick_or_full(3, 6), os.cpu_count() or 1
    ours, limit, busy = [], [], []
    cpu: dict[str, list[float]] = {}
    with (
        runner.stack() as one,
        runner.stack(WEB_CONCURRENCY=str(number)) as many,
        runner.limit_server(one) as (bare_one, _),
        runner.limit_server(one, number) as (bare_many, _),
    ):
        for round_ in range(runner.rounds):
            rates = []
            for stack, name, times in ((one, "one process: ", 1), (many, f"{number} processes: ", number)):
                with CpuMeter(**process_ids(stack)) as meter:
                    load = without_failures(runner.wrk(stack.vote_url, seconds, 64 * times))
                meter.add_round(cpu, load.requests, name)
                rates.append(load.rate)
                busy.append(load.busy)
                eventually(stack.drained, within=60)
            for url, times in ((bare_one, 1), (bare_many, number)):
                load = without_failures(runner.wrk(url, seconds, 64 * times))
                rates.append(load.rate)
                busy.append(load.busy)
            ours.append(rates[1] / rates[0])
            limit.append(rates[3] / rates[2])
            runner.log(f"round {round_ + 1}: {ours[-1]:.2f} times one process; limit {limit[-1]:.2f}")
    each = median(cpu["one process: vote"]) / median(cpu[f"{number} processes: vote"])
    thresholds = [
        Threshold("votes for a CPU second of vote, to one process", each, 0.9),
        Threshold("rate's multiple to that of the limit", median(ours) / median(limit), 0.9),
        generator_threshold(busy),
    ]
    notes = {"processes": number, "note": "generator, broker, worker and database share these cores, and so run out"}
    return Outcome("accept, all cores", "times one process", ours, limit, thresholds, cpu, notes)


def whole(runner: Runner) -> Outcome:
    """Four fifths of what is accepted at most, for a minute; how long the oldest vote waits meanwhile."""
    seconds, connections = runner.quick_or_full(8, 60), 256
    rates, ages, drained, lost, shares, busy = [], [], [], [], [], []
    cpu: dict[str, list[float]] = {}
    with runner.stack(workers=2) as stack:
        for round_ in range(runner.rounds):
            most = without_failures(runner.wrk(stack.vote_url, runner.quick_or_full(3, 8), connections)).rate
            eventually(stack.drained, within=60)
            delay = pace = 1000 * connections / (0.8 * most)  # milliseconds from one vote to the next on a connection
            for _ in range(3):  # minus the time of the answers, which depends on the load
                probe = runner.wrk(stack.vote_url, 3, connections, delay)
                delay = max(1, delay + pace - 1000 * connections / probe.rate)
            eventually(stack.drained, within=60)
            rows, known = voters(stack), accepted(stack)
            monitor = AgeMonitor(stack)
            monitor.start()
            with CpuMeter(**process_ids(stack)) as meter:
                load = without_failures(runner.wrk(stack.vote_url, seconds, connections, delay))
            ended = time.monotonic()
            eventually(stack.drained, within=60)
            drained.append(time.monotonic() - ended)
            monitor.stop()
            eventually(lambda: stack.results()["total"] == voters(stack))
            meter.add_round(cpu, load.requests)
            lost.append((accepted(stack) - known) - (voters(stack) - rows))
            rates.append(load.rate)
            shares.append(load.rate / most)
            ages.append(max(monitor.seen))
            busy.append(load.busy)
            runner.log(f"round {round_ + 1}: {load.rate:,.0f} votes/s, oldest waited {1000 * ages[-1]:.0f} ms")
    thresholds = [
        Threshold("load to the maximum", median(shares), 0.75),
        Threshold("longest wait of a vote, seconds", max(ages), 1, at_most=True),
        Threshold("drained after the end, seconds", max(drained), 1, at_most=True),
        Threshold("accepted and not counted, or counted and not accepted", max(map(abs, lost)), 0, at_most=True),
        generator_threshold(busy),
    ]
    notes = {"seconds": seconds, "share of the maximum": [round(share, 2) for share in shares]}
    return Outcome("whole way", "votes/s", rates, thresholds=thresholds, cpu=cpu, notes=notes)


def accepted(stack: Stack) -> int:
    """Return how many votes a vote service of one process has accepted, by its own metrics."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=stack.state["parts"]["vote"])) as client:
        output = client.get("http://vote/metrics").text
    return int(float(find(r"^voting_votes_accepted_total (\S+)", output)))


class ResultWatcher(threading.Thread):
    """Reads the result until it has a total; `seen` is the monotonic time of that, or NaN."""

    def __init__(self, stack: Stack, total: int) -> None:
        super().__init__(daemon=True)
        self._stack, self._total = stack, total
        self.seen = float("nan")

    def run(self) -> None:
        """Read until the total is there, for a minute at most."""
        with httpx.Client() as client, contextlib.suppress(AssertionError):
            eventually(
                lambda: client.get(f"{self._stack.result_url}/api/results").json()["total"] >= self._total, within=60
            )
        self.seen = time.monotonic()


class AgeMonitor(threading.Thread):
    """Measures ten times a second how old the oldest waiting vote is."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._stopped = threading.Event()
        self.seen: list[float] = [0.0]

    def run(self) -> None:
        """Measure until stopped."""
        with self._stack.broker() as client:
            while not self._stopped.wait(0.1):
                if oldest := client.xrange("votes", count=1):
                    seconds, microseconds = client.time()
                    born = int(oldest[0][0].split(b"-")[0]) / 1000
                    self.seen.append(seconds + microseconds / 1e6 - born)

    def stop(self) -> None:
        """Stop measuring."""
        self._stopped.set()
        self.join()


def without_failures(load: Load) -> Load:
    """Return the figures of a run of wrk, or raise `RuntimeError` if a request failed."""
    if load.failed:
        raise RuntimeError(f"{load.failed} requests failed: this is no measure of accepting")
    return load


def burst(runner: Runner) -> Outcome:
    """Voters with cookies of their own, each a connection, a GET and a POST, within two seconds; a process a core."""
    number = int(runner.quick_or_full(2000, 10_000))
    slowest, shown, busy, failed = [], [], [], 0
    with runner.stack(workers=2, WEB_CONCURRENCY="auto") as stack:  # as containers have it
        for round_ in range(runner.rounds):
            total = stack.results()["total"] + number
            watcher = ResultWatcher(stack, total)
            watcher.start()
            voted = runner.run_program("-m", "bench.burst_voters", str(stack.vote_port), str(number), "2")
            watcher.join()
            failed += voted["failed"]
            slowest.append(voted["p99"])
            shown.append(watcher.seen - voted["began"])
            busy.append(voted["cpu"] / voted["seconds"])
            runner.log(f"round {round_ + 1}: p99 {slowest[-1]:.2f} s, all on screen after {shown[-1]:.2f} s")
    thresholds = [
        Threshold("failed", failed, 0, at_most=True),
        Threshold("p99 from arrival to answer, seconds", median(slowest), 2, at_most=True),
        Threshold("all on screen, seconds", median(shown), 3, at_most=True),
        generator_threshold(busy),
    ]
    return Outcome(
        "burst", "s (p99)", slowest, thresholds=thresholds, notes={"voters": number, "on screen after, s": shown}
    )
