"""Faults of the broker and of the network to it."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.conftest import require
from tests.faults.load_generator import VOTERS
from tests.faults.run import RowFailed, Run, RunConfig, expect, expect_soon, run_under_load
from tests.waiting import eventually
from voting.polls.vote import EntryId


def broker_killed(config: RunConfig) -> dict[str, object]:
    """Valkey killed (-9) again and again under load."""
    with run_under_load(config) as run:
        for _ in range(int(config.brief_or_full(3, 10))):
            run.system.kill("valkey")
            began = time.monotonic()
            run.expect_refused_soon(began, config.time_limit(2), 10)
            run.system.start("valkey")
            run.system.wait_ready("valkey")
            ready = time.monotonic()
            run.expect_accepted_soon(ready, config.time_limit(2))
            run.load.wait_for_votes()
        _refuses_quickly(run)
    return run.notes


def _refuses_quickly(run: Run) -> None:
    """Check that no refusal took longer than a second, beyond the delay of this machine itself."""
    slowest = max((a.ended - a.began for a in run.history.attempts if a.outcome == "refused"), default=0)
    run.notes["slowest refusal s"] = round(slowest, 2)
    expect(slowest <= run.config.brief_or_full(3, 1.1) + run.load.worst_delay, f"a refusal took {slowest:.2f} s")


@contextlib.contextmanager
def stalled(pid: int, seconds: float) -> Iterator["subprocess.Popen[bytes]"]:
    """Delay each fsync of a process by some seconds."""
    strace = require("strace", "strace")
    inject = f"inject=fdatasync:delay_enter={int(seconds * 1e6)}"
    command = [strace, "-f", "-qq", "-p", str(pid), "-e", "trace=fdatasync", "-e", inject, "-o", "/dev/null"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        status = Path(f"/proc/{pid}/status")
        eventually(lambda: "TracerPid:\t0" not in status.read_text())
        try:
            yield tracer
        finally:
            tracer.kill()


def fsync_stalls(config: RunConfig) -> dict[str, object]:
    """The broker's fsync stalls, then it is killed; and with `everysec`, as a control, votes are lost."""
    with run_under_load(config) as run:
        for _ in range(int(config.brief_or_full(1, 3))):
            _stall_and_kill(run)
            run.load.wait_for_votes()
    control = replace(config, folder=config.folder / "control")
    control.folder.mkdir()
    violations: tuple[str, ...] = ()
    try:
        with run_under_load(control, valkey=("--appendfsync", "everysec")) as other:
            for _ in range(2):
                _stall_and_kill(other, votes=100)
                other.load.wait_for_votes()
    except RowFailed as failure:
        violations = failure.violations
    lost = [each for each in violations if each[0] in "12"]
    expect(lost, f"the control with everysec lost nothing, so this proves nothing: {violations}")
    return run.notes | {"control lost": len(lost)}


def _stall_and_kill(run: Run, votes: int = 0) -> None:
    """Kill the broker while its fsync stalls.

    With `votes`, first wait until so many are accepted in spite of the stall. Without, the broker is stopped for a
    moment before, so that many votes are on its disk and unanswered when it is killed. Workers are stopped meanwhile,
    so that no lost vote was counted before.
    """
    system = run.system
    system.signal(signal.SIGSTOP, *system.workers)
    run.load.wait_for_votes(20)
    if not votes:
        system.signal(signal.SIGSTOP, "valkey")
    began = time.monotonic()
    with stalled(system.processes["valkey"].pid, 5) as tracer:
        if not votes:
            time.sleep(max(0.0, began + 0.5 - time.monotonic()))  # while votes arrive
            system.signal(signal.SIGCONT, "valkey")
        time.sleep(
            run.config.brief_or_full(1.5, 4)
        )  # with everysec it takes a second until the next fsync begins, and stalls
        if votes:
            run.load.wait_for_votes(votes)
        else:
            yes = run.history.count("ok", time.monotonic() - 0.5)
            expect(not yes, f"{yes} votes were accepted: the stall did not happen")
            silent = sum(a.ended - a.began > 0.5 for a in run.history.attempts if a.began > began)
            expect(silent >= 10, f"only {silent} votes were under way")
        system.signal(signal.SIGKILL, "valkey")
        tracer.kill()  # or it would hold the dead process until the stall is over
        system.processes["valkey"].wait(10)
    system.start("valkey")
    system.wait_ready("valkey")
    system.signal(signal.SIGCONT, *system.workers)


