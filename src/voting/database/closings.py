"""Rounds that are closed: their cuts, their ballots and their records. See polls/closing.py."""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from voting.database.audit import read_head
from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.closing import Closing
from voting.polls.poll import Poll
from voting.polls.record import ballot_line, header_line, make_record
from voting.polls.slug import split_box
from voting.polls.vote import EntryId

CHUNK = 5000  # ballots that are read at once


async def read_unfinished(connection: Connection, limit: int) -> list[Closing]:
    """Return rounds that are closed and not final, the oldest first."""
    cursor = await connection.execute(QUERIES["unfinished_closings"], {"limit": limit}, prepare=True)
    rows = await cursor.fetchall()
    return [Closing(slug, number, None if ms is None else EntryId(ms, seq)) for slug, number, ms, seq in rows]


async def read_stored_cuts(connection: Connection, boxes: Iterable[str]) -> dict[bytes, EntryId]:
    """Return the cuts of those of these rounds that are sealed; 0-0 if it is final: no more vote counts in it."""
    found = [each for each in map(split_box, boxes) if each]
    parameters = {"slugs": [slug for slug, _ in found], "rounds": [number for _, number in found]}
    cursor = await connection.execute(QUERIES["cuts_of_boxes"], parameters, prepare=True)
    return {box.encode(): EntryId(ms, seq) for box, ms, seq in await cursor.fetchall()}


async def store_cut(connection: Connection, closing: Closing, cut: EntryId) -> bool:
    """Store the cut of a round; a new stream begins after it. Return whether there is such a closing."""
    parameters = {"slug": closing.slug, "round": closing.round, "ms": cut.ms, "seq": cut.seq}
    cursor = await connection.execute(QUERIES["seal_round"], parameters)
    row = await cursor.fetchone()
    return bool(row and row[0])


async def finish(connection: Connection, closing: Closing, limit: str = "0") -> bool:
    """Make a round final, with its ballots and its record; call it only when all votes up to the cut are counted.

    Return False if another worker does it, or the round does not exist any more. The lock of all definitions is taken
    in a second transaction, because listing many ballots takes long: each statement up to `limit`, as
    `statement_timeout` has it.
    """
    where = {"slug": closing.slug, "round": closing.round}
    async with connection.transaction():
        await connection.execute("SELECT set_config('statement_timeout', %s, true)", [limit])
        cursor = await connection.execute(QUERIES["lock_closing"], where)
        locked = await cursor.fetchone()
        cursor = await connection.execute(QUERIES["round_of_closing"], where)
        row = await cursor.fetchone()
        if not locked or not row:
            return False
        closed, publish = locked
        slug, question, options, more, tallies, revision = row
        poll = Poll.from_parts(slug, question, options, more)
        ballots = await _list_ballots(connection, poll) if publish else None
        head = await read_head(connection)  # from now on, no row up to it can be changed unseen
        times = {"closed": _iso(closed), "final": _iso(datetime.now(UTC))}
        record = make_record(poll, tallies, ballots, revision=revision, **times, audit=head._asdict())
    async with connection.transaction():
        await connection.execute("SELECT lock_definitions()")  # first, as all do that change polls
        cursor = await connection.execute(QUERIES["finish_round"], where | {"closed": closed, "record": record})
        row = await cursor.fetchone()
    return bool(row and row[0])


async def _list_ballots(connection: Connection, poll: Poll) -> str:
    """List the ballots of a round; return the SHA-256 of the published file, in hexadecimal."""
    await connection.execute(QUERIES["list_ballots"], {"slug": poll.slug, "round": poll.round})
    file = hashlib.sha256(header_line())
    async with connection.cursor(name="ballots") as cursor:
        await cursor.execute(QUERIES["ballots_of_box"], {"box": poll.box})
        while rows := await cursor.fetchmany(CHUNK):
            for tracker, choice in rows:
                file.update(ballot_line(tracker, choice))
    return file.hexdigest()


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds")
