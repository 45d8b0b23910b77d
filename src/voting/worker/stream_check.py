"""Creates the stream and its group, and compares the stream with what the database has counted."""

import time

from redis.asyncio import Redis

from voting.broker import removals
from voting.broker.stream import STREAM, Consumer
from voting.database import counting
from voting.database.connection import Connection, deadline
from voting.service import logs

CHECK_SECONDS = 1.0

log = logs.get()


class StreamCheck:
    """Reports removed entries, and keeps the ids of the stream above those counted.

    `timeout` is the time limit of the database, in seconds.
    """

    def __init__(self, database: Connection, redis: Redis, stream: Consumer, timeout: float) -> None:
        self._database, self._redis, self._stream = database, redis, stream
        self._timeout = timeout
        self._checked = float("-inf")

    async def start(self) -> None:
        """Create the consumer group if it is missing, then check."""
        async with deadline(self._database, self._timeout):
            newest = await counting.newest_entry(self._database, await self._stream.max_entry_ms())
        if await self._stream.ensure_group(newest):
            log.warning("stream.group_created", newest=str(newest))
        await self.check()

    async def check_if_due(self) -> None:
        if time.monotonic() - self._checked > CHECK_SECONDS:
            await self.check()

    async def check(self) -> None:
        """Report removed entries and align the ids of the stream.

        Raises:
            ClockSkew: this machine's clock cannot tell forged ids, so nothing may become a dead letter.
        """
        max_ms = await self._stream.max_entry_ms()
        async with deadline(self._database, self._timeout):
            newest = await counting.newest_entry(self._database, max_ms)
        if removed := await removals.detect(self._redis, STREAM):
            log.warning("stream.entries_removed", entries=removed)
        if change := await self._stream.align(newest, max_ms):
            log.warning("stream.aligned", change=change, newest=str(newest))
        self._checked = time.monotonic()
