"""Attacks: on the limits of one connection, and on everything at once."""

import contextlib
import http.client
import json
import threading
import time
from typing import Any

from tests.faults.run import RowFailed, Run, RunConfig, expect, run_under_load
from tests.faults.system import SystemUnderTest

GROWTH = 25  # MiB that a process may grow by
BODIES = {"trailers", "a long trailer", "chunk extensions", "chunks of a byte", "slow bodies"}
TIMES, SECONDS = 4, 0.25  # limits of others' 99th percentile: a multiple of the one before, or an absolute time


class ResultReader(threading.Thread):
    """Reads the result twenty times a second and times each answer."""

    def __init__(self, system: SystemUnderTest) -> None:
        super().__init__(daemon=True)
        self._port = system.result_port
        self._done = threading.Event()
        self.times: list[tuple[float, float]] = []  # when each request was sent, and how long its answer took
        self.bad: list[str] = []

    def run(self) -> None:
        """Read until stopped."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)) as client:
            self._ask(client)

    def _ask(self, client: http.client.HTTPConnection) -> None:
        while not self._done.wait(0.05):
            began = time.monotonic()
            try:
                client.request("GET", "/api/results")
                answer = client.getresponse()
                answer.read()
                if answer.status != 200:
                    self.bad.append(str(answer.status))
            except (OSError, http.client.HTTPException) as error:
                self.bad.append(str(error))
                client.close()
            self.times.append((began, time.monotonic() - began))

    def latency(self, since: float) -> float:
        """Return the 99th percentile of the times since a moment; infinity if there are too few."""
        times = sorted(took for began, took in self.times if began >= since)
        return times[int(0.99 * len(times))] if len(times) > 20 else float("inf")

    def stop(self) -> None:
        """Stop, and wait for the last answer."""
        self._done.set()
        self.join(15)


class Baseline:
    """What an attack must not change: processes, their memory, and the latency for others; measured before it."""

    def __init__(self, run: Run) -> None:
        self._run, self._system = run, run.system
        self._reader = ResultReader(run.system)
        self._reader.start()
        began = time.monotonic()
        time.sleep(run.config.brief_or_full(3, 10))  # the time over which others are measured before the attack
        self._before = self._latencies(began)
        self._pids = run.system.pids()
        self._memory = {name: run.system.memory(name) for name in run.system.services}
        run.system.reset_peak_memory()
        self._began = time.monotonic()

    def _latencies(self, since: float) -> dict[str, float]:
        votes = sorted(each.ended - each.began for each in self._run.history.attempts if each.began >= since)
        voting = votes[int(0.99 * len(votes))] if len(votes) > 20 else float("inf")
        return {"voting": voting, "reading": self._reader.latency(since)}

    def compare(self, missed: list[str]) -> None:
        """Measure again, add the figures to the notes, and check them.

        Args:
            missed: other violations, a sentence each.

        Raises:
            RowFailed: with all violations.
        """
        after = self._latencies(self._began)
        self._reader.stop()
        peaks = {name: self._system.peak_memory(name) for name in self._system.services}
        grown = {name: peaks[name] - self._memory[name] for name in peaks}
        name = max(grown, key=lambda name: grown[name])
        self._run.notes |= {"grew most MiB": f"{name} {grown[name]:.1f}"}
        missed += [f"{name} grew by {more:.0f} MiB" for name, more in grown.items() if more > GROWTH]
        for what, before in self._before.items():
            self._run.notes[f"p99 of {what} ms"] = [round(1000 * min(each, 60)) for each in (before, after[what])]
            limit = max(TIMES * before, self._run.config.time_limit(SECONDS)) + self._run.load.worst_delay
            if after[what] > limit:
                missed.append(f"the 99th percentile of {what} went from {before:.3f} to {after[what]:.3f} s")
        if self._reader.bad:
            missed.append(f"{len(self._reader.bad)} answers to the reader were bad, the first {self._reader.bad[0]}")
        if self._system.pids() != self._pids:
            missed.append("a service was restarted")
        if missed:
            raise RowFailed("; ".join(missed), tuple(f"bound: {each}" for each in missed))


def _attacked(config: RunConfig, group: str, expected: dict[str, set[str]]) -> dict[str, object]:
    """Run a group of attacks; each must be answered at least once, and only as expected."""
    with run_under_load(config) as run:
        system = run.system
        baseline = Baseline(run)
        seconds = 3 if config.attacks else config.brief_or_full(8, 30)
        arguments = (group, str(system.vote_port), str(system.result_port), str(seconds), *config.attacks)
        found: dict[str, dict[str, int]] = json.loads(system.run("tests.faults.attacks", *arguments, within=120))
        missed = [
            f"{name}: {outcomes}"
            for name, outcomes in found.items()
            if not outcomes or not set(outcomes) <= _allowed(name, expected)
        ]
        baseline.compare(missed)
        run.notes["attacks"] = sum(sum(outcomes.values()) for outcomes in found.values())
    return run.notes


def _allowed(name: str, expected: dict[str, set[str]]) -> set[str]:
    """Return the outcomes that an attack may have; result may refuse a POST before it has read the body."""
    attack, _, service = name.partition(" (")
    return expected[attack] | ({"405"} if service == "result)" and attack in BODIES else set())


def pipelined(config: RunConfig) -> dict[str, object]:
    """Requests sent ahead, without end: the answers read, read slowly, or not read."""
    read = {"left"}
    return _attacked(
        config,
        "pipelined",
        {"one connection, read": read, "many connections, read": read, "not read": {"cut"}, "read slowly": {"cut"}},
    )


def endless(config: RunConfig) -> dict[str, object]:
    """Heads, header fields, bodies, chunks and trailers without end, fast and slow; names too long for a QR code."""
    too_much = {"413", "431"}
    return _attacked(
        config,
        "endless",
        {
            "trailers": too_much,
            "a long trailer": too_much,
            "chunk extensions": {"413"},
            "chunks of a byte": {"413"},
            "small header fields": {"431"},
            "header fields": {"431"},
            "a long header": {"431"},
            "a long target": {"431"},
            "slow heads": {"408"},
            "slow bodies": {"408"},
            "codes of long paths": {"404"},
            "codes of longer paths": {"404"},
            "codes of other hosts": {"200"},
        },
    )


def sockets(config: RunConfig) -> dict[str, object]:
    """WebSockets that send pings, pongs and other frames as fast as they go, and handshakes without end."""
    return _attacked(
        config,
        "sockets",
        {
            "pings": {"1008"},
            "pings, not read": {"cut", "left"},
            "pongs": {"1008"},
            "continuations": {"1002", "1008"},
            "handshakes": {"101"},
            "refused handshakes": {"404"},
        },
    )


def hostile(config: RunConfig) -> dict[str, object]:
    """Odd and forged requests, idle connections and a flood, from an address of their own, with the limits on."""
    limits: dict[str, Any] = {"RATE_LIMIT": "20", "RATE_BURST": "100", "MAX_CONNECTIONS": "2400"}
    with run_under_load(config, addresses=50, BALLOT_POLICY="browser", **limits) as run:
        system = run.system
        baseline = Baseline(run)
        seconds = str(config.brief_or_full(8, 40))
        found = json.loads(
            system.run(
                "tests.faults.hostile_clients", str(system.vote_port), str(system.result_port), seconds, within=300
            )
        )
        baseline.compare(_wrong(found))
        others = sum(attempt.status == 429 for attempt in run.history.attempts)
        expect(not others, f"{others} votes of others were refused with 429")
        run.notes |= {"idle refused": found["idle"], "attacks": sum(sum(a.values()) for a in found["answers"].values())}
    return run.notes


def _wrong(found: dict[str, Any]) -> list[str]:
    answers: dict[str, dict[str, int]] = found["answers"]
    missed = []
    for name, statuses in answers.items():
        allowed = {"garbage frames": {0, 1002, 1003, 1007, 1008, 1009, 429}, "odd but valid": {100, 200, 429}}.get(name)
        if not all(int(status) in allowed if allowed else _is_no(int(status)) for status in statuses):
            missed.append(f"{name} were answered with {statuses}")
    for name, status in (
        ("announced bodies", "413"),
        ("big bodies", "413"),
        ("forged cookies", "403"),
        ("flood", "429"),
    ):
        if status not in answers[name]:
            missed.append(f"{name} were answered with {answers[name]}")
    missed += [f"of {found['idle']} idle connections none was refused"] * (not all(found["idle"].values()))
    return missed


def _is_no(status: int) -> bool:
    return status == 0 or 400 <= status < 500
