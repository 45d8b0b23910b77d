"""The data directory of `voting up`: what it keeps between runs, private to the user, and used by one run at a time."""

import fcntl
import hashlib
import json
import os
import re
import secrets
import subprocess
import tempfile
from pathlib import Path

MAX_SOCKET_PATH = 100  # bytes; the system's own limit is 104 to 108
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")  # what means itself in a URL, and in PostgreSQL's lists
MAX_LOG = 5_000_000
IS_ROOT = os.geteuid() == 0


class Busy(Exception):
    """Another run uses the directory; the message names its process."""


class DataDir:
    """The directory `root` and what is in it.

    run/: process ids, sockets, the lock. log/: a file for each part. valkey/, postgres/: the stores. secret_key.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.run, self.log = self.root / "run", self.root / "log"
        self.valkey, self.postgres = self.root / "valkey", self.root / "postgres"
        self.sockets = self.run
        self._lock = -1

    def open(self) -> None:
        """Make what is missing and lock it.

        Raises:
            Busy: another run has it.
            OSError: it cannot be made or written.
        """
        # Root's PostgreSQL runs as another user, who has to pass through, but cannot look around.
        passage = 0o711 if IS_ROOT else 0o700
        for folder, mode in ((self.root, passage), (self.run, passage), (self.log, 0o700), (self.valkey, 0o700)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
        self._lock = os.open(self.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = self.pid("up")
            raise Busy(f"already runs with {self.root}, process {who}: stop that, or choose another --data") from None
        self.sockets = self._place_for_sockets(passage)
        self.write_pid("up", os.getpid())

    def _place_for_sockets(self, mode: int) -> Path:
        """`run/`, or where its path is too long for a socket or odd in a URL, a private directory with a plain one."""
        longest = str(self.run / "postgres" / ".s.PGSQL.5432.lock")
        if len(longest) <= MAX_SOCKET_PATH and PLAIN.fullmatch(longest):
            return self.run
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        place = Path(tempfile.gettempdir()) / f"voting-{os.geteuid()}-{digest}"
        place.mkdir(mode=mode, exist_ok=True)
        if place.is_symlink() or place.stat().st_uid != os.geteuid():
            raise OSError(f"{place} belongs to somebody else; remove it, or choose a shorter --data")
        place.chmod(mode)
        return place

    def secret_key_file(self) -> Path:
        """The file with the key that signs cookies; made at first use."""
        path = self.root / "secret_key"
        if not path.exists():
            draft = path.with_suffix(".new")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
            draft.rename(path)
        return path

    def pid(self, name: str) -> int | None:
        """The process id that a part had when it was last started."""
        try:
            return int((self.run / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write_pid(self, name: str, pid: int) -> None:
        """Note the process id of a part."""
        draft = self.run / f"{name}.pid.new"
        draft.write_text(f"{pid}\n")
        draft.rename(self.run / f"{name}.pid")

    def forget_pid(self, name: str) -> None:
        """The part has ended."""
        (self.run / f"{name}.pid").unlink(missing_ok=True)

    def leftovers(self) -> list[tuple[str, int]]:
        """Parts of an earlier run that was killed and could not end them: name and process id of each."""
        found = []
        for file in sorted(self.run.glob("*.pid")):
            name = file.stem
            pid = self.pid(name)
            if name != "up" and pid and _runs(pid, name):
                found.append((name, pid))
        return found

    def log_file(self, name: str) -> Path:
        """Where a part writes its log; a large one is put aside when it is opened."""
        path = self.log / f"{name}.log"
        if path.exists() and path.stat().st_size > MAX_LOG:
            path.rename(path.with_suffix(".log.1"))
        return path

    def write_state(self, state: dict[str, object]) -> None:
        """Leave word for `voting status`."""
        path = self.run / "state.json"
        path.write_text(json.dumps(state, indent=2))
        path.chmod(0o600)

    def close(self) -> None:
        """Nothing runs any more."""
        (self.run / "state.json").unlink(missing_ok=True)
        self.forget_pid("up")
        os.close(self._lock)


def _runs(pid: int, name: str) -> bool:
    """Whether that process is the part of that name; a process id may have been given to another since."""
    found = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    mark = {"valkey": "valkey-server", "postgres": "postgres"}.get(name, f"-m voting {name.partition('-')[0]}")
    return mark in found.stdout
