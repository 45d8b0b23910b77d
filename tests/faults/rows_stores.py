"""Faults of the broker, the database, and the network to them."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from tests.conftest import require
from tests.faults.load import VOTERS
from tests.faults.plant import Plant
from tests.faults.trial import Broken, Case, Trial, must, soon, trial
from tests.waiting import eventually
from voting.polls import EntryId


def broker_killed(case: Case) -> dict[str, object]:
    """Valkey killed (-9) again and again under load."""
    with trial(case) as now:
        for _ in range(int(case.short(3, 10))):
            now.plant.kill("valkey")
            began = time.monotonic()
            soon("votes are refused", lambda began=began: now.history.count("refused", began) >= 10, case.mark(2))  # type: ignore[misc]
            now.plant.start("valkey")
            now.plant.wait_ready("valkey")
            ready = time.monotonic()
            soon("votes are accepted again", lambda ready=ready: now.history.count("ok", ready), case.mark(2))  # type: ignore[misc]
            now.load.goes_on()
        _refuses_quickly(now)
    return now.notes


def _refuses_quickly(now: Trial) -> None:
    """Check that no refusal took longer than a second, but for what this machine itself was late."""
    slowest = max((a.ended - a.began for a in now.history.attempts if a.outcome == "refused"), default=0)
    now.notes["slowest refusal s"] = round(slowest, 2)
    must(slowest <= now.case.mark(1.1) + now.load.late, f"a refusal took {slowest:.2f} s")


@contextlib.contextmanager
def stalled(pid: int, seconds: float) -> Iterator["subprocess.Popen[bytes]"]:
    """Let each fsync of a process begin that much later."""
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


def fsync_stalls(case: Case) -> dict[str, object]:
    """The broker's fsync stalls, then it is killed; and with `everysec`, as a control, votes are lost."""
    with trial(case) as now:
        for _ in range(int(case.short(1, 3))):
            _stall_and_kill(now)
            now.load.goes_on()
    control = replace(case, folder=case.folder / "control")
    control.folder.mkdir()
    violations: tuple[str, ...] = ()
    try:
        with trial(control, valkey=("--appendfsync", "everysec")) as other:
            for _ in range(2):
                _stall_and_kill(other, votes=100)
                other.load.goes_on()
    except Broken as broken:
        violations = broken.violations
    lost = [each for each in violations if each[0] in "12"]
    must(lost, f"the control with everysec lost nothing, so this proves nothing: {violations}")
    return now.notes | {"control lost": len(lost)}


def _stall_and_kill(now: Trial, votes: int = 0) -> None:
    """Kill the broker while its fsync stalls; first wait, if told so, for votes that are accepted nevertheless.

    Else it is stopped for a moment before, so that many votes are on its disk and unanswered when it is killed. Workers
    sleep meanwhile, so that what is lost cannot have been counted before.
    """
    plant = now.plant
    plant.signal(signal.SIGSTOP, *plant.workers)
    now.load.goes_on(20)
    if not votes:
        plant.signal(signal.SIGSTOP, "valkey")
    began = time.monotonic()
    with stalled(plant.processes["valkey"].pid, 5) as tracer:
        if not votes:
            time.sleep(max(0.0, began + 0.5 - time.monotonic()))  # votes come meanwhile
            plant.signal(signal.SIGCONT, "valkey")
        time.sleep(now.case.short(1.5, 4))  # with everysec it takes a second until the next fsync begins, and stalls
        if votes:
            now.load.goes_on(votes)
        else:
            yes = now.history.count("ok", time.monotonic() - 0.5)
            must(not yes, f"{yes} votes were accepted: the stall did not happen")
            silent = sum(a.ended - a.began > 0.5 for a in now.history.attempts if a.began > began)
            must(silent >= 10, f"only {silent} votes were under way")
        plant.signal(signal.SIGKILL, "valkey")
        tracer.kill()  # or it would keep the dead until the stall is over
        plant.processes["valkey"].wait(10)
    plant.start("valkey")
    plant.wait_ready("valkey")
    plant.signal(signal.SIGCONT, *plant.workers)


def database_restarted(case: Case) -> dict[str, object]:
    """PostgreSQL goes down at once again and again, and its connections are cut."""
    with trial(case, drain=10) as now:
        before = now.plant.pids()
        for _ in range(int(case.short(2, 5))):
            now.plant.signal(signal.SIGQUIT, "postgres")
            now.plant.processes["postgres"].wait(10)
            gone = time.monotonic()
            soon("result says that it is stale", lambda: now.plant.results()["stale_since"], case.mark(3))
            now.load.goes_on(200)
            now.goes_unnoticed(gone, "while only the database was away")
            now.plant.start("postgres")
            now.plant.wait_ready("postgres")
            soon("result is fresh again", lambda: now.plant.results()["stale_since"] is None, case.mark(5))
            now.plant.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            now.load.goes_on()
        must(now.plant.pids() == before, "a process of ours was restarted")
    return now.notes


