"""The machine: what it is, and what processes take of it."""

import contextlib
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
ENDED = FileNotFoundError, ProcessLookupError


def describe() -> dict[str, str]:
    """What a reader has to know to compare."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "cpu": f"{os.cpu_count()} cores of {cpu}",
        "memory": f"{memory:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"Python {platform.python_version()}",
    }


def moment() -> dict[str, str]:
    """When, of what, and how busy the machine was before."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit.stdout.strip() or "unknown",
        "load": f"load {os.getloadavg()[0]:.1f}",
    }


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(*ENDED):
            for child in children.read_text().split():
                yield from family(int(child))


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and all below it, also those that ended, have taken."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(*ENDED):  # what it took is its parent's by now
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def memory_mib(pid: int) -> float:
    """Proportional set size of a process and all below it."""
    total = 0
    for each in family(pid):
        with contextlib.suppress(*ENDED):
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024


def allow_many_files() -> None:
    """As many open sockets as the system lets us have."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
