"""The identity of a process, since the system reuses process ids."""

import subprocess
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int) -> str | None:
    """Return a text unique to the process with this id: its start time, on Linux in clock ticks of this boot.

    None if there is no such process, or it is a zombie. Source: proc_pid_stat(5), fields 3 and 22, counted after the
    name, which may have any characters; on other systems ps(1).
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
