"""Measures of viewers: freshness, number, and the cost of each."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from tests.e2e.stack import Stack, free_port, listening
from tests.waiting import eventually

from bench import machine
from bench.report import MAX_BUSY, Outcome, Threshold, generator_threshold, median, percentile
from bench.runner import CpuMeter, Runner, process_ids

RATE = 1000
VIEWERS_BUSY, POSTER_BUSY = "viewers' process, share of a core", "poster, share of a core"
BUMP = "UPDATE polls SET revision = revision + 1 WHERE slug = 'default'"


class Client:
    """A program of ours that executes commands, one a line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def send(self, command: str) -> str:
        """Send a command; return the line that answers it."""
        assert self._process.stdin  # noqa: S101 - both are pipes
        assert self._process.stdout  # noqa: S101
        if command:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("a load generator ended early")
        return answer

    def ask(self, command: str) -> Any:
        """Send a command; return its JSON answer."""
        return json.loads(self.send(command))


@contextlib.contextmanager
def running(*words: str) -> Iterator[Client]:
    """Run such a program, and wait until it is ready."""
    command = [sys.executable, "-m", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            client = Client(process)
            client.send("")
            yield client
        finally:
            process.terminate()


@contextlib.contextmanager
def watching(port: int, number: int, path: str = "/ws") -> Iterator[Client]:
    """Open a number of WebSockets."""
    with running("bench.viewers", str(port), str(number), path) as viewers:
        yield viewers


def freshness(runner: Runner) -> Outcome:
    """From POST to snapshot at 1,000 votes a second, for 100 viewers and for 10,000."""
    notes: dict[str, Any] = {}
    thresholds, medians, busy = [], [], []
    cpu: dict[str, list[float]] = {}
    few, many, seconds = 100, int(runner.quick_or_full(1000, 10_000)), runner.quick_or_full(3, 8)
    for number in (few, many):
        p50s, p99s = [], []
        with runner.stack() as stack, watching(stack.result_port, number) as viewers:
            for round_ in range(runner.rounds):
                with CpuMeter(**process_ids(stack)) as meter:
                    waits, found = vote_delays(runner, stack, viewers)
                p50s.append(1000 * percentile(waits, 0.5))
                p99s.append(1000 * percentile(waits, 0.99))
                busy += [found[VIEWERS_BUSY], found[POSTER_BUSY]]
                runner.log(f"{number} viewers, round {round_ + 1}: p50 {p50s[-1]:.0f} ms, p99 {p99s[-1]:.0f} ms")
                notes[f"{number} viewers"] = found
                meter.add_round(cpu, RATE * seconds, f"{number} viewers: ")
        if number == few:
            medians = p50s
            thresholds.append(Threshold(f"p50 with {number} viewers, ms", median(p50s), 20, at_most=True))
        thresholds.append(
            Threshold(f"p99 with {number} viewers, ms", median(p99s), 100 if number == few else 500, at_most=True)
        )
    thresholds.append(generator_threshold(busy))
    return Outcome("freshness", f"ms (p50, {few} viewers)", medians, thresholds=thresholds, cpu=cpu, notes=notes)


def vote_delays(runner: Runner, stack: Stack, viewers: Client, polls: int = 0) -> tuple[list[float], dict[str, Any]]:
    """Return the seconds from when a vote was due to the first snapshot with it, by vote and viewer; and notes.

    Args:
        runner: says for how long votes are sent.
        stack: where to send them.
        viewers: of the poll that gets the first vote.
        polls: the number of polls that get votes in turn; with 0 it is the default poll alone.
    """
    seconds = runner.quick_or_full(3, 8)
    path = "/p/p0" if polls else ""
    before = stack.results(path)["total"]
    viewers.send("reset")
    words = str(stack.vote_port), str(RATE), str(seconds), str(polls)
    posted = runner.run_program("-m", "bench.steady_voters", *words)
    due = [posted["began"] + number / RATE for number in range(0, posted["votes"], polls or 1)]
    votes = len(due)
    eventually(lambda: stack.results(path)["total"] == before + votes, within=20)
    eventually(stack.drained)
    seen = viewers.ask(f"total {before + votes}")
    times: list[float] = []
    shown: dict[int, int] = {}
    for when, viewer, total in seen["seen"]:
        first = shown.get(viewer, 0)
        times += [when - due[number] for number in range(first, total - before)]
        shown[viewer] = max(first, total - before)
    if set(shown.values()) != {votes}:
        raise RuntimeError(f"a viewer did not see all {votes} votes: {sorted(set(shown.values()))}")
    found = {
        "frames a second and viewer": round(len(seen["seen"]) / len(shown) / seconds, 1),
        VIEWERS_BUSY: round(seen["busy"], 2),
        POSTER_BUSY: round(posted["cpu"], 2),
        "poster late at most, ms": round(1000 * posted["latest"], 1),
    }
    return times, found


def viewers(runner: Runner) -> Outcome:
    """Idle WebSockets on one process, and a snapshot to all of them; limit: the websockets library's own broadcast."""
    number = int(runner.quick_or_full(2000, 10_000))
    ours, limit, lost = [], [], 0
    cpu: dict[str, float] = {"result": 0, "viewers": 0, "limit: server": 0, "limit: viewers": 0}
    port = free_port()
    with runner.stack() as stack, listening([sys.executable, "-m", "bench.limit_viewers", str(port)], port) as library:
        result = stack.pid("result")
        idle = machine.memory_mib(result), machine.memory_mib(library.pid)
        with (
            watching(stack.result_port, number) as mine,
            watching(port, number) as theirs,
            psycopg.connect(stack.state["database_url"], autocommit=True) as database,
        ):
            full = machine.memory_mib(result), machine.memory_mib(library.pid)

            def change() -> None:
                database.execute(BUMP)
                database.execute("SELECT pg_notify('tallies', 'default')")

            for round_ in range(runner.rounds):
                for _ in range(4):
                    took, server, seen = _fan_out(mine, result, change)
                    ours.append(1000 * took)
                    cpu["result"] += server
                    cpu["viewers"] += seen["cpu"]
                    took, server, seen_ = _fan_out(theirs, library.pid, lambda: library.send_signal(signal.SIGUSR1))
                    limit.append(1000 * took)
                    cpu["limit: server"] += server
                    cpu["limit: viewers"] += seen_["cpu"]
                    lost = seen["lost"] + seen_["lost"]
                runner.log(f"round {round_ + 1}: all have it after {ours[-1]:.0f} ms; limit {limit[-1]:.0f} ms")
    frames = number * len(ours)
    thresholds = [
        Threshold("memory of the process, MiB", full[0], 200, at_most=True),
        Threshold("time until all have it, to that of the limit", median(ours) / median(limit), 1.5, at_most=True),
        Threshold("CPU for a frame, to that of the limit", cpu["result"] / cpu["limit: server"], 1.5, at_most=True),
        Threshold("lost", lost, 0, at_most=True),
        Threshold("client's CPU for a frame, to result's", cpu["viewers"] / cpu["result"], MAX_BUSY, at_most=True),
    ]
    notes = {
        "viewers": number,
        "CPU microseconds for a frame": {name: round(1e6 * took / frames, 1) for name, took in cpu.items()},
        "KiB a viewer": round((full[0] - idle[0]) * 1024 / number, 1),
        "limit: KiB a viewer": round((full[1] - idle[1]) * 1024 / number, 1),
        "note": "our time begins with a change in the database, the limit's with a signal",
    }
    return Outcome("viewers", "ms to all", ours, limit, thresholds, notes=notes)


def _fan_out(viewers: Client, pid: int, trigger: Callable[[], None]) -> tuple[float, float, dict[str, Any]]:
    """Send one frame to all; return seconds until the last viewer has it, CPU seconds of the server, what was seen."""
    viewers.send("reset")
    before, began = machine.cpu_seconds(pid), time.monotonic()
    trigger()
    seen = viewers.ask("wait 1")
    return seen["last"] - began, machine.cpu_seconds(pid) - before, seen


def footprint(runner: Runner) -> Outcome:
    """All of `voting up`, idle, with its usual two workers; and how soon a second run is ready."""
    memory, cpu, ready = [], [], []
    seconds = runner.quick_or_full(5, 20)
    with runner.stack(workers=2) as stack:
        for round_ in range(runner.rounds):
            stack.stop()
            began = time.monotonic()
            stack.start()
            ready.append(time.monotonic() - began)
            eventually(lambda: stack.results()["total"] == 0)
            busy, began = machine.cpu_seconds(stack.process.pid), time.monotonic()
            time.sleep(seconds)  # the idle time that is measured
            cpu.append(100 * (machine.cpu_seconds(stack.process.pid) - busy) / (time.monotonic() - began))
            memory.append(machine.memory_mib(stack.process.pid))
            runner.log(
                f"round {round_ + 1}: {memory[-1]:.0f} MiB, {cpu[-1]:.1f} % of a core, ready in {ready[-1]:.1f} s"
            )
        each = {name: round(machine.memory_mib(pid)) for name, pid in process_ids(stack).items()}
        each["up"] = round(memory[-1]) - sum(each.values())
    thresholds = [
        Threshold("memory, MiB", median(memory), 250, at_most=True),
        Threshold("CPU, % of a core", median(cpu), 3, at_most=True),
        Threshold("second run ready, seconds", median(ready), 3, at_most=True),
    ]
    return Outcome("footprint", "MiB", memory, thresholds=thresholds, notes={"MiB of each": each, "ready": ready})
