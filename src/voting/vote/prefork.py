"""Runs a service in several processes, to use several cores.

The processes share the sockets that were opened before the fork; the kernel gives each connection to one of them. A
process that dies is replaced, with backoff. If processes die again and again, all are stopped and the exit code is 1,
so that a supervisor can restart the service. SIGTERM is passed on to all, and each drains its connections.
"""

import asyncio
import contextlib
import math
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NoReturn

from voting.service import logs
from voting.service.lifecycle import Backoff, Stop, run

Main = Callable[[Stop], Awaitable[None]]

STABLE_SECONDS = 10.0  # time without a death, after which backoff and count start again
MAX_DEATHS = 10  # each within STABLE_SECONDS of the last; with the backoff this takes about 20 seconds
_STOPPING = {signal.SIGTERM, signal.SIGINT}
_SIGNALS = {*_STOPPING, signal.SIGCHLD}

log = logs.get()


def available_cores() -> int:
    """Return how many cores this process may use: its affinity, limited by the quota of its cgroup (v1 or v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or no quota
        if (file := Path("/sys/fs/cgroup/cpu.max")).exists():
            quota, period = map(int, file.read_text(encoding="ascii").split())
        else:
            folder = Path("/sys/fs/cgroup/cpu")
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text("ascii")) for name in ("quota", "period"))
        if quota > 0:
            cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


class ProcessManager:
    """Runs `main` in several processes, and calls `on_end` with the id of each process that has ended.

    Signal handlers only write to a pipe, which one loop reads, so no process id is signalled after `waitpid`.
    """

    def __init__(self, main: Main, on_end: Callable[[int], None]) -> None:
        self._main = main
        self._on_end = on_end
        self._children: set[int] = set()
        # Only this process keeps the write end open: when it dies, its children read the end of the pipe and stop.
        self._lifeline_read, self._lifeline_write = os.pipe()

    def run(self, number: int) -> None:
        """Run `number` processes until SIGTERM or SIGINT; with 1, this process runs the service itself.

        Raise SystemExit if a process failed to stop cleanly, or all were stopped after `MAX_DEATHS`.
        """
        if number == 1:
            run(self._main)
            return
        self._signals_read, self._signals_write = os.pipe()
        for end in (self._signals_read, self._signals_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._signals_write, warn_on_full_buffer=False)
        for signum in _SIGNALS:
            signal.signal(signum, lambda _signum, _frame: None)
        if not self._supervise(number) or not self._stop():
            sys.exit(1)

    def _supervise(self, number: int) -> bool:
        """Replace processes that die, until SIGTERM or SIGINT; after `MAX_DEATHS` stop all and return False."""
        backoff, deaths, died, wait = Backoff(0.1, 5), 0, float("-inf"), 0.0
        while True:
            pause = max(0.0, died + wait - time.monotonic())
            while not pause and len(self._children) < number:
                self._spawn()
            if self._wait_for_signals(pause or None) & _STOPPING:
                return True
            for pid, status in self._reap():
                if time.monotonic() - died > STABLE_SECONDS:
                    backoff.reset()
                    deaths = 0
                deaths, died, wait = deaths + 1, time.monotonic(), backoff.next()
                log.error("process.ended", process=pid, **_exit_status(status), restart_in=round(wait, 2))
            if deaths >= MAX_DEATHS:
                log.error("processes.given_up", deaths=deaths)
                self._stop()
                return False

    def _stop(self) -> bool:
        """Stop all processes; return whether all ended without an error.

        A process that was just forked has no signal handlers yet, so the signal may end it; it has no work.
        """
        succeeded = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)
        while self._children:
            self._wait_for_signals(None)
            for _, status in self._reap():
                succeeded = succeeded and status in {0, *_STOPPING}
        return succeeded

    def _wait_for_signals(self, seconds: float | None) -> set[int]:
        """Wait for signals, at most `seconds` if given; return those that arrived."""
        select.select([self._signals_read], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            return set(os.read(self._signals_read, 1000))
        return set()

    def _reap(self) -> Iterator[tuple[int, int]]:
        """Yield the id and the wait status of each process that has ended."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.discard(pid)
            self._on_end(pid)
            yield pid, status

    def _spawn(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # else the parent could read a signal sent to the child
        pid = os.fork()
        if pid == 0:
            self._run_child()
        self._children.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _run_child(self) -> NoReturn:
        """Run the service in a forked process, and exit; it also stops when its parent dies."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for end in (self._lifeline_write, self._signals_read, self._signals_write):
                os.close(end)
            for signum in _SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            run(self._main_until_orphaned)
            code = 0
        except BaseException:  # noqa: BLE001 - prints what the interpreter would print
            traceback.print_exc()
        finally:
            os._exit(code)

    async def _main_until_orphaned(self, stop: Stop) -> None:
        asyncio.get_running_loop().add_reader(self._lifeline_read, stop.set)
        await self._main(stop)


def _exit_status(status: int) -> dict[str, int]:
    code = os.waitstatus_to_exitcode(status)
    return {"signal": -code} if code < 0 else {"code": code}
