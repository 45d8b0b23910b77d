"""The data directory: private files, written atomically, rotated logs, and orphans that are identified."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually
from voting.local import datadir
from voting.local.datadir import DataDir, identity
from voting.local.supervisor import Failed, Part, Supervisor, stop_orphan

pytestmark = pytest.mark.anyio


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    opened = DataDir(tmp_path / "data")
    opened.open()
    yield opened
    opened.close()


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that looks like a worker."""
    program = "import time; print(flush=True); time.sleep(600)"
    command = [sys.executable, "-c", program, "-m", "voting", "worker"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as started:
        assert started.stdout
        started.stdout.readline()
        yield started
        started.kill()


@pytest.fixture(params=["Linux", "ps"])
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to identify a process: that of Linux, and that of other systems."""
    if request.param == "ps":
        monkeypatch.setattr("voting.local.datadir._BOOT", Path("/nowhere"))


@pytest.mark.usefixtures("_system")
def test_an_orphan_is_the_process_that_was_started_and_no_other(
    data: DataDir, process: "subprocess.Popen[bytes]"
) -> None:
    data.write_pid("worker-1", process.pid)
    assert (data.run / "worker-1.pid").read_text() == f"{process.pid}\n"
    assert data.orphans() == ["worker-1"]
    (data.run / "worker-1.started").write_text(identity(1) or "")  # the id was given to another since
    assert data.orphans() == []
    (data.run / "worker-1.started").unlink()
    assert data.orphans() == []
    data.write_pid("worker-1", process.pid)
    process.kill()
    eventually(lambda: identity(process.pid) is None)  # though nobody has waited for it
    assert data.orphans() == []


def test_a_name_with_blanks_and_brackets_does_not_hide_when_a_process_was_started(tmp_path: Path) -> None:
    (tmp_path / "a) R 1 (b").symlink_to("/bin/sleep")
    with subprocess.Popen([str(tmp_path / "a) R 1 (b"), "600"]) as started:
        assert (identity(started.pid) or "").split()[1].isdigit()
        assert int((identity(started.pid) or "").split()[1]) >= int((identity(os.getpid()) or "").split()[1])
        started.kill()


async def test_an_orphan_is_stopped_and_one_that_ends_meanwhile_or_is_not_ours_is_no_traceback(
    data: DataDir, process: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    data.write_pid("worker-1", process.pid)
    with monkeypatch.context() as patched:
        patched.setattr(os, "kill", refuse)
        with pytest.raises(Failed, match=f"process {process.pid}\\) of an earlier run belongs to another user"):
            await stop_orphan(data, "worker-1")
    await stop_orphan(data, "worker-1")
    assert await asyncio.to_thread(process.wait, 10) == -signal.SIGTERM
    pids = iter([process.pid])
    monkeypatch.setattr(data, "running_pid", lambda _: next(pids, None))
    await stop_orphan(data, "worker-1")
    assert not (data.run / "worker-1.pid").exists()


def test_the_state_is_private_and_there_only_whole(data: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data.run / "state.json"
    data.write_state({"redis_url": "unix:///old"})
    seen = []

    def rename(draft: Path, target: Path) -> None:
        seen.append((draft.stat().st_mode & 0o777, json.loads(draft.read_text()), json.loads(path.read_text())))
        os.rename(draft, target)  # noqa: PTH104 - the method is replaced

    monkeypatch.setattr(Path, "rename", rename)
    old = os.umask(0)
    data.write_state({"redis_url": "unix:///new"})
    os.umask(old)
    assert seen == [(0o600, {"redis_url": "unix:///new"}, {"redis_url": "unix:///old"})]
    assert path.stat().st_mode & 0o777 == 0o600


WRITER = """
import os, sys, time
from pathlib import Path
os.write(2, "".join(f"{number:099}\\n" for number in range(70_000)).encode())
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)
print("the last line", flush=True)
time.sleep(600)
"""


async def test_a_large_log_is_rotated_while_it_is_written_and_no_line_is_lost(data: DataDir, tmp_path: Path) -> None:
    async def is_ready() -> bool:
        return True

    supervisor = Supervisor(data, lambda _: None)
    log, old = data.log / "writer.log", data.log / "writer.log.1"
    written = "".join(f"{number:099}\n" for number in range(70_000))

    def moved() -> bool:
        return old.read_text() + log.read_text() == written and old.stat().st_size > datadir.MAX_LOG

    try:
        await supervisor.start(Part("writer", [sys.executable, "-c", WRITER, str(tmp_path / "go")], is_ready))
        await asyncio.to_thread(eventually, moved)
        rest = log.read_text()
        (tmp_path / "go").touch()
        await asyncio.to_thread(eventually, lambda: log.read_text() == f"{rest}the last line\n")
    finally:
        await supervisor.stop()


def test_what_is_rotated_replaces_what_was_rotated_before(data: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datadir, "MAX_LOG", 10)
    log, old = data.log_file("vote"), data.log / "vote.log.1"
    for text, kept in (
        ("1234567890", None),
        ("a", "1234567890a"),
        ("bcd", "1234567890a"),
        ("efghijklm", "bcdefghijklm"),
    ):
        with log.open("a") as file:
            file.write(text)
        data.rotate_logs()
        assert (old.read_text() if old.exists() else None) == kept
    assert log.read_text() == ""
