"""Checks Redis once a second for the vote service: the polls, and the memory used.

While checks fail, the last polls are kept, and `BrokerMonitor.ready` becomes False within `MAX_AGE` seconds.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from voting.broker.connection import redis_client
from voting.broker.poll_hash import read_polls
from voting.broker.producer import TIMEOUT, VoteProducer
from voting.polls.poll import Poll
from voting.service import logs
from voting.service.lifecycle import raise_if_cancelled

CHECK_SECONDS = 1.0
MAX_AGE = CHECK_SECONDS + 2 * TIMEOUT  # seconds for which a check is valid; the next one has two commands
MEMORY_SHARE = 0.9  # share of maxmemory above which votes are refused, so that Redis never refuses the worker

log = logs.get()


class BrokerMonitor:
    """Reads the state of Redis and passes it to the producer and to the callbacks.

    Args:
        redis_url: returns the URL of Redis; called for each new connection.
        producer: gets the result of each check.
        on_polls: called with all polls, by slug, whenever they change.
        on_in_flight: called with the number of votes in flight, once a second.
        on_memory: called after each check with the share of `maxmemory` that Redis uses; 0 without a limit.
    """

    def __init__(
        self,
        redis_url: Callable[[], Awaitable[str]],
        producer: VoteProducer,
        *,
        on_polls: Callable[[dict[str, Poll]], None],
        on_in_flight: Callable[[int], None] = lambda _: None,
        on_memory: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._redis_url = redis_url
        self._producer = producer
        self._on_polls, self._on_in_flight, self._on_memory = on_polls, on_in_flight, on_memory
        self._polls: dict[str, Poll] = {}
        self._bad_polls = logs.BadPollLog()
        self._checked = -math.inf

    @property
    def ready(self) -> bool:
        """Whether a vote would be accepted now, according to the last check and the producer."""
        is_fresh = time.monotonic() - self._checked < MAX_AGE
        return is_fresh and self._producer.refusal_reason is None and bool(self._polls)

    async def run(self) -> None:
        """Check Redis once a second until cancelled; reconnect after a check that failed."""
        while True:
            try:
                async with redis_client(await self._redis_url(), timeout=TIMEOUT) as client:
                    while True:
                        polls, bad = await read_polls(client)
                        self._bad_polls.log(bad)
                        polls |= {slug: self._polls[slug] for slug in bad if slug in self._polls}
                        memory = await client.info("memory")
                        self._apply(polls, memory["used_memory"], memory["maxmemory"])
                        await self._wait()
            except (RedisError, OSError) as error:
                log.debug("broker.check_failed", error=f"{type(error).__name__}: {error}")
            await self._wait()

    async def _wait(self) -> None:
        raise_if_cancelled()
        self._on_in_flight(self._producer.in_flight)
        await asyncio.sleep(CHECK_SECONDS)

    def _apply(self, polls: dict[str, Poll], used: int, limit: int) -> None:
        self._checked = time.monotonic()
        self._on_memory(used / limit if limit else 0)
        is_full = bool(limit) and used > MEMORY_SHARE * limit
        if is_full and not self._producer.problem:
            log.error("broker.memory_short", used=used, maxmemory=limit)
        self._producer.problem = "broker_full" if is_full else None
        if polls != self._polls:
            self._polls = polls
            self._on_polls(polls)
