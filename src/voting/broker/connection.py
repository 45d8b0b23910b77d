"""Clients of Redis with a time limit."""

import contextlib
from collections.abc import AsyncIterator, Iterator

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

RIGHTS_FIX = "restart Redis: it then reads its users again"  # when a user has the rights of an earlier version


def new_client(url: str, *, timeout: float) -> Redis:
    """Return a client whose commands fail after `timeout` seconds. There are no retries: callers have their own.

    redis-py's own default is ten retries with backoff, https://redis.readthedocs.io/en/stable/backoff.html.
    """
    return Redis.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        max_connections=4,
    )


@contextlib.asynccontextmanager
async def redis_client(url: str, *, timeout: float) -> AsyncIterator[Redis]:
    """Yield such a client and close it; an error while closing does not replace the one that ended the block."""
    client = new_client(url, timeout=timeout)
    try:
        with closed_is_lost():
            yield client
    finally:
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()


@contextlib.contextmanager
def closed_is_lost() -> Iterator[None]:
    """Raise `Disconnected` if redis-py writes to a connection that the peer has just reset.

    uvloop then raises a RuntimeError, where redis-py expects an OSError.
    """
    try:
        yield
    except RuntimeError as error:
        if "the handler is closed" not in str(error):
            raise
        raise Disconnected("Connection lost.") from error
