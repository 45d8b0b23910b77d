"""TODO voting.service.metrics_directory."""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

UNLOCKED_SECONDS = 60.0  # far longer than a new directory of metrics stays without its lock


def share() -> None:
    """Let several processes of a service add up their metrics; to be called before prometheus-client is imported.

    They do it in a temporary directory, which this process removes at its end. It also removes those that killed
    processes left: nothing holds their lock. https://prometheus.github.io/client_python/multiprocess/
    """
    prefix = f"voting-metrics-{os.geteuid()}-"
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.lstat().st_mtime > UNLOCKED_SECONDS:
                os.close(_lock(folder))
                shutil.rmtree(folder)
    ours = tempfile.mkdtemp(prefix=prefix)
    _lock(ours)  # until the last process that shares it has ended
    atexit.register(shutil.rmtree, ours, ignore_errors=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = ours


def _lock(folder: str | Path) -> int:
    """Lock a directory of this user; return the descriptor that holds the lock.

    Raises:
        OSError: another process has it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
