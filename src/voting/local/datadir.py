"""The data directory of `voting up`: private to the user, kept between runs, and used by one run at a time."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

MAX_SOCKET_PATH = 100  # bytes; the system's own limit is 104 to 108
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")  # needs no quoting in a URL or in PostgreSQL's lists
MAX_LOG = 5_000_000  # bytes
IS_ROOT = os.geteuid() == 0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class DirectoryInUse(Exception):
    """Another run uses the data directory; the message names its process."""


class DataDir:
    """The data directory.

    run/: process ids, sockets, the lock. log/: a file for each part. valkey/, postgres/: the stores. secret_key,
    admin_key: see `key_file`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.run, self.log = self.root / "run", self.root / "log"
        self.valkey, self.postgres = self.root / "valkey", self.root / "postgres"
        self.sockets = self.run
        self._lock = -1

    def open(self) -> None:
        """Create what is missing and lock the directory.

        Raises:
            DirectoryInUse: another run has the lock.
            OSError: it cannot be created or written.
        """
        # Root's PostgreSQL runs as another user, who needs to traverse the directories but not to list them.
        shared = 0o711 if IS_ROOT else 0o700
        for folder, mode in ((self.root, shared), (self.run, shared), (self.log, 0o700), (self.valkey, 0o700)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        self._lock = os.open(self.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self.pid("up")
            message = f"already runs with {self.root}, process {holder}: stop it, or choose another --data"
            raise DirectoryInUse(message) from None
        self.sockets = self._socket_directory(shared)
        self.write_pid("up", os.getpid())

    def _socket_directory(self, mode: int) -> Path:
        """Return `run/`, or a private temporary directory if that path is too long for a socket or needs quoting."""
        longest = str(self.run / "postgres" / ".s.PGSQL.5432.lock")
        if len(longest) <= MAX_SOCKET_PATH and PLAIN.fullmatch(longest):
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        directory = Path(tempfile.gettempdir()) / f"voting-{os.geteuid()}-{digest}"
        directory.mkdir(mode=mode, exist_ok=True)
        if directory.is_symlink() or directory.stat().st_uid != os.geteuid():
            raise OSError(f"{directory} belongs to another user; remove it, or choose a shorter --data")
        directory.chmod(mode)
        return directory

    def key_file(self, name: str) -> Path:
        """Return the file of a key: `secret_key` signs cookies, `admin_key` opens admin. It is created at first use."""
        path = self.root / name
        if not path.exists():
            _write(path, secrets.token_hex(32))
        return path

    def pid(self, name: str) -> int | None:
        try:
            return int((self.run / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write_pid(self, name: str, pid: int) -> None:
        _write(self.run / f"{name}.started", identity(pid) or "")
        _write(self.run / f"{name}.pid", f"{pid}\n")

    def remove_pid(self, name: str) -> None:
        (self.run / f"{name}.pid").unlink(missing_ok=True)
        (self.run / f"{name}.started").unlink(missing_ok=True)

    def running_pid(self, name: str) -> int | None:
        """Return the process id of a part if that process is running."""
        pid = self.pid(name)
        try:
            started = (self.run / f"{name}.started").read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        return pid if pid and started and identity(pid) == started else None

    def orphans(self) -> list[str]:
        """Return the names of running parts of a `voting up` that was killed."""
        names = sorted(file.stem for file in self.run.glob("*.pid"))
        return [name for name in names if name != "up" and self.running_pid(name)]

    def log_file(self, name: str) -> Path:
        """Return the log file of a part, which must be opened for appending."""
        return self.log / f"{name}.log"

    def rotate_logs(self) -> None:
        """Move the contents of each log larger than `MAX_LOG` into `<name>.log.1`, replacing that file.

        Parts keep their files open, so the contents are copied and the file is truncated; lines written in between are
        lost. A part's two files have at most twice `MAX_LOG`, plus what it writes between two calls.
        """
        for path in self.log.glob("*.log"):
            with contextlib.suppress(OSError), path.open("r+b") as log:  # the disk is full, so logs do not grow either
                if os.fstat(log.fileno()).st_size > MAX_LOG:
                    with path.with_suffix(".log.1").open("wb") as old:
                        while log.tell() < os.fstat(log.fileno()).st_size:
                            shutil.copyfileobj(log, old)
                            old.flush()
                        log.truncate(0)

    def write_state(self, state: dict[str, object]) -> None:
        _write(self.run / "state.json", json.dumps(state, indent=2))

    def close(self) -> None:
        (self.run / "state.json").unlink(missing_ok=True)
        self.remove_pid("up")
        os.close(self._lock)


def identity(pid: int) -> str | None:
    """Return a text that identifies a process even if its id is reused: its start time, on Linux in ticks since boot.

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


def _write(path: Path, text: str) -> None:
    """Write a private file, atomically."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.rename(path)
