"""Counting: entries from the stream become rows and tallies in the database, each exactly once.

An entry is acknowledged only after COMMIT, so it comes again after any failure; counting it again changes
nothing, because a vote must be newer than the one it replaces. Any outage therefore has one answer:
let go, connect again, and start with what this worker had not acknowledged.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from redis.asyncio import Redis

from voting.broker import removals
from voting.broker.poll_hash import publish_polls, read_polls
from voting.broker.stream import STREAM, Consumer, Entry
from voting.database import counting
from voting.database.connection import DATA_ERRORS, Connection, deadline
from voting.database.counting import DeadLetter
from voting.database.poll_state import read_definitions
from voting.polls import MAX_SEQ, Malformed, Vote, VoteParser, latest_ms
from voting.service import logs
from voting.service.lifecycle import Stop
from voting.worker.batch import newest_per_voter
from voting.worker.metrics import WorkerMetrics

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder

BLOCK_SECONDS = 0.5  # longest wait for a first entry, and so for noticing a stop
GATHER_SECONDS = 0.008  # from one batch to the next while votes keep coming; a lone vote never waits
POLLS_SECONDS = 1.0
PATIENCE = 8.0  # seconds that the database may take for a batch
LEAST_BATCH = 50  # entries, to which a batch that took too long is halved again and again

log = logs.get()


class Batch(NamedTuple):
    """Entries of the stream, when they were read (nanoseconds since the epoch), and what they mean."""

    entries: list[Entry]
    taken: int
    votes: list[Vote]
    dead: list[DeadLetter]


class Counter:
    """Counts one batch after another on the two connections that it is given.

    Args:
        database, redis: open connections, used by nothing else meanwhile.
        name: of the consumer in its group.
        metrics: what Prometheus gets to see.
        on_turn: called with the number of entries of each batch dealt with, also when there were none.
        spans: records how traced votes are counted.
    """

    def __init__(
        self,
        database: Connection,
        redis: Redis,
        name: str,
        metrics: WorkerMetrics,
        on_turn: Callable[[int], None],
        *,
        spans: "SpanRecorder | None" = None,
    ) -> None:
        self._database = database
        self._redis = redis
        self._stream = Consumer(redis, name)
        self._metrics = metrics
        self._on_turn = on_turn
        self._spans = spans
        self._register = VoteParser(())
        self._polls_read = 0.0
        self._bad = logs.BadPollLog()
        self._reading: asyncio.Task[Batch] | None = None
        self._acknowledging: asyncio.Task[None] | None = None

    async def run(self, stop: Stop, *, batch_size: int, most: int, reclaim: float) -> None:
        """Count until told to stop, then finish the batch in hand.

        Args:
            stop: ends it.
            batch_size: entries in the first batches at most; doubled after each full one, up to `most`.
            most: entries in a batch at most.
            reclaim: seconds after which another worker's unacknowledged entries are taken over.

        Raises:
            redis.RedisError, psycopg.Error, OSError: a store failed; run it again on new connections.
        """
        async with deadline(self._database, PATIENCE):
            newest = await counting.newest_entry(self._database, await self._stream.latest_ms())
        if await self._stream.ensure_group(newest):
            log.warning("stream.group_created", newest=str(newest))
        await self._refresh_polls()
        try:
            while entries := await self._stream.read_own_pending(batch_size):
                await self._process(self._sort(entries))
                await self._acknowledged()
            await self._count_new(stop, batch_size, most, reclaim)
            await self._acknowledged()
        finally:
            tasks = [task for task in (self._reading, self._acknowledging) if task]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # both connections are free when this returns

    async def _count_new(self, stop: Stop, batch_size: int, most: int, reclaim: float) -> None:
        """Count new entries, and those of dead workers.

        Under a backlog three batches are under way: one is read and sorted while the one before it commits and the one
        before that is acknowledged.
        """
        claimed_at = -reclaim
        while self._reading or not stop.is_set():
            began = time.monotonic()
            batch = await (self._reading or self._read(batch_size))
            self._reading = None
            is_full = len(batch.entries) == batch_size
            if is_full and not stop.is_set():
                batch_size = min(2 * batch_size, most)
                self._reading = asyncio.create_task(self._read(batch_size))
            await self._process(batch)
            if time.monotonic() - claimed_at > min(reclaim, 2) and not stop.is_set():
                async for entries in self._stream.claim(batch_size, reclaim):
                    log.warning("entries.claimed", entries=len(entries))
                    await self._process(self._sort(entries))
                claimed_at = time.monotonic()
            if len(batch.entries) > 1 and not is_full:
                await asyncio.sleep(began + GATHER_SECONDS - time.monotonic())

    async def _read(self, batch_size: int) -> Batch:
        return self._sort(await self._stream.read_new(batch_size, BLOCK_SECONDS))

    async def _process(self, batch: Batch) -> None:
        """Commit what a batch means, then let it be acknowledged and deleted."""
        if time.monotonic() - self._polls_read > POLLS_SECONDS:
            await self._refresh_polls()
        if batch.dead:  # an unknown poll may just be new
            await self._refresh_polls()
            batch = self._sort(batch.entries)
        if batch.entries:
            started = time.perf_counter()
            with (
                self._spans.record_batch(batch.entries, batch.taken) if self._spans else nullcontext("") as traceparent
            ):
                await self._commit(batch.votes, batch.dead, traceparent)
            self._metrics.batch_seconds.observe(time.perf_counter() - started)
            self._metrics.batch_size.observe(len(batch.entries))
        await self._acknowledged()
        if batch.entries:
            self._acknowledging = asyncio.create_task(self._acknowledge(batch.entries))
        self._on_turn(len(batch.entries))

    async def _acknowledge(self, entries: list[Entry]) -> None:
        await self._stream.acknowledge([entry for entry, _ in entries])
        self._metrics.entries.inc(len(entries))

    async def _acknowledged(self) -> None:
        """Wait until the batch that was committed last is acknowledged too, or raise what kept it from that."""
        if self._acknowledging:
            await self._acknowledging
            self._acknowledging = None

    def _sort(self, entries: list[Entry]) -> Batch:
        """Read what entries mean: each voter's newest vote, and those that are none."""
        taken = time.time_ns()
        limit = latest_ms()
        votes: list[Vote] = []
        dead: list[DeadLetter] = []
        for entry, fields in entries:
            if not fields:  # somebody deleted it while it was pending: nothing is left to count
                self._metrics.vanished.inc()
                continue
            if entry.ms > limit or entry.seq > MAX_SEQ:  # it would be newer than any vote to come, or too large
                dead.append(DeadLetter(entry, "the id is more than a day ahead, or too large", fields))
                continue
            try:
                votes.append(self._register.read(entry, fields))
            except Malformed as malformed:
                dead.append(DeadLetter(entry, str(malformed), fields))
        return Batch(entries, taken, newest_per_voter(votes), dead)

    async def _commit(self, votes: list[Vote], dead: list[DeadLetter], traceparent: str) -> None:
        """Count a batch; if the database finds a fault in the data itself, part it until the culprit is alone."""
        try:
            async with deadline(self._database, PATIENCE + 1):
                counted = await counting.count(self._database, votes, dead, traceparent)
        except DATA_ERRORS as error:
            if len(votes) > 1:
                middle = len(votes) // 2
                await self._commit(votes[:middle], dead, traceparent)
                await self._commit(votes[middle:], [], traceparent)
            elif votes:
                vote = votes[0]
                fields = [b"poll", vote.poll.encode(), b"choice", vote.choice.encode()]
                letter = DeadLetter(vote.entry, f"database: {type(error).__name__}", fields)
                await self._commit([], [*dead, letter], traceparent)
            else:
                raise
        else:
            self._metrics.counted.inc(counted)
            self._metrics.dead.inc(len(dead))
            for letter in dead:
                log.warning("entry.dead", entry=str(letter.entry), reason=letter.reason)

    async def _refresh_polls(self) -> None:
        """Take up poll definitions from the database, and publish them for the vote service."""
        async with deadline(self._database, PATIENCE):
            polls, bad = await read_definitions(self._database)
            latest = await self._stream.latest_ms()
            newest = await counting.newest_entry(self._database, latest)
        if removed := await removals.detect(self._redis, STREAM):
            log.warning("stream.entries_removed", entries=removed)
        if change := await self._stream.align(newest, latest):
            log.warning("stream.aligned", change=change, newest=str(newest))
        self._bad.log(bad)
        if bad:  # a row that was mended badly: votes for what was published before it are still votes
            published, _ = await read_polls(self._redis)
            polls += tuple(poll for slug, poll in published.items() if slug in bad)
        await publish_polls(self._redis, polls, keep=bad)
        self._register = VoteParser(polls)
        self._polls_read = time.monotonic()
