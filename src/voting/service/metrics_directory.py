"""The directory in which the processes of a service collect their metrics.

https://prometheus.github.io/client_python/multiprocess/
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

UNLOCKED_SECONDS = 60.0  # far longer than a new directory stays unlocked


def share() -> None:
    """Create the directory, and remove unlocked ones, which killed processes have left.

    Call this before prometheus-client is imported. This process removes the directory when it exits.
    """
    prefix = f"voting-metrics-{os.geteuid()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime > UNLOCKED_SECONDS:
                os.close(_lock(folder))
                shutil.rmtree(folder)
    directory = tempfile.mkdtemp(prefix=prefix)
    _lock(directory)  # held until the last process that inherits it has ended
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory


def _lock(folder: str | Path) -> int:
    """Return a descriptor that holds the lock of a directory; raise OSError if another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
