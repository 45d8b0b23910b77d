"""Counts votes: entries of the stream become rows and tallies in the database, each exactly once.

An entry is acknowledged only after COMMIT, so it is read again after any failure. Counting it again changes nothing,
because a vote must be newer than the one it replaces. After any failure the caller connects again and runs a new
`Counter`, which starts with this worker's own pending entries.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from redis.asyncio import Redis

from voting.broker.stream import Consumer, Entry
from voting.database import counting
from voting.database.connection import DATA_ERRORS, Connection, deadline
from voting.database.counting import DeadLetter
from voting.polls import Vote
from voting.service import logs
from voting.service.lifecycle import Stop
from voting.worker.batch import Batch, parse_entries
from voting.worker.metrics import WorkerMetrics
from voting.worker.poll_sync import PollSync

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder

BLOCK_SECONDS = 0.5  # longest wait for a first entry, and so for noticing a stop
GATHER_SECONDS = 0.008  # from one batch to the next while votes keep coming; a single vote never waits
CLAIM_SECONDS = 2.0  # between two claims at most; sooner if entries are to be reclaimed sooner
DATABASE_TIMEOUT = 8.0  # seconds that the database may take for a batch

log = logs.get()


class Counter:
    """Counts one batch after another on two connections.

    Args:
        database, redis: open connections, used by nothing else meanwhile.
        name: of the consumer in its group.
        metrics: of the worker.
        on_batch: called with the number of entries of each batch when it is committed; also for an empty batch.
        recorder: records how traced votes are counted.
    """

    def __init__(
        self,
        database: Connection,
        redis: Redis,
        name: str,
        metrics: WorkerMetrics,
        on_batch: Callable[[int], None],
        *,
        recorder: "SpanRecorder | None" = None,
    ) -> None:
        self._database = database
        self._stream = Consumer(redis, name)
        self._polls = PollSync(database, redis, self._stream, DATABASE_TIMEOUT)
        self._metrics = metrics
        self._on_batch = on_batch
        self._recorder = recorder
        self._prefetch: asyncio.Task[Batch] | None = None
        self._acknowledging: asyncio.Task[None] | None = None

    async def run(self, stop: Stop, *, batch_size: int, max_batch_size: int, reclaim_seconds: float) -> None:
        """Count until told to stop, then finish the current batches.

        Args:
            stop: ends the loop.
            batch_size: entries in the first batches at most; doubled after each full one, up to `max_batch_size`.
            max_batch_size: entries in a batch at most.
            reclaim_seconds: after which another worker's unacknowledged entries are claimed.

        Raises:
            redis.RedisError, psycopg.Error, OSError: a store failed; run a new counter on new connections.
        """
        await self._polls.start()
        try:
            await self._count_own_pending(batch_size)
            await self._count_new(stop, batch_size, max_batch_size, reclaim_seconds)
            await self._acknowledged()
        finally:
            tasks = [task for task in (self._prefetch, self._acknowledging) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # afterwards nothing uses the connections

    async def _count_own_pending(self, batch_size: int) -> None:
        while entries := await self._stream.read_own_pending(batch_size):
            await self._process(self._parse(entries))
            await self._acknowledged()

    async def _count_new(self, stop: Stop, batch_size: int, max_batch_size: int, reclaim_seconds: float) -> None:
        """Count new entries, and those of dead workers.

        Under a backlog three batches are in progress: one is read and parsed while the one before it commits and the
        one before that is acknowledged.
        """
        next_claim = 0.0
        while self._prefetch or not stop.is_set():
            started = time.monotonic()
            batch = await (self._prefetch or self._read(batch_size))
            self._prefetch = None
            is_full = len(batch.entries) == batch_size
            if is_full and not stop.is_set():
                batch_size = min(2 * batch_size, max_batch_size)
                self._prefetch = asyncio.create_task(self._read(batch_size))
            await self._process(batch)
            if time.monotonic() > next_claim and not stop.is_set():
                await self._count_abandoned(batch_size, reclaim_seconds)
                next_claim = time.monotonic() + min(reclaim_seconds, CLAIM_SECONDS)
            if len(batch.entries) > 1 and not is_full:
                await asyncio.sleep(started + GATHER_SECONDS - time.monotonic())

    async def _count_abandoned(self, batch_size: int, reclaim_seconds: float) -> None:
        async for entries in self._stream.claim(batch_size, reclaim_seconds):
            log.warning("entries.claimed", entries=len(entries))
            await self._process(self._parse(entries))

    async def _read(self, batch_size: int) -> Batch:
        return self._parse(await self._stream.read_new(batch_size, BLOCK_SECONDS))

    def _parse(self, entries: list[Entry]) -> Batch:
        return parse_entries(self._polls.parser, entries)

    async def _process(self, batch: Batch) -> None:
        """Commit a batch, then start to acknowledge it."""
        await self._polls.sync_if_due()
        if batch.dead:  # the poll of an entry may be new
            await self._polls.sync()
            batch = self._parse(batch.entries)
        if batch.entries:
            await self._commit(batch)
        await self._acknowledged()
        if batch.entries:
            self._acknowledging = asyncio.create_task(self._acknowledge(batch.entries))
        self._on_batch(len(batch.entries))

    async def _acknowledge(self, entries: list[Entry]) -> None:
        await self._stream.acknowledge([entry for entry, _ in entries])
        self._metrics.entries.inc(len(entries))

    async def _acknowledged(self) -> None:
        """Wait until the batch committed last is acknowledged; raise the error if that failed."""
        if self._acknowledging:
            await self._acknowledging
            self._acknowledging = None

    async def _commit(self, batch: Batch) -> None:
        started = time.perf_counter()
        with (
            self._recorder.record_batch(batch.entries, batch.parsed_ns)
            if self._recorder
            else nullcontext("") as traceparent
        ):
            await self._count(batch.votes, batch.dead, traceparent)
        self._metrics.batch_seconds.observe(time.perf_counter() - started)
        self._metrics.batch_size.observe(len(batch.entries))
        self._metrics.vanished.inc(batch.vanished)

    async def _count(self, votes: list[Vote], dead: list[DeadLetter], traceparent: str) -> None:
        """Count votes; if the database rejects their data, split them until the rejected vote is alone."""
        try:
            async with deadline(self._database, DATABASE_TIMEOUT + 1):
                counted = await counting.count(self._database, votes, dead, traceparent)
        except DATA_ERRORS as error:
            if len(votes) > 1:
                middle = len(votes) // 2
                await self._count(votes[:middle], dead, traceparent)
                await self._count(votes[middle:], [], traceparent)
            elif votes:
                vote = votes[0]
                fields = [b"poll", vote.poll.encode(), b"choice", vote.choice.encode()]
                letter = DeadLetter(vote.entry, f"database: {type(error).__name__}", fields)
                await self._count([], [*dead, letter], traceparent)
            else:
                raise
        else:
            self._metrics.counted.inc(counted)
            self._metrics.dead.inc(len(dead))
            for letter in dead:
                log.warning("entry.dead", entry=str(letter.entry), reason=letter.reason)
