"""Start and stop of a service, and backoff.

`run` starts a service's main coroutine on uvloop with an event that SIGTERM or SIGINT sets. When it is set, the service
accepts no more work, finishes the current work and returns; the process then exits with 0. Unexpected exceptions are
not caught: they end the process with a traceback, and its supervisor starts it again.
"""

import asyncio
import contextlib
import ctypes
import gc
import random
import resource
import signal
from collections.abc import Awaitable, Callable

import uvloop

from voting.service import logs

Stop = asyncio.Event

MAX_OPEN_FILES = (1_048_576, 10_240)  # fs.nr_open of Linux, OPEN_MAX of macOS

log = logs.get()


def run(main: Callable[[Stop], Awaitable[None]]) -> None:
    """Run a service until it returns; SIGTERM and SIGINT set its `Stop` event."""
    _raise_open_files_limit()

    async def main_with_signals() -> None:
        stop = Stop()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        await main(stop)

    _freeze_imports()
    uvloop.run(main_with_signals())


def _raise_open_files_limit() -> None:
    """Raise the limit of open files as far as the system allows: 1,024, usual in a shell, would be 1,000 viewers.

    With an infinite hard limit macOS still refuses more than OPEN_MAX (setrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for maximum in MAX_OPEN_FILES:
        limit = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
        if soft == resource.RLIM_INFINITY or limit <= soft:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return
    log.warning("open_files.limited", soft=soft, hard=hard)


def _freeze_imports() -> None:
    """Exclude imported modules from garbage collection, and release the memory that only importing needed.

    The first saves a worker a third of its time, the second 2 MiB a process.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


async def pause(stop: Stop, seconds: float) -> None:
    """Wait for some seconds, or until `stop` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


async def first_of(*events: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of the events is set, or for some seconds."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def raise_if_cancelled() -> None:
    """Raise `CancelledError` if this task was cancelled and a library has suppressed the exception.

    Before Python 3.12 `asyncio.wait_for`, which redis-py uses, does so if its awaitable is done at that moment.
    https://github.com/python/cpython/issues/86296
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


class Backoff:
    """Waits between attempts in seconds, doubled each time up to a cap, with full jitter.

    Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """

    def __init__(self, first: float, cap: float) -> None:
        self._first, self._cap = first, cap
        self._attempts = 0

    def reset(self) -> None:
        self._attempts = 0

    def next(self) -> float:
        """Return the seconds to wait before the next attempt: at least a tenth of the step, so that no loop spins."""
        step = min(self._cap, self._first * float(2 ** min(self._attempts, 30)))
        self._attempts += 1
        return step * random.uniform(0.1, 1)  # noqa: S311 - jitter, not a secret
