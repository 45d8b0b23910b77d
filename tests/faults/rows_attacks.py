"""Faults of people who mean ill: attacks on the bounds of one connection, and on everything at once."""

import contextlib
import http.client
import json
import threading
import time
from typing import Any

from tests.faults.plant import Plant
from tests.faults.trial import Broken, Case, Trial, must, trial

GROWTH = 25  # MiB that any process of ours may grow by
BODIES = {"trailers", "a long trailer", "chunk extensions", "chunks of a byte", "slow bodies"}
TIMES, SECONDS = 4, 0.25  # others' 99th percentile: so many times what it was, or so long


class Reader(threading.Thread):
    """One who asks for the result twenty times a second, and times each answer.

    Args:
        plant: where.
    """

    def __init__(self, plant: Plant) -> None:
        super().__init__(daemon=True)
        self._port = plant.result_port
        self._done = threading.Event()
        self.times: list[tuple[float, float]] = []  # when it asked, and how long it took
        self.bad: list[str] = []

    def run(self) -> None:
        """Ask until told to stop."""
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


class Watch:
    """What must not change while there is an attack: processes, their memory, and other people's waiting times.

    Args:
        now: the trial.
    """

    def __init__(self, now: Trial) -> None:
        self._now, self._plant = now, now.plant
        self._reader = Reader(now.plant)
        self._reader.start()
        began = time.monotonic()
        time.sleep(now.case.short(3, 10))  # this long other people are timed before
        self._before = self._latencies(began)
        self._pids = now.plant.pids()
        self._memory = {name: now.plant.memory(name) for name in now.plant.services}
        now.plant.forget_peaks()
        self._began = time.monotonic()

    def _latencies(self, since: float) -> dict[str, float]:
        votes = sorted(each.ended - each.began for each in self._now.history.attempts if each.began >= since)
        voting = votes[int(0.99 * len(votes))] if len(votes) > 20 else float("inf")
        return {"voting": voting, "reading": self._reader.latency(since)}

    def end(self, missed: list[str]) -> None:
        """Note the figures.

        Args:
            missed: what else was wrong, a sentence each.

        Raises:
            Broken: with all that was wrong.
        """
        after = self._latencies(self._began)
        self._reader.stop()
        peaks = {name: self._plant.peak_memory(name) for name in self._plant.services}
        grown = {name: peaks[name] - self._memory[name] for name in peaks}
        name = max(grown, key=lambda name: grown[name])
        self._now.notes |= {"grew most MiB": f"{name} {grown[name]:.1f}"}
        missed += [f"{name} grew by {more:.0f} MiB" for name, more in grown.items() if more > GROWTH]
        for what, before in self._before.items():
            self._now.notes[f"p99 of {what} ms"] = [round(1000 * before), round(1000 * min(after[what], 60))]
            if after[what] > max(TIMES * before, self._now.case.mark(SECONDS)):
                missed.append(f"the 99th percentile of {what} went from {before:.3f} to {after[what]:.3f} s")
        if self._reader.bad:
            missed.append(f"{len(self._reader.bad)} answers to the reader were bad, the first {self._reader.bad[0]}")
        if self._plant.pids() != self._pids:
            missed.append("a process of ours was restarted")
        if missed:
            raise Broken("; ".join(missed), tuple(f"bound: {each}" for each in missed))


def _attacked(case: Case, group: str, expected: dict[str, set[str]]) -> dict[str, object]:
    """Run a group of attacks; each must have been answered as expected, at least once, and in no other way."""
    with trial(case) as now:
        plant = now.plant
        watch = Watch(now)
        seconds = 3 if case.attacks else case.short(8, 30)
        arguments = (group, str(plant.vote_port), str(plant.result_port), str(seconds), *case.attacks)
        found: dict[str, dict[str, int]] = json.loads(plant.run("tests.faults.attacks", *arguments, within=120))
        missed = [
            f"{name}: {outcomes}"
            for name, outcomes in found.items()
            if not outcomes or not set(outcomes) <= _allowed(name, expected)
        ]
        watch.end(missed)
        now.notes["attacks"] = sum(sum(outcomes.values()) for outcomes in found.values())
    return now.notes


def _allowed(name: str, expected: dict[str, set[str]]) -> set[str]:
    """Return the outcomes of an attack that are right; result may refuse a POST before it has seen its body."""
    attack, _, service = name.partition(" (")
    return expected[attack] | ({"405"} if service == "result)" and attack in BODIES else set())


def pipelined(case: Case) -> dict[str, object]:
    """Requests sent ahead, without end: the answers read, read slowly, or not read."""
    read = {"left"}
    return _attacked(
        case,
        "pipelined",
        {"one connection, read": read, "many connections, read": read, "not read": {"cut"}, "read slowly": {"cut"}},
    )


def endless(case: Case) -> dict[str, object]:
    """Heads, header fields, bodies, chunks and trailers without end, fast and slow; names too long for a QR code."""
    too_much = {"413", "431"}
    return _attacked(
        case,
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


def sockets(case: Case) -> dict[str, object]:
    """WebSockets that send pings, pongs and other frames as fast as they go, and handshakes without end."""
    return _attacked(
        case,
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


def hostile(case: Case) -> dict[str, object]:
    """Odd and forged requests, idle connections and a flood, from an address of their own, with the limits on."""
    limits: dict[str, Any] = {"RATE_LIMIT": "20", "RATE_BURST": "100", "MAX_CONNECTIONS": "2400"}
    with trial(case, addresses=50, BALLOT_POLICY="browser", **limits) as now:
        plant = now.plant
        watch = Watch(now)
        seconds = str(case.short(8, 40))
        found = json.loads(
            plant.run("tests.faults.hostile", str(plant.vote_port), str(plant.result_port), seconds, within=300)
        )
        watch.end(_wrong(found))
        others = sum(attempt.status == 429 for attempt in now.history.attempts)
        must(not others, f"{others} votes of others were refused with 429")
        now.notes |= {"idle refused": found["idle"], "attacks": sum(sum(a.values()) for a in found["answers"].values())}
    return now.notes


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
