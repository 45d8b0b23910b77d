"""Several processes of one service: what the parent does when they die, and when it has to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually

# Each process reads the file `order` and creates a file named by its process id. It does what `order` says: serve, fail
# now or at the end, or hold, which is to wait directly after the fork.
SERVICE = """
import os, random, sys, time
from pathlib import Path
from voting.service import logs
from voting.vote.prefork import ProcessManager

folder = Path(sys.argv[1])
random.seed(3731)  # the waits: five of at most 1.11 s, then 2.13 s; the log has one line a second
logs.configure("service", form="json", level="info")

def hold():
    while (folder / "order").read_text() == "hold":
        (folder / f"{os.getpid()}.pid").touch()
        time.sleep(0.01)

os.register_at_fork(after_in_child=hold)

async def main(stop):
    order = (folder / "order").read_text()
    (folder / f"{os.getpid()}.pid").touch()
    if order == "fail":
        raise SystemExit(7)
    await stop.wait()
    if (folder / "order").read_text() == "fail at the end":
        raise SystemExit(7)

# The file is missing if the process was stopped before `main` began.
ProcessManager(main, lambda pid: (folder / f"{pid}.pid").unlink(missing_ok=True)).run(3)
"""

Service = tuple["subprocess.Popen[str]", Path]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Service]]:
    processes = []

    def launch(order: str) -> Service:
        (tmp_path / "order").write_text(order)
        command = [sys.executable, "-c", SERVICE, str(tmp_path)]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        return processes[-1], tmp_path

    yield launch
    for process in processes:
        process.kill()
        process.communicate()


def pids(folder: Path) -> list[int]:
    return sorted(int(file.stem) for file in folder.glob("*.pid"))


def is_pending(pid: int, signum: signal.Signals) -> bool:
    """Return whether a signal is pending for a process that blocks it (proc(5), `ShdPnd`)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("ShdPnd:")[1].split()[0], 16) >> (signum - 1) & 1)


def ended(output: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "process.ended"]


def test_a_process_that_dies_is_replaced_and_logged_and_sigterm_ends_all(start: Callable[[str], Service]) -> None:
    process, folder = start("serve")
    eventually(lambda: len(pids(folder)) == 3)
    first = pids(folder)
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: len(pids(folder)) == 3 and first[0] not in pids(folder))
    process.terminate()
    output = process.communicate(timeout=10)[1]
    assert process.returncode == 0
    assert pids(folder) == []
    (line,) = ended(output)
    assert (line["process"], line["signal"]) == (first[0], signal.SIGKILL)
    assert line["restart_in"]


def test_an_error_while_stopping_is_the_exit_code(start: Callable[[str], Service]) -> None:
    process, folder = start("fail at the end")
    eventually(lambda: len(pids(folder)) == 3)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 1


def test_sigterm_ends_the_wait_for_a_replacement_at_once(start: Callable[[str], Service]) -> None:
    process, folder = start("serve")
    eventually(lambda: len(pids(folder)) == 3)
    (folder / "order").write_text("fail")
    os.kill(pids(folder)[0], signal.SIGKILL)
    assert process.stderr
    waits = (line["restart_in"] for text in iter(process.stderr.readline, "") for line in ended(text))
    wait = next(wait for wait in waits if isinstance(wait, float) and wait > 1.5)
    (folder / "order").write_text("serve")  # a replacement that starts after all does not end with an error
    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=10)
    assert time.monotonic() - began < wait
    assert process.returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_processes_start_is_no_error(start: Callable[[str], Service], signum: signal.Signals) -> None:
    process, folder = start("hold")
    eventually(lambda: len(pids(folder)) == 3)
    for each in (*(pids(folder) if signum == signal.SIGINT else ()), process.pid):  # Ctrl-C reaches all of them
        os.kill(each, signum)
    eventually(lambda: all(is_pending(pid, signal.SIGTERM) for pid in pids(folder)))
    (folder / "order").write_text("serve")
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_processes_that_die_again_and_again_end_the_service_with_1(start: Callable[[str], Service]) -> None:
    process, folder = start("fail")
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "processes.given_up" in output
    assert all(line["code"] == 1 for line in ended(output))
    assert pids(folder) == []


def test_when_the_parent_is_killed_its_processes_end(start: Callable[[str], Service]) -> None:
    process, folder = start("serve")
    eventually(lambda: len(pids(folder)) == 3)
    process.kill()
    process.wait()

    def all_gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids(folder))

    eventually(all_gone, within=10)
