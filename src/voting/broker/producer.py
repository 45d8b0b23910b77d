"""The way of a vote into Redis: votes that arrive at the same moment share one write and one fsync.

`VoteProducer.cast` returns the id of the stream entry once Redis has answered, which with `appendfsync always`
it does only after the vote is on disk; or it raises `Refused`, within the patience of one second, which says
whether the vote may be counted nevertheless: if it was written to the connection and no answer came, that is
unknown. Sending it again as the same voter is safe.

While Redis is away, votes are refused at once instead of queued: a queue would only answer late.
"""

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable

from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

from voting.broker.connection import redis_client
from voting.broker.pipeline import Answer, NotSent, Pipeline, pipeline
from voting.broker.poll_hash import read_polls
from voting.broker.stream import STREAM
from voting.polls import MAX_SEQ, Poll, latest_ms
from voting.service import logs
from voting.service.lifecycle import Backoff, raise_if_cancelled

TIMEOUT = 1.0  # seconds that a vote may wait for the answer of Redis
CLOCKS_APART = 60_000  # milliseconds that a worker's clock may be behind ours
MEMORY_SHARE = 0.9  # of maxmemory; above it votes are refused, so that Redis never has to refuse the worker

log = logs.get()


class Refused(Exception):
    """The vote was not accepted.

    Args:
        reason: a word for the metrics, one of those in this module.
        sent: whether the vote was written to the connection and not answered, so that Redis may have it.
    """

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.sent = reason, sent


class VoteProducer:
    """One connection to Redis that every vote of this process goes through, and the polls that Redis holds.

    Args:
        address: returns the URL of Redis; called for each new connection.
        limit: votes in flight at one moment; more are refused.
        on_polls: gets the polls whenever they change.
        on_look: gets the number of votes in flight, once a second.
        on_memory: gets the share of its memory limit that Redis uses, once a second; 0 if it has no limit.
        on_lost: called each time that Redis, which was there, is not.
    """

    def __init__(
        self,
        address: Callable[[], Awaitable[str]],
        *,
        limit: int,
        on_polls: Callable[[dict[str, Poll]], None],
        on_look: Callable[[int], None] = lambda _: None,
        on_memory: Callable[[float], None] = lambda _: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._address = address
        self._limit = limit
        self._on_polls = on_polls
        self._on_look, self._on_memory, self._on_lost = on_look, on_memory, on_lost
        self._polls: dict[str, Poll] = {}
        self._bad = logs.BadPollLog()
        self._pipeline: Pipeline  # as long as there is no outage
        self._outage: str | None = "starting"
        self._pressure: str | None = None
        self._latest = latest_ms()
        self._checked = -math.inf
        self.in_flight = 0

    @property
    def ready(self) -> bool:
        """Whether a vote would be accepted now, by all that is known."""
        fresh = time.monotonic() - self._checked < 2 * TIMEOUT + 1
        return fresh and self._outage is None and self._pressure is None and bool(self._polls)

    async def cast(self, poll: bytes, voter: bytes, choice: bytes, traceparent: bytes = b"") -> bytes:
        """Put a vote on the stream and return its entry id; where the vote is traced, its entry says so.

        Raises:
            Refused: Redis is away, silent, short of memory or has no stream yet, or too many votes are in flight.
        """
        if refusal := self._outage or self._pressure:
            raise Refused(refusal)
        if self.in_flight >= self._limit:
            raise Refused("busy")
        before, after = _xadd_around_voter(poll, choice, len(voter), len(traceparent))
        if traceparent:
            after += traceparent + b"\r\n"
        self.in_flight += 1
        try:
            answer = await self._pipeline.ask(before + voter + after)
        except NotSent:
            raise Refused("broker_away") from None
        except Disconnected:
            raise Refused("broker_silent", sent=True) from None
        finally:
            self.in_flight -= 1
        if not isinstance(answer, bytes):
            raise Refused(self._refusal(answer))
        ms, _, seq = answer.partition(b"-")
        if int(ms) > self._latest or int(seq) > MAX_SEQ:
            self._pressure = "broker_clock"  # until the next look; a worker counts no such entry, and renews the stream
            raise Refused(self._pressure, sent=True)
        return answer

    async def run(self) -> None:
        """Carry votes, and look after polls and memory, until cancelled; comes back by itself from any outage."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connect_always())
            tasks.create_task(self._watch_always())

    async def _connect_always(self) -> None:
        backoff = Backoff(0.05, 0.5)
        trouble = ""  # what was logged of it last
        while True:
            try:
                async with pipeline(await self._address(), TIMEOUT) as self._pipeline:
                    self._outage, trouble = None, ""
                    backoff.reset()
                    log.info("broker.connected")
                    raise_if_cancelled()
                    raise await self._pipeline.lost
            except (RedisError, OSError) as error:  # TimeoutError is an OSError
                if self._outage is None:
                    self._on_lost()
                if trouble != (trouble := _describe(error)):
                    log.warning("broker.lost", error=trouble)
                self._outage = "broker_away"
            await asyncio.sleep(backoff.next())

    def _refusal(self, answer: Answer) -> str:
        """Why Redis did not take a vote: there is no stream, or (OOM, MISCONF, READONLY, NOPERM) it cannot now."""
        if answer is None:
            return "no_stream"
        if not self._pressure:
            log.error("broker.refused", error=str(answer))
        self._pressure = "broker_refused"  # until the next look, so that a full Redis is left in peace
        return self._pressure

    async def _watch_always(self) -> None:
        """Ask once a second for the polls and the use of memory: also what readiness rests on."""
        while True:
            try:
                async with redis_client(await self._address(), timeout=TIMEOUT) as client:
                    while True:
                        polls, bad = await read_polls(client)
                        self._bad.log(bad)
                        polls |= {slug: self._polls[slug] for slug in bad if slug in self._polls}
                        memory = await client.info("memory")
                        self._take_note(polls, memory["used_memory"], memory["maxmemory"])
                        await self._next_look()
            except (RedisError, OSError) as error:
                log.debug("broker.check_failed", error=_describe(error))
            await self._next_look()

    async def _next_look(self) -> None:
        raise_if_cancelled()
        self._on_look(self.in_flight)
        await asyncio.sleep(1)

    def _take_note(self, polls: dict[str, Poll], used: int, limit: int) -> None:
        self._checked = time.monotonic()
        self._latest = latest_ms() - CLOCKS_APART
        self._on_memory(used / limit if limit else 0)
        full = bool(limit) and used > MEMORY_SHARE * limit
        if full and not self._pressure:
            log.error("broker.memory_short", used=used, maxmemory=limit)
        self._pressure = "broker_full" if full else None
        if polls != self._polls:
            self._polls = polls
            self._on_polls(polls)


@functools.lru_cache(1000)
def _xadd_around_voter(poll: bytes, choice: bytes, length: int, traced: int) -> tuple[bytes, bytes]:
    """What stands before and after the voter in the command that adds a vote, as it goes over the wire.

    `traced` is the length of a traceparent, which then ends the command; or 0.

    NOMKSTREAM: a worker makes the stream, see Consumer.ensure_group. https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    words = [b"XADD", STREAM, b"NOMKSTREAM", b"*", b"poll", poll, b"voter", b"v" * length, b"choice", choice]
    words += [b"traceparent", b"t" * traced] if traced else []
    packed = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    before, after = b"".join(packed[:7]), b"".join(packed[8:])
    if traced:
        after = after[: -traced - 2]
    return b"*%d\r\n%s$%d\r\n" % (len(words), before, length), b"\r\n" + after


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
