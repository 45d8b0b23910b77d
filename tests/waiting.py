"""Wait for an effect, with a deadline instead of a fixed sleep."""

import asyncio
import contextlib
import inspect
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TypeVar

import httpx
import psycopg

T = TypeVar("T")
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # for plain HTTP; the default of httpx takes 50 ms of CPU time a client
NOT_YET = (AssertionError, OSError, httpx.TransportError, httpx.HTTPStatusError, psycopg.OperationalError)


def eventually(check: Callable[[], T], *, within: float = 30, every: float = 0.02) -> T:
    """Call `check` until it returns something true, and return that.

    An AssertionError of the check, a status of 400 or more that it raises, or no answer counts as "not yet".
    The default of `within` is far longer than any effect should take: it only ends a test that hangs.

    Raises:
        AssertionError: the time is up; its cause is the last error of the check.
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

    A coroutine function is awaited in the event loop; any other runs in a thread, so it may block.

    Raises:
        TimeoutError: the time is up. Any error of the check is raised at once.
    """
    async with asyncio.timeout(within):
        while not (await check() if inspect.iscoroutinefunction(check) else await asyncio.to_thread(check)):
            await asyncio.sleep(0.01)


async def when_not_busy(send: Callable[[], Awaitable[httpx.Response]], within: float = 30) -> httpx.Response:
    """Send a vote, again while it is refused with 503, as when the disk is slow; return the last response.

    Raises:
        TimeoutError: the time is up.
    """
    async with asyncio.timeout(within):
        while (response := await send()).status_code == 503:
            await asyncio.sleep(0.1)
    return response


@contextlib.asynccontextmanager
async def background(*work: Coroutine[object, object, object]) -> AsyncIterator[None]:
    """Run coroutines while the block runs; then cancel them, and raise the error of one that has failed."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
