"""Faults of the database and of the network to it, and full disks."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg

from tests.faults.run import RowFailed, Run, RunConfig, expect, expect_soon, run_under_load
from tests.faults.system import SystemUnderTest


def database_restarted(config: RunConfig) -> dict[str, object]:
    """PostgreSQL shut down at once, again and again, and its connections ended."""
    with run_under_load(config, drain=10) as run:
        before = run.system.pids()
        for _ in range(int(config.brief_or_full(2, 5))):
            run.system.signal(signal.SIGQUIT, "postgres")
            run.system.processes["postgres"].wait(10)
            gone = time.monotonic()
            expect_soon(
                "result says that it is stale", lambda: run.system.results()["stale_since"], config.time_limit(3)
            )
            run.load.wait_for_votes(200)
            run.expect_no_refusals(gone, "while only the database was away")
            run.system.start("postgres")
            run.system.wait_ready("postgres")
            expect_soon(
                "result is fresh again", lambda: run.system.results()["stale_since"] is None, config.time_limit(5)
            )
            run.system.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            run.load.wait_for_votes()
        expect(run.system.pids() == before, "a service was restarted")
    return run.notes


def read_only(config: RunConfig) -> dict[str, object]:
    """The database is read-only for a while, as in a failover."""
    switch = "ALTER DATABASE voting SET default_transaction_read_only = {}"
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"

    def change(run: Run, to: str) -> None:
        with psycopg.connect(run.system.database_url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(switch.format(to).encode())
            connection.execute(end)

    with run_under_load(config, drain=10) as run:
        before = run.system.pids()
        for _ in range(int(config.brief_or_full(1, 3))):
            change(run, "on")
            began = time.monotonic()
            expect_soon("result says that counting pauses", lambda: run.system.results()["paused_since"], 10)
            run.load.wait_for_votes(int(config.brief_or_full(500, 1500)))
            run.expect_no_refusals(began, "while only the database could not be written")
            change(run, "off")
            expect_soon("counting goes on", lambda: run.system.results()["paused_since"] is None, 10, is_violation=True)
        expect(run.system.pids() == before, "a service was restarted")
    return run.notes


def database_cut(config: RunConfig) -> dict[str, object]:
    """Packets between workers and database vanish."""
    with run_under_load(config, drain=15, proxy_database=True) as run:
        noticed = {name: _interruptions(run.system, name) for name in run.system.workers}
        run.system.database_proxy.block()
        began = time.monotonic()
        for name, times in noticed.items():
            expect_soon(
                f"{name} notices",
                lambda name=name, times=times: _interruptions(run.system, name) > times,  # type: ignore[misc]
                config.time_limit(10) - (time.monotonic() - began),
            )
        run.notes["noticed after s"] = round(time.monotonic() - began, 1)
        time.sleep(max(0.0, began + config.brief_or_full(10, 30) - time.monotonic()))  # the length of the fault
        expect(run.system.backlog()[0] > 0, "nothing waited: the cut did not happen")
        run.expect_no_refusals(began, "while only the database was cut off")
        run.system.database_proxy.unblock()
    return run.notes


def _interruptions(system: SystemUnderTest, worker: str) -> int:
    return system.log(worker).count("worker.interrupted")


def answer_lost(config: RunConfig) -> dict[str, object]:
    """The database commits, and its answer is lost with the connection."""
    with run_under_load(config, proxy_database=True) as run:
        proxy = run.system.database_proxy
        for number in range(int(config.brief_or_full(5, 20))):
            proxy.lose_answer_to = (b'{"default"',)
            expect_soon("an answer is lost", lambda number=number: proxy.lost > number, 20)  # type: ignore[misc]
            run.load.wait_for_votes(50)
        run.notes["answers lost"] = proxy.lost
    return run.notes


def database_slow(config: RunConfig) -> dict[str, object]:
    """Each answer of the database delayed by half a second; then a lock that blocks every worker."""
    with run_under_load(config, drain=20, proxy_database=True) as run:
        seconds = config.brief_or_full(4, 20)
        before = run.measure_p99(seconds)
        memory = _memory(run.system)
        run.system.database_proxy.delay = 0.5
        slow = run.measure_p99(seconds)
        run.system.database_proxy.delay = 0
        with run.system.database() as database:
            database.execute("BEGIN")
            database.execute("LOCK TABLE votes IN EXCLUSIVE MODE")
            locked = run.measure_p99(config.brief_or_full(5, 20))
            expect(run.system.backlog()[0] > 300, "too few votes waited: the lock did not block the workers")
            database.execute("ROLLBACK")
        run.load.wait_for_votes()
        grown = _memory(run.system) - memory
        run.notes |= {
            "p99 ms": [round(1000 * each) for each in (before, slow, locked)],
            "workers grew MiB": round(grown),
        }
        limit = max(1.2 * before, before + config.brief_or_full(0.25, 0.025))  # a fifth of a few milliseconds is noise
        limit += run.load.worst_delay
        run.require(max(slow, locked) <= limit, f"p99 of voting went from {before:.3f} to {max(slow, locked):.3f} s")
        run.require(grown < 60, f"the workers grew by {grown:.0f} MiB")
    return run.notes


def _memory(system: SystemUnderTest) -> float:
    return sum(system.memory(name) for name in system.workers)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int, owner: str) -> Iterator[Path]:
    """Mount a small file system, to be filled."""
    if os.geteuid() != 0:
        raise RowFailed("needs root, to mount a small file system")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        shutil.chown(folder, owner)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a file system to the last byte."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return ballast


def disk_full(config: RunConfig) -> dict[str, object]:
    """The disk of the broker full, then that of the database."""
    folder = config.folder / "system"
    with small_disk(folder / "valkey", 64, "root"), run_under_load(config) as run:
        ballast = fill(folder / "valkey")
        began = time.monotonic()
        run.expect_refused_soon(began, 20, 20)
        ballast.unlink()
        freed = time.monotonic()
        run.system.restart_until_ready("valkey")  # it ends when it cannot write, rather than accept a vote
        run.expect_accepted_soon(freed, config.time_limit(10))
        run.load.wait_for_votes()
    notes = {"broker": run.notes, "accepted": run.notes["accepted"]}
    other = replace(config, folder=config.folder / "database")
    folder = other.folder / "system" / "postgres"
    with small_disk(folder, 250, "nobody"), run_under_load(other, drain=10) as run:
        ballast = fill(folder)
        began = time.monotonic()
        expect_soon(
            "the full disk holds counting up", lambda: _uses_up_room(run.system) or run.system.backlog()[0] > 300, 60
        )
        run.expect_no_refusals(began, "though the broker had room")
        ballast.unlink()
        run.system.restart_until_ready("postgres")
        run.load.wait_for_votes()
    return notes | {"database": run.notes}


def _uses_up_room(system: SystemUnderTest) -> bool:
    """Write more, since PostgreSQL has room left in files that it made before; return False."""
    with contextlib.suppress(psycopg.Error):
        system.rows("CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 10000); SELECT 1")
    return False
