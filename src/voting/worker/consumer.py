"""Counting: entries from the stream become rows and tallies in the database, each exactly once.

An entry is acknowledged only after COMMIT, so it comes again after any failure; counting it again changes
nothing, because a vote must be newer than the one it replaces. Any outage therefore has one answer:
let go, connect again, and start with what this worker had not acknowledged.
"""

import asyncio
import time
from collections.abc import Callable

import psycopg
from redis.asyncio import Redis

from voting.core import logs, store
from voting.core.ballot import Malformed, Register, Vote, latest
from voting.core.lifecycle import Stop
from voting.core.metrics import WorkerMetrics
from voting.core.store import Connection, DeadLetter
from voting.core.stream import Consumer, Entry, publish_polls

BLOCK_SECONDS = 0.5  # longest wait for a first entry, and so for noticing a stop
POLLS_SECONDS = 1.0
PATIENCE = 8.0  # seconds that the database may take for a batch

log = logs.get()


class Counter:
    """Counts one batch after another on the two connections that it is given.

    Args:
        database, redis: open connections, used by nothing else meanwhile.
        name: of the consumer in its group.
        metrics: what Prometheus gets to see.
        on_batch: called with the number of entries of each batch dealt with.
    """

    def __init__(
        self, database: Connection, redis: Redis, name: str, metrics: WorkerMetrics, on_batch: Callable[[int], None]
    ) -> None:
        self._database = database
        self._redis = redis
        self._stream = Consumer(redis, name)
        self._metrics = metrics
        self._on_batch = on_batch
        self._register = Register(())
        self._polls_read = 0.0

    async def run(self, stop: Stop, *, batch_size: int, reclaim: float) -> None:
        """Count until told to stop, then finish the batch in hand.

        Args:
            stop: ends it.
            batch_size: entries in a batch at most.
            reclaim: seconds after which another worker's unacknowledged entries are taken over.

        Raises:
            redis.RedisError, psycopg.Error, OSError: a store failed; run it again on new connections.
        """
        async with store.deadline(self._database, PATIENCE):
            newest = await store.newest_entry(self._database)
        if await self._stream.ensure_group(newest):
            log.warning("stream.group_created", newest=str(newest))
        await self._refresh_polls()
        while entries := await self._stream.read_own_pending(batch_size):
            await self._process(entries)
        claimed_at = -reclaim
        reading: asyncio.Task[list[Entry]] | None = None
        while reading or not stop.is_set():
            entries = await (reading or self._stream.read_new(batch_size, BLOCK_SECONDS))
            reading = None
            if len(entries) == batch_size and not stop.is_set():  # a backlog: read on while this batch commits
                reading = asyncio.create_task(self._stream.read_new(batch_size, BLOCK_SECONDS))
            try:
                await self._process(entries)
                if time.monotonic() - claimed_at > min(reclaim, 2) and not stop.is_set():
                    while entries := await self._stream.claim(batch_size, reclaim):
                        log.warning("entries.claimed", entries=len(entries))
                        await self._process(entries)
                    claimed_at = time.monotonic()
            except BaseException:
                if reading:
                    reading.cancel()
                raise

    async def _process(self, entries: list[Entry]) -> None:
        """Commit what a batch means, then acknowledge and delete it."""
        if time.monotonic() - self._polls_read > POLLS_SECONDS:
            await self._refresh_polls()
        if not entries:
            return
        votes, dead = self._sort(entries)
        if dead:  # an unknown poll may just be new
            await self._refresh_polls()
            votes, dead = self._sort(entries)
        started = time.perf_counter()
        await self._commit(latest(votes), dead)
        self._metrics.batch_seconds.observe(time.perf_counter() - started)
        self._metrics.batch_size.observe(len(entries))
        await self._stream.done([entry for entry, _ in entries])
        self._metrics.entries.inc(len(entries))
        self._on_batch(len(entries))

    def _sort(self, entries: list[Entry]) -> tuple[list[Vote], list[DeadLetter]]:
        votes: list[Vote] = []
        dead: list[DeadLetter] = []
        for entry, fields in entries:
            if not fields:  # deleted while it was pending: nothing left to count
                continue
            try:
                votes.append(self._register.read(entry, fields))
            except Malformed as malformed:
                dead.append(DeadLetter(entry, str(malformed), fields))
        return votes, dead

    async def _commit(self, votes: list[Vote], dead: list[DeadLetter]) -> None:
        """Count a batch; if the database finds a fault in the data itself, part it until the culprit is alone."""
        try:
            async with store.deadline(self._database, PATIENCE + 1):
                counted = await store.count(self._database, votes, dead)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if len(votes) > 1:
                middle = len(votes) // 2
                await self._commit(votes[:middle], dead)
                await self._commit(votes[middle:], [])
            elif votes:
                vote = votes[0]
                fields = [b"poll", vote.poll.encode(), b"choice", vote.choice.encode()]
                await self._commit([], [*dead, DeadLetter(vote.entry, f"database: {type(error).__name__}", fields)])
            else:
                raise
        else:
            self._metrics.counted.inc(counted)
            self._metrics.dead.inc(len(dead))
            for letter in dead:
                log.warning("entry.dead", entry=str(letter.entry), reason=letter.reason)

    async def _refresh_polls(self) -> None:
        """Take up poll definitions from the database, and publish them for the vote service."""
        async with store.deadline(self._database, PATIENCE):
            polls = await store.polls(self._database)
        await publish_polls(self._redis, polls)
        self._register = Register(polls)
        self._polls_read = time.monotonic()
