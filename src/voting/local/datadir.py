"""The data directory of `voting up`: what it keeps between runs, private to the user, and used by one run at a time."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from voting.local.identity import identity

MAX_SOCKET_PATH = 100  # bytes; the system's own limit is 104 to 108
PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")  # what means itself in a URL, and in PostgreSQL's lists
MAX_LOG = 5_000_000  # bytes
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
            _write(path, secrets.token_hex(32))
        return path

    def pid(self, name: str) -> int | None:
        """The process id that a part had when it was last started."""
        try:
            return int((self.run / f"{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def write_pid(self, name: str, pid: int) -> None:
        """Note the process id of a part, and beside it which process it is the id of."""
        _write(self.run / f"{name}.started", identity(pid) or "")
        _write(self.run / f"{name}.pid", f"{pid}\n")

    def forget_pid(self, name: str) -> None:
        """The part has ended."""
        (self.run / f"{name}.pid").unlink(missing_ok=True)
        (self.run / f"{name}.started").unlink(missing_ok=True)

    def still_runs(self, name: str) -> int | None:
        """Return the process id of a part if the process that was started under it still runs."""
        pid = self.pid(name)
        try:
            started = (self.run / f"{name}.started").read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        return pid if pid and started and identity(pid) == started else None

    def leftovers(self) -> list[str]:
        """Return the parts of an earlier run that was killed and could not end them."""
        names = sorted(file.stem for file in self.run.glob("*.pid"))
        return [name for name in names if name != "up" and self.still_runs(name)]

    def log_file(self, name: str) -> Path:
        """Return where a part writes its log; it must be opened for appending."""
        return self.log / f"{name}.log"

    def rotate_logs(self) -> None:
        """Move the contents of each log that has become large into `<name>.log.1`, whose contents go.

        The parts keep their files open, so the contents are copied and the file is truncated. A line that is written
        in the microseconds between the two is lost; nothing else is. Each part's two files together are as large as
        twice `MAX_LOG` and what it writes in between two calls.
        """
        for path in self.log.glob("*.log"):
            with contextlib.suppress(OSError), path.open("r+b") as log:  # a full disk: it cannot grow any further
                if os.fstat(log.fileno()).st_size > MAX_LOG:
                    with path.with_suffix(".log.1").open("wb") as old:
                        while log.tell() < os.fstat(log.fileno()).st_size:
                            shutil.copyfileobj(log, old)
                            old.flush()
                        log.truncate(0)

    def write_state(self, state: dict[str, object]) -> None:
        """Leave word for `voting status`."""
        _write(self.run / "state.json", json.dumps(state, indent=2))

    def close(self) -> None:
        """Nothing runs any more."""
        (self.run / "state.json").unlink(missing_ok=True)
        self.forget_pid("up")
        os.close(self._lock)


def _write(path: Path, text: str) -> None:
    """Write a file that is private, and is there only whole."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    draft.rename(path)
