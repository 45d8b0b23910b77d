"""Which process a process id means: the system gives the id of one that has ended to another."""

import subprocess
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int) -> str | None:
    """Return a text that no other process has: when it was started, on Linux in clock ticks of this boot.

    None if there is no such process, or it has ended and only its parent has not noticed. Source: proc_pid_stat(5),
    fields 3 and 22, counted after the name, which may contain anything; elsewhere ps(1).
    """
    if _BOOT.exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in {b"Z", b"X"} else f"{_BOOT.read_text('ascii').strip()} {int(fields[19])}"
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env={"LC_ALL": "C"})  # noqa: S603
    state, _, started = found.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
