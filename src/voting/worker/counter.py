"""Reads stream entries and counts each vote exactly once in the database.

An entry is acknowledged only after COMMIT, so it is read again after any failure. Counting it again changes nothing,
because a vote must be newer than the one that it replaces. After any failure the caller connects again and runs a new
`VoteCounter`, which starts with this worker's own pending entries.
"""

import asyncio
import time
from collections.abc import Callable

from redis.asyncio import Redis

from voting.broker.stream import Consumer, Entry
from voting.database import counting
from voting.database.connection import DATA_ERRORS, Connection, deadline
from voting.database.counting import DeadLetter
from voting.polls.vote import Vote
from voting.polls.vote_parser import VoteParser
from voting.service import logs
from voting.service.lifecycle import Stop
from voting.service.tracing import OFF, Recorder
from voting.worker.batch import Batch, parse_entries
from voting.worker.known_polls import KnownPolls
from voting.worker.metrics import WorkerMetrics
from voting.worker.stream_check import StreamCheck

BLOCK_SECONDS = 0.5  # longest wait for a first entry; a stop is noticed after it
BATCH_INTERVAL_SECONDS = 0.008  # between two starts, for larger batches; not after a full batch or a single entry
CLAIM_SECONDS = 2.0  # interval between two claims, or RECLAIM_SECONDS if that is shorter
DATABASE_TIMEOUT = 8.0  # seconds; time limit of the database for a batch

log = logs.get()


class VoteCounter:
    """Counts one batch after another on two connections.

    Args:
        database, redis: open connections that nothing else uses while `run` is running.
        name: the consumer's name in its group.
        metrics: the worker's metrics.
        on_batch_done: called after each batch, also an empty one, with its number of entries.
        parser: knows some polls; other definitions are read when votes need them.
        recorder: records the spans of traced votes.
    """

    def __init__(
        self,
        database: Connection,
        redis: Redis,
        name: str,
        metrics: WorkerMetrics,
        on_batch_done: Callable[[int], None],
        *,
        parser: VoteParser,
        recorder: Recorder = OFF,
    ) -> None:
        self._database = database
        self._stream = Consumer(redis, name)
        self._parser = parser
        self._polls = KnownPolls(database, redis, parser, DATABASE_TIMEOUT)
        self._check = StreamCheck(database, redis, self._stream, DATABASE_TIMEOUT)
        self._metrics = metrics
        self._on_batch_done = on_batch_done
        self._recorder = recorder
        self._prefetch: asyncio.Task[Batch] | None = None
        self._acknowledging: asyncio.Task[None] | None = None

    async def run(self, stop: Stop, batch_size: int, max_batch_size: int, reclaim_seconds: float) -> None:
        """Count until `stop` is set, then finish the current batches.

        Args:
            stop: the worker's stop event.
            batch_size: maximum entries of the first batch; it is doubled after each full batch.
            max_batch_size: maximum entries of any batch.
            reclaim_seconds: time after which pending entries of other workers are claimed.

        Raises:
            redis.RedisError, psycopg.Error, OSError: a store failed.
        """
        await self._check.start()
        try:
            await self._count_own_pending(batch_size)
            await self._count_new(stop, batch_size, max_batch_size, reclaim_seconds)
            await self._wait_for_acknowledgement()
        finally:
            tasks = [task for task in (self._prefetch, self._acknowledging) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # then nothing uses the connections

    async def _count_own_pending(self, batch_size: int) -> None:
        while entries := await self._stream.read_own_pending(batch_size):
            await self._handle_batch(self._parse(entries))
            await self._wait_for_acknowledgement()

    async def _count_new(self, stop: Stop, batch_size: int, max_batch_size: int, reclaim_seconds: float) -> None:
        """Count new entries, and those of dead workers.

        With a backlog, three batches are in progress: one is read and parsed while the previous one is committed and
        the one before that is acknowledged.
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
            await self._handle_batch(batch)
            if time.monotonic() > next_claim and not stop.is_set():
                await self._count_claimed(batch_size, reclaim_seconds)
                next_claim = time.monotonic() + min(reclaim_seconds, CLAIM_SECONDS)
            if len(batch.entries) > 1 and not is_full:
                await asyncio.sleep(started + BATCH_INTERVAL_SECONDS - time.monotonic())

    async def _count_claimed(self, batch_size: int, reclaim_seconds: float) -> None:
        async for entries in self._stream.claim(batch_size, reclaim_seconds):
            log.warning("entries.claimed", entries=len(entries))
            await self._handle_batch(self._parse(entries))

    async def _read(self, batch_size: int) -> Batch:
        return self._parse(await self._stream.read_new(batch_size, BLOCK_SECONDS))

    def _parse(self, entries: list[Entry]) -> Batch:
        """Parse entries that were read just now."""
        self._parser.notice_seals(self._stream.seals)
        return parse_entries(self._parser, entries)

    async def _handle_batch(self, batch: Batch) -> None:
        """Commit a batch, then start to acknowledge it."""
        if batch.undefined:  # a poll may be new, or have changed
            batch = await self._polls.resolve(batch)
        if batch.dead:
            await self._check.check()
        else:
            await self._check.check_if_due()
        if batch.entries:
            await self._write_batch(batch)
        await self._wait_for_acknowledgement()
        if batch.entries:
            self._acknowledging = asyncio.create_task(self._acknowledge(batch.entries))
        self._on_batch_done(len(batch.entries))

    async def _acknowledge(self, entries: list[Entry]) -> None:
        await self._stream.acknowledge([entry for entry, _ in entries])
        self._metrics.entries.inc(len(entries))

    async def _wait_for_acknowledgement(self) -> None:
        """Wait until the last committed batch is acknowledged; raise the error if that failed."""
        if self._acknowledging:
            await self._acknowledging
            self._acknowledging = None

    async def _write_batch(self, batch: Batch) -> None:
        started = time.perf_counter()
        with self._recorder.record_batch(batch.entries, batch.parsed_ns) as traceparent:
            await self._write_or_split(batch.votes, batch.dead, traceparent)
        self._metrics.batch_seconds.observe(time.perf_counter() - started)
        self._metrics.batch_size.observe(len(batch.entries))
        self._metrics.vanished.inc(batch.vanished)
        self._metrics.dropped.inc(batch.dropped)
        self._metrics.late.inc(batch.late)

    async def _write_or_split(self, votes: list[Vote], dead: list[DeadLetter], traceparent: str) -> None:
        """Count votes; if the database rejects their data, halve the batch until only the rejected vote is left."""
        try:
            async with deadline(self._database, DATABASE_TIMEOUT + 1):
                counted = await counting.count(self._database, votes, dead, traceparent)
        except DATA_ERRORS as error:
            if len(votes) > 1:
                middle = len(votes) // 2
                await self._write_or_split(votes[:middle], dead, traceparent)
                await self._write_or_split(votes[middle:], [], traceparent)
            elif votes:
                vote = votes[0]
                fields = [b"poll", vote.poll.encode(), b"choice", vote.choice.encode()]
                letter = DeadLetter(vote.entry, f"database: {type(error).__name__}", fields)
                await self._write_or_split([], [*dead, letter], traceparent)
            else:
                raise
        else:
            self._metrics.counted.inc(counted)
            self._metrics.dead.inc(len(dead))
            for letter in dead:
                log.warning("entry.dead", entry=str(letter.entry), reason=letter.reason)
