"""The machine: its description, and the CPU time and memory of processes."""

import contextlib
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROCESS_GONE = FileNotFoundError, ProcessLookupError


def machine_info() -> dict[str, str]:
    """Return what a reader has to know to compare results."""
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


def run_info() -> dict[str, str]:
    """Return the date, the commit, and the load before the run."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "commit": commit.stdout.strip() or "unknown",
        "load": f"load {os.getloadavg()[0]:.1f}",
    }


def process_tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(*PROCESS_GONE):
            for child in children.read_text().split():
                yield from process_tree(int(child))


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and all its descendants, ended ones included."""
    total = 0
    for each in process_tree(pid):
        with contextlib.suppress(*PROCESS_GONE):  # its time is counted with its parent by now
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def memory_mib(pid: int) -> float:
    """Return the proportional set size of a process and all its descendants."""
    total = 0
    for each in process_tree(pid):
        with contextlib.suppress(*PROCESS_GONE):
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024


def allow_many_files() -> None:
    """Raise the limit of open files to the maximum."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
