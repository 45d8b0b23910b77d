"""Checks the memory of Redis once a second for the vote service.

While checks fail, `BrokerMonitor.ready` becomes False within `MAX_AGE` seconds.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from voting.broker.connection import redis_client
from voting.broker.poll_cache import PollCache
from voting.broker.producer import TIMEOUT, VoteProducer
from voting.service import logs
from voting.service.lifecycle import raise_if_cancelled

CHECK_SECONDS = 1.0
MAX_AGE = CHECK_SECONDS + 2 * TIMEOUT  # seconds for which a check is valid; the next one connects and has a command
MEMORY_SHARE = 0.9  # share of maxmemory above which votes are refused, so that Redis never refuses the worker

log = logs.get()


class BrokerMonitor:
    """Reads the state of Redis and passes it to the producer and to the callbacks; says whether votes are accepted.

    Args:
        redis_url: returns the URL of Redis; called for each new connection.
        producer: gets the result of each check.
        cache: the polls; without any, no vote is accepted.
        on_in_flight: called with the number of votes in flight, once a second.
        on_memory: called after each check with the share of `maxmemory` that Redis uses; 0 without a limit.
    """

    def __init__(
        self,
        redis_url: Callable[[], Awaitable[str]],
        producer: VoteProducer,
        cache: PollCache,
        *,
        on_in_flight: Callable[[int], None] = lambda _: None,
        on_memory: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._redis_url = redis_url
        self._producer = producer
        self._cache = cache
        self._on_in_flight, self._on_memory = on_in_flight, on_memory
        self._checked = -math.inf

    @property
    def ready(self) -> bool:
        """Whether a vote would be accepted now, according to the last check, the producer and the polls."""
        is_fresh = time.monotonic() - self._checked < MAX_AGE
        return is_fresh and self._producer.refusal_reason is None and self._cache.has_polls

    async def run(self) -> None:
        """Check Redis once a second until cancelled; reconnect after a check that failed."""
        while True:
            try:
                async with redis_client(await self._redis_url(), timeout=TIMEOUT) as client:
                    while True:
                        memory = await client.info("memory")
                        self._apply(memory["used_memory"], memory["maxmemory"])
                        await self._wait()
            except (RedisError, OSError) as error:
                log.debug("broker.check_failed", error=f"{type(error).__name__}: {error}")
            await self._wait()

    async def _wait(self) -> None:
        raise_if_cancelled()
        self._on_in_flight(self._producer.in_flight)
        await asyncio.sleep(CHECK_SECONDS)

    def _apply(self, used: int, limit: int) -> None:
        self._checked = time.monotonic()
        self._on_memory(used / limit if limit else 0)
        is_full = bool(limit) and used > MEMORY_SHARE * limit
        if is_full and not self._producer.problem:
            log.error("broker.memory_short", used=used, maxmemory=limit)
        self._producer.problem = "broker_full" if is_full else None
