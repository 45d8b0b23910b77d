"""One service in several processes, to use several cores.

They share the sockets that were opened before; the kernel hands each connection to one of them. A process that
dies is replaced, with backoff; if they do nothing but die, all are stopped and the exit code is 1, so that whatever
runs the service notices. SIGTERM is passed on to all, and each drains as it would alone.
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

STEADY_SECONDS = 10.0
QUICK_DEATHS = 10  # with the waits between them, about 20 seconds of nothing but deaths
_ENDING = {signal.SIGTERM, signal.SIGINT}
_SIGNALS = {*_ENDING, signal.SIGCHLD}

log = logs.get()


def available_cores() -> int:
    """How many cores this process may use: its affinity, and the quota of its container (control groups 1 or 2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no control group, or no quota
        if (file := Path("/sys/fs/cgroup/cpu.max")).exists():
            quota, period = map(int, file.read_text(encoding="ascii").split())
        else:
            folder = Path("/sys/fs/cgroup/cpu")
            quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text("ascii")) for name in ("quota", "period"))
        if quota > 0:
            cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


class Processes:
    """A number of processes that all run the same service.

    Signals only write into a pipe, which one loop reads; so no process that was waited for is ever signalled.

    Args:
        main: the service.
        on_end: called with the process id of each that has ended.
    """

    def __init__(self, main: Main, on_end: Callable[[int], None]) -> None:
        self._main = main
        self._on_end = on_end
        self._children: set[int] = set()
        self._lifeline, self._held = os.pipe()  # only this process keeps the second end: it closes when we die

    def run(self, number: int) -> None:
        """Keep `number` processes until SIGTERM or SIGINT; with 1, this process does the work itself.

        Raises:
            SystemExit: one of them ended with an error while all were being stopped, or `QUICK_DEATHS` of them died
                within `STEADY_SECONDS` of each other, and all were stopped.
        """
        if number == 1:
            run(self._main)
            return
        self._received, self._written = os.pipe()
        for end in (self._received, self._written):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        for signum in _SIGNALS:
            signal.signal(signum, lambda _signum, _frame: None)
        if not self._keep(number) or not self._stop():
            sys.exit(1)

    def _keep(self, number: int) -> bool:
        """Replace processes that die until told to stop; return False if that is of no use."""
        backoff, deaths, died, wait = Backoff(0.1, 5), 0, float("-inf"), 0.0
        while True:
            pause = max(0.0, died + wait - time.monotonic())
            while not pause and len(self._children) < number:
                self._spawn()
            if self._signals(pause or None) & _ENDING:
                return True
            for pid, status in self._ended():
                if time.monotonic() - died > STEADY_SECONDS:
                    backoff.reset()
                    deaths = 0
                deaths, died, wait = deaths + 1, time.monotonic(), backoff.next()
                log.error("process.ended", process=pid, **_how(status), restart_in=round(wait, 2))
            if deaths >= QUICK_DEATHS:
                log.error("processes.given_up", deaths=deaths)
                self._stop()
                return False

    def _stop(self) -> bool:
        """Let all processes finish; return whether all did so without an error.

        A process that was forked a moment ago has no signal handlers yet, so it may end by the signal; it has no work.
        """
        well = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)
        while self._children:
            self._signals(None)
            for _, status in self._ended():
                well = well and status in {0, *_ENDING}
        return well

    def _signals(self, seconds: float | None) -> set[int]:
        """Wait for signals, for ever or some seconds; return which arrived."""
        select.select([self._received], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            return set(os.read(self._received, 1000))
        return set()

    def _ended(self) -> Iterator[tuple[int, int]]:
        """Collect children that have ended: the process id of each, and its status as `waitpid` gives it."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._children.discard(pid)
            self._on_end(pid)
            yield pid, status

    def _spawn(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # or one that the child gets early would be read by us
        pid = os.fork()
        if pid == 0:
            self._be_child()
        self._children.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _be_child(self) -> NoReturn:
        """Run the service in a forked process to its end; it also stops when its parent dies."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for end in (self._held, self._received, self._written):
                os.close(end)
            for signum in _SIGNALS:
                signal.signal(signum, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            run(self._watched)
            code = 0
        except BaseException:  # noqa: BLE001 - the last frame of the process prints what the interpreter would have
            traceback.print_exc()
        finally:
            os._exit(code)

    async def _watched(self, stop: Stop) -> None:
        asyncio.get_running_loop().add_reader(self._lifeline, stop.set)
        await self._main(stop)


def _how(status: int) -> dict[str, int]:
    code = os.waitstatus_to_exitcode(status)
    return {"signal": -code} if code < 0 else {"code": code}
