"""One service in several processes, to use several cores.

They share the sockets that were opened before; the kernel hands each connection to one of them. A process that
dies is replaced, with backoff. SIGTERM reaches all, and each drains as it would alone.
"""

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

from voting.core.lifecycle import Backoff, Stop, run

Main = Callable[[Stop], Awaitable[None]]

STEADY_SECONDS = 10.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT}


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

    Args:
        main: the service.
        on_end: called with the process id of each that has ended.
    """

    def __init__(self, main: Main, on_end: Callable[[int], None]) -> None:
        self._main = main
        self._on_end = on_end
        self._children: set[int] = set()
        self._stopping = False
        self._lifeline, self._held = os.pipe()  # only this process keeps the second end: it closes when we die

    def run(self, number: int) -> None:
        """Keep `number` processes until SIGTERM or SIGINT; with 1, this process does the work itself.

        Raises:
            SystemExit: one of them ended with an error while all were being stopped.
        """
        if number == 1:
            run(self._main)
            return
        for signum in _SIGNALS:
            signal.signal(signum, self._stop)
        for _ in range(number):
            self._spawn()
        if self._wait():
            sys.exit(1)

    def _wait(self) -> bool:
        """Replace processes that die until told to stop; return whether any failed to stop well."""
        backoff = Backoff(0.1, 5)
        failed = False
        while self._children:
            began = time.monotonic()
            pid, status = os.wait()
            self._children.discard(pid)
            self._on_end(pid)
            if self._stopping:
                failed = failed or status != 0
                continue
            if time.monotonic() - began > STEADY_SECONDS:
                backoff.reset()
            time.sleep(backoff.next())
            self._spawn()
        return failed

    def _stop(self, _signum: int, _frame: object) -> None:
        self._stopping = True
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)

    def _spawn(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal may not come before the child is in the set
        if not self._stopping:
            pid = os.fork()
            if pid == 0:
                self._be_child()
            self._children.add(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _be_child(self) -> NoReturn:
        """Run the service in a forked process to its end; it also stops when its parent dies."""
        code = 1
        try:
            os.close(self._held)
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