def read_only(case: Case) -> dict[str, object]:
    """The database takes no writes for a while, as in a failover."""
    switch = "ALTER DATABASE voting SET default_transaction_read_only = {}"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"

    def change(now: Trial, to: str) -> None:
        with psycopg.connect(now.plant.database_url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(switch.format(to).encode())
            connection.execute(end)

    with trial(case, drain=10) as now:
        before = now.plant.pids()
        for _ in range(int(case.short(1, 3))):
            change(now, "on")
            began = time.monotonic()
            soon("result says that counting pauses", lambda: now.plant.results()["paused_since"], 10)
            now.load.goes_on(int(case.short(500, 1500)))
            now.goes_unnoticed(began, "while only the database could not be written")
            change(now, "off")
            soon("counting goes on", lambda: now.plant.results()["paused_since"] is None, 10, bound=True)
        must(now.plant.pids() == before, "a process of ours was restarted")
    return now.notes


def database_cut(case: Case) -> dict[str, object]:
    """Packets between workers and database vanish."""
    with trial(case, drain=15, cut_database=True) as now:
        noticed = {name: _interruptions(now.plant, name) for name in now.plant.workers}
        now.plant.database_proxy.silence()
        began = time.monotonic()
        for name, times in noticed.items():
            soon(
                f"{name} notices",
                lambda name=name, times=times: _interruptions(now.plant, name) > times,  # type: ignore[misc]
                case.mark(10) - (time.monotonic() - began),
            )
        now.notes["noticed after s"] = round(time.monotonic() - began, 1)
        time.sleep(max(0.0, began + case.short(10, 30) - time.monotonic()))  # the row's own length
        must(now.plant.waiting()[0] > 0, "nothing waited: the cut did not happen")
        now.goes_unnoticed(began, "while only the database was cut off")
        now.plant.database_proxy.heal()
    return now.notes


def _interruptions(plant: Plant, worker: str) -> int:
    return plant.log(worker).count("worker.interrupted")


def answer_lost(case: Case) -> dict[str, object]:
    """The database commits, and its answer is lost with the connection."""
    with trial(case, cut_database=True) as now:
        proxy = now.plant.database_proxy
        for number in range(int(case.short(5, 20))):
            proxy.lose_answer_to = b'{"default"'
            soon("an answer is lost", lambda number=number: proxy.lost > number, 20)  # type: ignore[misc]
            now.load.goes_on(50)
        now.notes["answers lost"] = proxy.lost
    return now.notes


def database_slow(case: Case) -> dict[str, object]:
    """Each answer of the database takes half a second longer; then a lock holds every worker up."""
    with trial(case, drain=20, cut_database=True) as now:
        seconds = case.short(4, 20)
        before = now.latencies(seconds)
        memory = _memory(now.plant)
        now.plant.database_proxy.delay = 0.5
        slow = now.latencies(seconds)
        now.plant.database_proxy.delay = 0
        with now.plant.database() as database:
            database.execute("BEGIN")
            database.execute("LOCK TABLE votes IN EXCLUSIVE MODE")
            locked = now.latencies(case.short(5, 20))
            must(now.plant.waiting()[0] > 300, "too little waited: the lock held nobody up")
            database.execute("ROLLBACK")
        now.load.goes_on()
        grown = _memory(now.plant) - memory
        now.notes |= {
            "p99 ms": [round(1000 * each) for each in (before, slow, locked)],
            "workers grew MiB": round(grown),
        }
        limit = max(1.2 * before, before + case.short(0.25, 0.025))  # a fifth of few milliseconds is noise
        must(max(slow, locked) <= limit, f"p99 of voting went from {before:.3f} to {max(slow, locked):.3f} s")
        must(grown < 60, f"the workers grew by {grown:.0f} MiB")
    return now.notes


def _memory(plant: Plant) -> float:
    return sum(plant.memory(name) for name in plant.workers)


def ids_go_back(case: Case) -> dict[str, object]:
    """The broker's clock was an hour ahead, and no longer is when the stream is lost: later votes still win."""
    with trial(case) as now:
        with now.plant.broker() as broker:
            ahead = int(time.time() * 1000) + 3_600_000
            broker.xadd("votes", {"clock": "ahead"}, id=f"{ahead}-7")
            now.dead_letters = 1
            now.load.goes_on()
            with now.load.held():
                soon("all is counted", lambda: now.plant.waiting() == (0, 0), 20)
                last = EntryId.parse(broker.xinfo_stream("votes")["last-generated-id"])
                must(last > (ahead, 7), f"votes were not an hour ahead: {last}")
                broker.delete("votes")
                deleted = time.monotonic()
        soon("votes are accepted again", lambda: now.history.count("ok", deleted), case.mark(10))
        now.load.goes_on(300)
        receipts = [EntryId.parse(a.receipt.encode()) for a in now.history.attempts if a.ended > deleted and a.receipt]
        must(min(receipts) > last, f"the new stream began at {min(receipts)}, before {last}")
    return now.notes


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int, owner: str) -> Iterator[Path]:
    """A file system of its own, so that it can be filled."""
    if os.geteuid() != 0:
        raise Broken("needs root, to mount a small file system")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        shutil.chown(folder, owner)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave not a byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return ballast


