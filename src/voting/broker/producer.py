"""Publishes votes on the stream: votes that arrive at the same moment share one write and one fsync.

`VoteProducer.publish` returns the id of the stream entry once Redis has replied: with `appendfsync always`, only after
the vote is on disk. Otherwise `publish` raises `Refused` within `TIMEOUT`. `Refused.sent` says whether Redis
may have the vote nevertheless; sending it again as the same voter is safe.

While Redis is unreachable, votes are refused at once. They are not queued: a queue would only delay the refusal.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable

import hiredis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

from voting.broker.pipeline import NotSent, Pipeline, Reply, open_pipeline
from voting.broker.stream import STREAM
from voting.polls import MAX_SEQ, max_entry_ms, vote_fields
from voting.service import logs
from voting.service.lifecycle import Backoff, raise_if_cancelled

TIMEOUT = 1.0  # seconds that connecting to Redis, and its reply to a vote, may take

log = logs.get()


class Refused(Exception):
    """The vote was not accepted.

    Args:
        reason: a word for the metrics, one of those in `broker/`.
        sent: whether the vote was written to the connection without a reply, so that Redis may have it.
    """

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.sent = reason, sent


class VoteProducer:
    """One connection to Redis that carries every vote of this process.

    Args:
        address: returns the URL of Redis; called for each new connection.
        limit: votes in flight at one moment; more are refused.
        on_lost: called each time that the connection to Redis is lost.

    Attributes:
        pressure: why Redis must not get votes until the next check by `BrokerMonitor`; None if it may.
        in_flight: votes that wait for the reply of Redis.
    """

    def __init__(
        self, address: Callable[[], Awaitable[str]], *, limit: int, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        self._address = address
        self._limit = limit
        self._on_lost = on_lost
        self._pipeline: Pipeline  # set while there is no outage
        self._outage: str | None = "starting"
        self._max_ms = max_entry_ms()
        self.pressure: str | None = None
        self.in_flight = 0

    @property
    def refusal(self) -> str | None:
        """The reason for which every vote is refused now; None if votes are accepted."""
        return self._outage or self.pressure

    def apply_check(self, pressure: str | None, max_ms: int) -> None:
        """Store the result of a check of Redis.

        Args:
            pressure: the reason to refuse votes until the next check, or None.
            max_ms: largest entry id that can be a vote's, in milliseconds since the epoch.
        """
        self.pressure, self._max_ms = pressure, max_ms

    async def publish(self, poll: bytes, voter: bytes, choice: bytes, traceparent: bytes = b"") -> bytes:
        """Add a vote to the stream and return its entry id; `traceparent` is added to the entry of a traced vote.

        Raises:
            Refused: Redis is unreachable, silent, short of memory or has no stream, or `limit` votes are in flight.
        """
        if refusal := self._outage or self.pressure:
            raise Refused(refusal)
        if self.in_flight >= self._limit:
            raise Refused("busy")
        before, after, end = _xadd_parts(poll, choice, len(voter), len(traceparent))
        command = before + voter + after
        if traceparent:
            command += traceparent + end
        self.in_flight += 1
        try:
            reply = await self._pipeline.send(command)
        except NotSent:
            raise Refused("broker_away") from None
        except Disconnected:
            raise Refused("broker_silent", sent=True) from None
        finally:
            self.in_flight -= 1
        if not isinstance(reply, bytes):
            raise Refused(self._refused_by_redis(reply))
        ms, _, seq = reply.partition(b"-")
        if int(ms) > self._max_ms or int(seq) > MAX_SEQ:
            self.pressure = "broker_clock"  # no worker counts such an entry; a worker then recreates the stream
            raise Refused(self.pressure, sent=True)
        return reply

    async def run(self) -> None:
        """Keep a connection to Redis until cancelled; reconnect with backoff after any outage."""
        backoff = Backoff(0.05, 0.5)
        logged = ""  # the last error that was logged
        while True:
            try:
                async with open_pipeline(await self._address(), TIMEOUT) as self._pipeline:
                    self._outage, logged = None, ""
                    backoff.reset()
                    log.info("broker.connected")
                    raise_if_cancelled()
                    raise await self._pipeline.lost
            except (RedisError, OSError) as error:  # TimeoutError is an OSError
                if self._outage is None:
                    self._on_lost()
                if logged != (logged := f"{type(error).__name__}: {error}"):
                    log.warning("broker.lost", error=logged)
                self._outage = "broker_away"
            await asyncio.sleep(backoff.next())

    def _refused_by_redis(self, reply: Reply) -> str:
        """Return the reason why Redis did not take a vote; after an error, refuse votes until the next check.

        A null reply means that there is no stream; an error is OOM, MISCONF, READONLY or NOPERM.
        """
        if reply is None:
            return "no_stream"
        if not self.pressure:
            log.error("broker.refused", error=str(reply))
        self.pressure = "broker_refused"
        return self.pressure


@functools.lru_cache(1000)
def _xadd_parts(poll: bytes, choice: bytes, voter: int, traceparent: int) -> tuple[bytes, bytes, bytes]:
    """Return the packed command that adds a vote: before the voter, after the voter, and after the traceparent.

    `voter` and `traceparent` are lengths; without a traceparent the third part is empty. The placeholders cannot occur
    in a slug or a key. NOMKSTREAM: only a worker creates the stream, see `Consumer.ensure_group`.
    https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    placeholders = b"\0" * voter, b"\1" * traceparent
    fields = vote_fields(poll, placeholders[0], choice, placeholders[1])
    command: bytes = hiredis.pack_command((b"XADD", STREAM, b"NOMKSTREAM", b"*", *fields))  # type: ignore[arg-type]
    before, _, after = command.partition(placeholders[0])
    if traceparent:
        after, _, end = after.partition(placeholders[1])
        return before, after, end
    return before, after, b""
