"""The directory that the processes of one service share for their metrics."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import eventually
from voting.service import metrics_directory

PROGRAM = """
import os, signal, sys
from pathlib import Path
from voting.service import metrics_directory
metrics_directory.share()
from voting.vote.prefork import ProcessManager
async def main(stop):
    Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], f"{os.getpid()}.db").touch()
    await stop.wait()
ProcessManager(main, lambda pid: None).run(int(sys.argv[1]))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_it_is_removed_at_exit_and_that_of_a_killed_process_at_the_next_start(tmp_path: Path, processes: int) -> None:
    def start() -> subprocess.Popen[bytes]:
        environment = os.environ | {"TMPDIR": str(tmp_path)}  # noqa: TID251
        before = len(list(tmp_path.glob("*/*.db")))
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(processes)], env=environment)
        eventually(lambda: len(list(tmp_path.glob("*/*.db"))) == before + processes)
        return process

    killed = start()
    killed.kill()
    killed.wait()
    (stale,) = tmp_path.iterdir()
    os.close(eventually(lambda: metrics_directory._lock(stale)))  # its children end when they notice
    for file in stale.iterdir():
        file.unlink()  # or `start` would not wait for its own
    os.utime(stale, (0, 0))
    running = start()
    (folder,) = tmp_path.iterdir()
    assert folder != stale
    os.utime(folder, (0, 0))
    second = start()
    assert folder.exists()
    for process in (running, second):
        process.terminate()
        assert process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []
