"""Publishes votes on the stream: votes that arrive at the same moment share one write and one fsync.

`VoteProducer.publish` returns the id of the stream entry when Redis has replied. With `appendfsync always`, Redis
replies after the vote is on disk. Otherwise `publish` raises `Refused` within `TIMEOUT`. `Refused.sent` says whether
Redis may still have the vote; sending it again as the same voter is safe.

Each write ends with one command that reads the cuts of its rounds, so that a vote that came too late is refused: see
polls/closing.py. Redis runs it after the votes were added.

While Redis is unreachable, votes are refused at once. They are not queued: a queue would only delay the refusal.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable

import hiredis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

from voting.broker.connection import RIGHTS_FIX
from voting.broker.pipeline import NotSent, Pipeline, Reply, open_pipeline
from voting.broker.stream import SEALS, STREAM
from voting.polls.closing import counts
from voting.polls.vote import MAX_SEQ, EntryId, max_entry_ms, vote_fields
from voting.service import logs
from voting.service.lifecycle import Backoff, raise_if_cancelled

TIMEOUT = 1.0  # seconds; for connecting to Redis, and for its reply to a vote
CLOCK_TOLERANCE = 60_000  # milliseconds by which a worker's clock may be behind this one

log = logs.get()


class Refused(Exception):
    """The vote was not accepted.

    Args:
        reason: value of the metric label `reason`.
        sent: whether the vote may be counted, because it was sent and not rejected by a reply.
    """

    def __init__(self, reason: str, *, sent: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.sent = reason, sent


class _CutsOfWrite:
    """The rounds of the votes of one write, and the reply with their cuts, which exists when they are written."""

    def __init__(self) -> None:
        self.boxes: dict[bytes, int] = {}  # -> place in the reply
        self.reply: asyncio.Future[Reply]

    def add(self, box: bytes) -> int:
        return self.boxes.setdefault(box, len(self.boxes))

    async def read(self) -> Reply:
        """Return the reply; call it after the write. Other votes await the same one."""
        return self.reply.result() if self.reply.done() else await asyncio.shield(self.reply)


class VoteProducer:
    """The connection to Redis that all votes of this process share.

    Args:
        redis_url: returns the URL of Redis; called for each new connection.
        max_in_flight: maximum number of votes that wait for Redis; further votes are refused.
        on_lost: called each time the connection to Redis is lost.

    Attributes:
        problem: the reason to refuse votes until the next check by `BrokerMonitor`, or None.
        in_flight: number of votes that wait for Redis.
    """

    def __init__(
        self, redis_url: Callable[[], Awaitable[str]], *, max_in_flight: int, on_lost: Callable[[], None] = lambda: None
    ) -> None:
        self._redis_url = redis_url
        self._max_in_flight = max_in_flight
        self._on_lost = on_lost
        self._pipeline: Pipeline  # set while there is no outage
        self._cuts = _CutsOfWrite()  # of the next write
        self._unreadable_cuts = ""  # the last error of a user without the right to read them
        self._outage: str | None = "starting"
        self.problem: str | None = None
        self.in_flight = 0

    @property
    def refusal_reason(self) -> str | None:
        """The reason why every vote is refused now; None if votes are accepted."""
        return self._outage or self.problem

    async def publish(self, poll: bytes, voter: bytes, choice: bytes, traceparent: bytes = b"") -> bytes:
        """Add a vote, with the `traceparent` of a traced one, to the stream; return the entry id or raise `Refused`."""
        if refusal := self.refusal_reason:
            raise Refused(refusal)
        if self.in_flight >= self._max_in_flight:
            raise Refused("busy")
        before, after, end = _xadd_parts(poll, choice, len(voter), len(traceparent))
        command = before + voter + after
        if traceparent:
            command += traceparent + end
        self.in_flight += 1
        try:
            sent = self._pipeline.send(command)
            cuts, place = self._cuts, self._cuts.add(poll)
            reply = await sent
            cut = self._cut(await cuts.read(), place) if isinstance(reply, bytes) else None
        except NotSent:
            raise Refused("broker_away") from None
        except Disconnected:
            raise Refused("broker_silent", sent=True) from None
        finally:
            self.in_flight -= 1
        if not isinstance(reply, bytes):
            raise Refused(self._record_error_reply(reply))
        ms, _, seq = reply.partition(b"-")
        if int(ms) > max_entry_ms() - CLOCK_TOLERANCE or int(seq) > MAX_SEQ:
            self.problem = "broker_clock"  # no worker counts such an entry; a worker recreates the stream
            raise Refused(self.problem, sent=True)
        if cut is not None and not counts(EntryId.parse(reply), cut):
            raise Refused("closed")
        return reply

    def _read_cuts(self, pipeline: Pipeline) -> None:
        """Send the last command of a write."""
        cuts, self._cuts = self._cuts, _CutsOfWrite()
        if cuts.boxes:
            cuts.reply = pipeline.send(_hmget(tuple(cuts.boxes)))
            cuts.reply.add_done_callback(_retrieve)

    def _cut(self, reply: Reply, place: int) -> EntryId | None:
        """Return the cut of one round.

        A user without the right to read cuts is one of an earlier version, and then no worker can seal a round. The
        users of both have these rights from the same file.
        """
        if isinstance(reply, list):
            cut = reply[place]
            return None if cut is None else EntryId.parse(cut)
        if not str(reply).startswith("NOPERM"):
            raise Refused("broker_refused", sent=True)
        if self._unreadable_cuts != str(reply):
            self._unreadable_cuts = str(reply)
            log.error("seals.refused", error=str(reply), fix=RIGHTS_FIX)
        return None

    async def run(self) -> None:
        """Keep a connection to Redis until cancelled; reconnect with backoff after any outage."""
        backoff = Backoff(0.05, 0.5)
        logged = ""  # the last error logged
        while True:
            try:
                async with open_pipeline(await self._redis_url(), TIMEOUT, self._read_cuts) as self._pipeline:
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

    def _record_error_reply(self, reply: Reply) -> str:
        """Return the reason of a reply that is not an entry id; after an error, refuse votes until the next check.

        Redis replies null if there is no stream, or with the error OOM, MISCONF, READONLY or NOPERM.
        """
        if reply is None:
            return "no_stream"
        if not self.problem:
            log.error("broker.refused", error=str(reply))
        self.problem = "broker_refused"
        return self.problem


def _retrieve(reply: asyncio.Future[Reply]) -> None:
    """Mark the error of a reply as known, since no vote may await it."""
    if not reply.cancelled():
        reply.exception()


@functools.lru_cache(1000)
def _hmget(boxes: tuple[bytes, ...]) -> bytes:
    """Return the encoded command that reads the cuts of some rounds."""
    command: bytes = hiredis.pack_command((b"HMGET", SEALS, *boxes))  # type: ignore[arg-type]
    return command


@functools.lru_cache(1000)
def _xadd_parts(poll: bytes, choice: bytes, voter: int, traceparent: int) -> tuple[bytes, bytes, bytes]:
    """Return the encoded XADD in three parts, between which the voter and the traceparent are inserted.

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