def disk_full(case: Case) -> dict[str, object]:
    """No room for the broker, then none for the database."""
    place = case.folder / "plant"
    with small_disk(place / "valkey", 64, "root"), trial(case) as now:
        ballast = fill(place / "valkey")
        began = time.monotonic()
        soon("votes are refused", lambda: now.history.count("refused", began) >= 20, 20)
        ballast.unlink()
        freed = time.monotonic()
        now.plant.revive("valkey")  # which rather ends than say yes to what it cannot write
        soon("votes are accepted again", lambda: now.history.count("ok", freed), case.mark(10))
        now.load.goes_on()
    notes = {"broker": now.notes, "accepted": now.notes["accepted"]}
    other = replace(case, folder=case.folder / "database")
    place = other.folder / "plant" / "postgres"
    with small_disk(place, 250, "nobody"), trial(other, drain=10) as now:
        ballast = fill(place)
        began = time.monotonic()
        soon("the full disk holds counting up", lambda: _uses_up_room(now.plant) or now.plant.waiting()[0] > 300, 60)
        now.goes_unnoticed(began, "though the broker had room")
        ballast.unlink()
        now.plant.revive("postgres")
        now.load.goes_on()
    return notes | {"database": now.notes}


def _uses_up_room(plant: Plant) -> bool:
    """PostgreSQL still has room in files that it made before: press on until it has none."""
    with contextlib.suppress(psycopg.Error):
        plant.rows("CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 10000); SELECT 1")
    return False


def memory_full(case: Case) -> dict[str, object]:
    """Workers sleep, and the broker nears its limit; they wake up, and have to count with the little that is left."""
    with trial(case, drain=30, valkey=("--maxmemory", "32mb")) as now:
        plant = now.plant
        plant.signal(signal.SIGSTOP, *plant.workers)
        now.load.goes_on(int(case.short(300, 2000)))
        with plant.broker() as broker:
            began = time.monotonic()
            ballast: list[str] = []
            while not now.history.count("refused", began):
                must(time.monotonic() - began < 60, "it never refused a vote")
                ballast.append(f"ballast:{len(ballast)}")
                broker.set(ballast[-1], b"x" * 100_000)
                if _memory_share(broker.info()) > 0.8:
                    time.sleep(0.1)  # vote looks once a second
            info = broker.info()
            must(_memory_share(info) < 1, "it refused only when the broker was full")
            plant.signal(signal.SIGCONT, *plant.workers)
            soon("it is drained", lambda: plant.waiting() == (0, 0), case.mark(20))
            must(broker.info()["evicted_keys"] == 0, "something was evicted")
            must("broker.refused" not in plant.log("vote"), "the broker had to refuse a vote itself")
            now.notes["refused at %"] = round(100 * _memory_share(info))
            broker.delete(*ballast)
    return now.notes


def _memory_share(info: dict[str, Any]) -> float:
    return float(info["used_memory"] / info["maxmemory"])


def broker_cut(case: Case) -> dict[str, object]:
    """Packets between vote and broker vanish."""
    with trial(case, cut_broker=True) as now:
        for _ in range(int(case.short(2, 5))):
            now.plant.broker_proxy.silence()
            began = time.monotonic()
            time.sleep(case.short(4, 10))  # the row's own length
            cut = [a for a in now.history.attempts if a.began > began + 0.1]
            must(len(cut) > 20, "too few votes were tried to prove anything")
            other = [a for a in cut if a.outcome != "refused"]
            must(not other, f"{len(other)} answers were no refusals: {other[:1]}")
            waiting = now.plant.metric("vote", "voting_votes_in_flight")
            must(waiting <= VOTERS, f"{waiting} votes pile up")
            now.plant.broker_proxy.heal()
            healed = time.monotonic()
            soon("votes are accepted again", lambda healed=healed: now.history.count("ok", healed), case.mark(2))  # type: ignore[misc]
            now.load.goes_on()
        _refuses_quickly(now)
    return now.notes


def flushed(case: Case) -> dict[str, object]:
    """FLUSHALL once all is counted, since what is not is lost with it; and the group destroyed under load."""
    with trial(case) as now:
        before = now.plant.pids()
        with now.plant.broker() as broker:
            with now.load.held():
                soon("all is counted", lambda: now.plant.waiting() == (0, 0), 20)
                broker.flushall()
            now.load.goes_on()
            times = int(case.short(3, 10))
            for _ in range(times):
                soon(
                    "the group is there", lambda: broker.exists("votes") and broker.xinfo_groups("votes"), case.mark(10)
                )
                must(broker.xgroup_destroy("votes", "workers"), "there was no group to destroy")
                now.load.goes_on(400)  # more than the second in which a log shows an event once
            soon("the group is there", lambda: broker.xinfo_groups("votes"), case.mark(10))
        alarms = sum(now.plant.log(name).count("stream.group_created") for name in now.plant.workers)
        must(alarms > times, f"{alarms} alarms were logged")
        must(now.plant.pids() == before, "a process of ours was restarted")
    return now.notes