def ids_go_back(config: RunConfig) -> dict[str, object]:
    """The broker's clock was an hour ahead, and no longer is when the stream is lost: later votes still win."""
    with run_under_load(config) as run:
        with run.system.broker() as broker:
            ahead = int(time.time() * 1000) + 3_600_000
            broker.xadd("votes", {"clock": "ahead"}, id=f"{ahead}-7")
            run.dead_letters = 1
            run.load.wait_for_votes()
            with run.load.paused():
                expect_soon("all is counted", lambda: run.system.backlog() == (0, 0), 20)
                last = EntryId.parse(broker.xinfo_stream("votes")["last-generated-id"])
                expect(last > (ahead, 7), f"votes were not an hour ahead: {last}")
                broker.delete("votes")
                deleted = time.monotonic()
        run.expect_accepted_soon(deleted, config.time_limit(10))
        run.load.wait_for_votes(300)
        receipts = [EntryId.parse(a.receipt.encode()) for a in run.history.attempts if a.ended > deleted and a.receipt]
        expect(min(receipts) > last, f"the new stream began at {min(receipts)}, before {last}")
    return run.notes


def memory_full(config: RunConfig) -> dict[str, object]:
    """Workers are stopped until the broker nears its memory limit; then they must count with what is left."""
    with run_under_load(config, drain=30, valkey=("--maxmemory", "32mb")) as run:
        system = run.system
        system.signal(signal.SIGSTOP, *system.workers)
        run.load.wait_for_votes(int(config.brief_or_full(300, 2000)))
        with system.broker() as broker:
            began = time.monotonic()
            ballast: list[str] = []
            while not run.history.count("refused", began):
                expect(time.monotonic() - began < 60, "it never refused a vote")
                ballast.append(f"ballast:{len(ballast)}")
                broker.set(ballast[-1], b"x" * 100_000)
                if _memory_share(broker.info()) > 0.8:
                    time.sleep(0.1)  # vote checks it once a second
            info = broker.info()
            expect(_memory_share(info) < 1, "it refused only when the broker was full")
            system.signal(signal.SIGCONT, *system.workers)
            expect_soon("it is drained", lambda: system.backlog() == (0, 0), config.time_limit(20))
            expect(broker.info()["evicted_keys"] == 0, "something was evicted")
            expect("broker.refused" not in system.log("vote"), "the broker had to refuse a vote itself")
            run.notes["refused at %"] = round(100 * _memory_share(info))
            broker.delete(*ballast)
    return run.notes


def _memory_share(info: dict[str, Any]) -> float:
    return float(info["used_memory"] / info["maxmemory"])


def broker_cut(config: RunConfig) -> dict[str, object]:
    """Packets between vote and broker vanish."""
    with run_under_load(config, proxy_broker=True) as run:
        for _ in range(int(config.brief_or_full(2, 5))):
            run.system.broker_proxies[0].block()
            began = time.monotonic()
            time.sleep(config.brief_or_full(4, 10))  # the length of the fault
            cut = [a for a in run.history.attempts if a.began > began + 0.1]
            expect(len(cut) > 20, "too few votes were tried to prove anything")
            other = [a for a in cut if a.outcome != "refused"]
            expect(not other, f"{len(other)} answers were no refusals: {other[:1]}")
            waiting = run.system.metric("vote", "voting_votes_in_flight")
            expect(waiting <= VOTERS, f"{waiting} votes pile up")
            run.system.broker_proxies[0].unblock()
            unblocked = time.monotonic()
            run.expect_accepted_soon(unblocked, config.time_limit(2))
            run.load.wait_for_votes()
        _refuses_quickly(run)
    return run.notes


def flushed(config: RunConfig) -> dict[str, object]:
    """FLUSHALL when all votes are counted, as others would be lost; then the group destroyed under load."""
    with run_under_load(config) as run:
        before = run.system.pids()
        with run.system.broker() as broker:
            with run.load.paused():
                expect_soon("all is counted", lambda: run.system.backlog() == (0, 0), 20)
                broker.flushall()
            run.load.wait_for_votes()
            times = int(config.brief_or_full(3, 10))
            for _ in range(times):
                expect_soon(
                    "the group is there",
                    lambda: broker.exists("votes") and broker.xinfo_groups("votes"),
                    config.time_limit(10),
                )
                expect(broker.xgroup_destroy("votes", "workers"), "there was no group to destroy")
                run.load.wait_for_votes(400)  # more than the second in which a log shows an event once
            expect_soon("the group is there", lambda: broker.xinfo_groups("votes"), config.time_limit(10))
        alarms = sum(run.system.log(name).count("stream.group_created") for name in run.system.workers)
        expect(alarms > times, f"{alarms} alarms were logged")
        expect(run.system.pids() == before, "a service was restarted")
    return run.notes
