"""Wait for an effect, with a deadline instead of a fixed sleep."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import psycopg

T = TypeVar("T")
NOT_YET = (AssertionError, OSError, httpx.TransportError, psycopg.OperationalError)


def eventually(check: Callable[[], T], *, within: float = 30, every: float = 0.02) -> T:
    """Call `check` until it gives something true, and return that.

    An AssertionError of the check, or a server that is not there, counts as "not yet"; the last one is raised when
    time is up. The default is far longer than any effect should take: it ends a test that hangs, and measures nothing.
    """
    end = time.monotonic() + within
    while True:
        failure: Exception | None = None
        try:
            found = check()
            if found:
                return found
        except NOT_YET as error:
            failure = error
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {check}") from failure
        time.sleep(every)


async def until(check: Callable[[], object | Awaitable[object]], within: float = 30) -> None:
    """Call `check` until it returns something true.

    A coroutine function is awaited in the event loop; any other runs in a thread, so it may block. The check's own
    errors are raised at once; when time is up, TimeoutError is.
    """
    async with asyncio.timeout(within):
        while not (await check() if inspect.iscoroutinefunction(check) else await asyncio.to_thread(check)):
            await asyncio.sleep(0.01)
