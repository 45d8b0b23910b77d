"""Clocks of processes that can be stepped while the processes run, by libfaketime.

Only the time of day is changed: timeouts, which use the monotonic clock, stay as they are.
https://github.com/wolfcw/libfaketime
"""

from pathlib import Path

import pytest

from tests.conftest import require

LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"
SHARED = (
    "faketime_shm_{}",
    "sem.faketime_sem_{}",
)  # in /dev/shm, of each process, which removes them unless it is killed


class Clocks:
    """A clock for each name.

    `folder` is for their files, and is made. The test is skipped if libfaketime is missing.
    """

    def __init__(self, folder: Path) -> None:
        require("faketime", "faketime")
        found = sorted(Path("/").glob(LIBRARIES[1:]))
        if not found:
            pytest.skip(f"{LIBRARIES} is missing (Debian: apt install faketime)")
        self._library, self._folder = found[0], folder
        folder.mkdir()

    def environment(self, name: str) -> dict[str, str]:
        """Return the variables of a process that has this clock."""
        if not self._file(name).exists():
            self.step(name, 0)
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file(name)),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def step(self, name: str, seconds: float) -> None:
        """Set a clock this far ahead of the real time."""
        draft = self._file(name).with_suffix(".new")
        draft.write_text(f"{seconds:+.3f}\n")
        draft.replace(self._file(name))

    def remove(self, pid: int) -> None:
        """Remove what a process that has ended may have left in shared memory."""
        for name in SHARED:
            (Path("/dev/shm") / name.format(pid)).unlink(missing_ok=True)  # noqa: S108 - libfaketime's own

    def _file(self, name: str) -> Path:
        return self._folder / name
