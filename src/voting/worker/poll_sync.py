"""Updates the stream and the published polls from the database, which holds the poll definitions."""

import time

from redis.asyncio import Redis

from voting.broker import removals
from voting.broker.poll_hash import publish_polls, read_polls
from voting.broker.stream import STREAM, Consumer
from voting.database import counting
from voting.database.connection import Connection, deadline
from voting.database.poll_state import read_definitions
from voting.polls.vote import VoteParser
from voting.service import logs

SYNC_SECONDS = 1.0

log = logs.get()


class PollSync:
    """Reads poll definitions from the database, aligns the stream, and publishes the polls for the vote service.

    `parser` parses votes of the polls read last; `timeout` is the time limit of the database, in seconds.
    """

    def __init__(self, database: Connection, redis: Redis, stream: Consumer, timeout: float) -> None:
        self._database, self._redis, self._stream = database, redis, stream
        self._timeout = timeout
        self._synced = float("-inf")
        self._bad_polls = logs.BadPollLog()
        self.parser = VoteParser(())

    async def start(self) -> None:
        """Create the consumer group if it is missing, then synchronize."""
        async with deadline(self._database, self._timeout):
            newest = await counting.newest_entry(self._database, await self._stream.max_entry_ms())
        if await self._stream.ensure_group(newest):
            log.warning("stream.group_created", newest=str(newest))
        await self.sync()

    async def sync_if_due(self) -> None:
        if time.monotonic() - self._synced > SYNC_SECONDS:
            await self.sync()

    async def sync(self) -> None:
        """Read the polls, report removed entries, align the ids of the stream, and publish the polls."""
        async with deadline(self._database, self._timeout):
            polls, bad = await read_definitions(self._database)
            max_ms = await self._stream.max_entry_ms()
            newest = await counting.newest_entry(self._database, max_ms)
        if removed := await removals.detect(self._redis, STREAM):
            log.warning("stream.entries_removed", entries=removed)
        if change := await self._stream.align(newest, max_ms):
            log.warning("stream.aligned", change=change, newest=str(newest))
        self._bad_polls.log(bad)
        if bad:  # votes in a poll whose row became invalid are counted by its published definition
            published, _ = await read_polls(self._redis)
            polls += tuple(poll for slug, poll in published.items() if slug in bad)
        await publish_polls(self._redis, polls, keep=bad)
        self.parser = VoteParser(polls)
        self._synced = time.monotonic()
