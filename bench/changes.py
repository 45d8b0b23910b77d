"""How long a change takes: from the host's request until every phone and every vote process has it."""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
from tests.e2e.stack import Stack

from bench import machine
from bench.live import RATE, Client, running, watching
from bench.report import Outcome, Threshold, generator_threshold, percentile
from bench.runner import Runner

PHONES, PROCESSES = 500, 2
LIMIT_MS = 300


class Change(NamedTuple):
    """A request of the host, and by what it is recognised."""

    name: str
    method: str
    path: str
    body: dict[str, Any]
    frame: str  # pattern in the frames of the phones
    answer: str  # pattern in the answers of the vote service; empty if they do not change


def _changes(code: str) -> list[Change]:
    """Return a round of changes of the poll p0, after which it is a draft again."""
    p0, session, shown = "/api/polls/p0", f"/api/sessions/{code}", '"poll":"p0".*"state":"{}"'.format
    return [
        Change("open", "PATCH", p0, {"state": "open"}, shown("open"), "^HTTP/1.1 200"),
        Change("step on", "PATCH", session, {"current": "p1"}, '"poll":"p1"', ""),
        Change("step back", "PATCH", session, {"current": "p0"}, shown("open"), ""),
        Change("close", "PATCH", p0, {"state": "closed"}, shown("closed"), '"reason": ?"closed"'),
        Change("reset", "POST", f"{p0}/reset", {}, shown("draft"), '"reason": ?"not_open"'),
    ]


def changes(runner: Runner) -> Outcome:
    """From the host's request to 500 phones and 2 vote processes, idle and with 1,000 votes a second."""
    times: dict[str, dict[str, list[float]]] = {}
    busy: list[float] = []
    back = 0.0
    cycles = int(runner.quick_or_full(3, 12))
    with runner.stack(workers=2, WEB_CONCURRENCY=str(PROCESSES)) as stack, stack.admin() as host:
        code = _prepare(host)
        pids = [pid for pid in machine.process_tree(stack.pid("vote")) if pid != stack.pid("vote")]
        with (
            watching(stack.result_port, PHONES, f"/s/{code}/ws?view=ballot") as phones,
            running("bench.vote_probes", str(stack.vote_port), "/p/p0", *map(str, pids)) as probes,
        ):
            for round_ in range(runner.rounds):
                for load in ("idle", "loaded"):
                    seen = times.setdefault(load, {"phones": [], "vote": [], "answer": []})
                    with _votes(stack) if load == "loaded" else contextlib.nullcontext():
                        for change in _changes(code) * cycles:
                            time.sleep(random.uniform(0.05, 0.2))
                            found = _measure(host, change, phones, probes)
                            seen["phones"].append(found["phones"])
                            busy.append(found["busy"])
                            if change.answer:
                                seen["vote"].append(found["vote"])
                                back += found["back"]
                                seen["answer"].append(found["answer"])
                    runner.log(f"round {round_ + 1}, {load}: {_summary(seen)}")
    thresholds = [
        Threshold(f"{load}: p99 of {to}, ms", percentile(seen, 0.99), LIMIT_MS, at_most=True)
        for load, each in times.items()
        for to, seen in each.items()
        if to != "answer"
    ]
    thresholds.append(Threshold("answers of a vote process that went back", back, 0, at_most=True))
    thresholds.append(generator_threshold([sum(busy) / len(busy)]))
    # "answer": how long the vote process took for that answer, whatever it says
    notes = {load: {to: _figures(seen) for to, seen in each.items()} for load, each in times.items()}
    return Outcome("changes", "ms to all phones, idle", times["idle"]["phones"], thresholds=thresholds, notes=notes)


def _prepare(host: httpx.Client) -> str:
    """Make two polls and a session that shows the first; return its code."""
    for slug in ("p0", "p1"):
        question = {"question": f"Question {slug}?", "options": ["Yes", "No"], "slug": slug}
        host.post("/api/polls", json=question).raise_for_status()
    made = host.post("/api/sessions", json={"title": "Benchmark", "polls": ["p0", "p1"]}).raise_for_status()
    code: str = made.json()["code"]
    host.patch(f"/api/sessions/{code}", json={"current": "p0"}).raise_for_status()
    return code


@contextlib.contextmanager
def _votes(stack: Stack) -> Iterator[None]:
    """Send votes to the poll p0 in the block, whether it is open or not."""
    command = [sys.executable, "-m", "bench.steady_voters", str(stack.vote_port), str(RATE), "3600", "1", "closing"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            time.sleep(1)  # it is connected, and sends
            yield
            if process.poll() is not None:
                raise RuntimeError("the voters ended early")
        finally:
            process.terminate()


def _measure(host: httpx.Client, change: Change, phones: Client, probes: Client) -> dict[str, float]:
    """Make a change; return the milliseconds until the last phone and the last process had it."""
    phones.send(f"expect {change.frame}")
    probes.send(f"expect {change.answer}")
    began = time.monotonic()
    host.request(change.method, change.path, json=change.body or None).raise_for_status()
    seen, answered = phones.ask("matched"), probes.ask("answered")
    found = {"phones": 1000 * (seen["last"] - began), "busy": seen["busy"]}
    vote = {"vote": 1000 * (answered["last"] - began), "answer": 1000 * answered["took"], "back": answered["back"]}
    return found | vote


def _figures(times: list[float]) -> dict[str, float]:
    shares = {"p50 ms": 0.5, "p90 ms": 0.9, "p99 ms": 0.99, "most ms": 1}
    return {"changes": len(times)} | {name: round(percentile(times, share), 1) for name, share in shares.items()}


def _summary(seen: dict[str, list[float]]) -> str:
    return ", ".join(
        f"{to} p50 {percentile(each, 0.5):.0f}, p99 {percentile(each, 0.99):.0f} ms" for to, each in seen.items()
    )
