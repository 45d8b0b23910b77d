"""TODO voting.broker.connection."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def redis_client(url: str, *, timeout: float) -> Redis:
    """A client that fails after `timeout` seconds rather than retry: every caller has its own idea of patience.

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
