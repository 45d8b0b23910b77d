"""Reads definitions of polls and sessions by name, and what has changed, for workers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from voting.database.connection import DEFINITIONS_CHANNEL, Connection
from voting.database.poll_state import parse_polls
from voting.database.queries import QUERIES
from voting.polls.poll import Poll
from voting.polls.session import BadSession, Session
from voting.polls.slug import split_box
from voting.polls.state import is_over


class Change(NamedTuple):
    """A poll or session that was changed, made or deleted."""

    kind: Literal["poll", "session"]
    name: str
    changed: int  # grows from one change to the next, in the order of their COMMIT


async def listen_alone(connection: Connection) -> bool:
    """Listen to changes unless another connection does that already; return whether this one listens."""
    cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtext('voting definitions listener'))")
    row = await cursor.fetchone()
    if not row or not row[0]:
        return False
    await connection.execute(f"LISTEN {DEFINITIONS_CHANNEL}")
    return True


async def newest_change(connection: Connection) -> int:
    """Return the number of the last change; 0 if there was none."""
    cursor = await connection.execute(QUERIES["newest_change"], prepare=True)
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def read_changes(connection: Connection, seen: int, limit: int) -> list[Change]:
    """Return up to `limit` changes after the change number `seen`, the oldest first; one for each poll or session."""
    cursor = await connection.execute(QUERIES["changes"], {"seen": seen, "limit": limit}, prepare=True)
    return [Change(*row) for row in await cursor.fetchall()]


async def apply_schedule(connection: Connection) -> tuple[float | None, bool]:
    """Open and close the polls whose time has come.

    Return the seconds until the next time, None if there is none, and whether a round was closed before and is not
    final.
    """
    cursor = await connection.execute(QUERIES["apply_schedule"], prepare=True)
    row = await cursor.fetchone()
    return row or (None, False)


async def count_definitions(connection: Connection) -> tuple[int, int]:
    """Return the numbers of polls and of sessions."""
    cursor = await connection.execute(QUERIES["count_definitions"], prepare=True)
    row = await cursor.fetchone()
    return row or (0, 0)


async def names_after(connection: Connection, kind: Literal["poll", "session"], name: str, limit: int) -> list[str]:
    """Return up to `limit` slugs or codes after a name, in order."""
    cursor = await connection.execute(QUERIES[f"{kind}_names"], {"after": name, "limit": limit}, prepare=True)
    return [name for (name,) in await cursor.fetchall()]


async def read_polls(connection: Connection, slugs: Sequence[str]) -> tuple[dict[str, Poll], dict[str, str]]:
    """Return the polls that exist, by slug, and the errors of invalid rows by slug."""
    cursor = await connection.execute(QUERIES["polls_by_slug"], {"slugs": list(slugs)}, prepare=True)
    polls, bad = parse_polls(await cursor.fetchall())
    return {poll.slug: poll for poll in polls}, bad


async def open_boxes(connection: Connection, slugs: Sequence[str]) -> set[str]:
    """Return the current rounds of those of these polls that are not closed."""
    polls, _ = await read_polls(connection, slugs)
    return {poll.box for poll in polls.values() if not is_over(poll.state)}


async def read_sessions(connection: Connection, codes: Sequence[str]) -> tuple[dict[str, Session], dict[str, str]]:
    """Return the sessions that exist, by code, and the errors of invalid rows by code."""
    cursor = await connection.execute(QUERIES["sessions_by_code"], {"codes": list(codes)}, prepare=True)
    sessions, bad = {}, {}
    for code, *parts in await cursor.fetchall():
        try:
            sessions[code] = Session.from_parts(code, *parts)
        except BadSession as error:
            bad[code] = str(error)
    return sessions, bad


class Rounds(NamedTuple):
    """What the votes of some boxes mean."""

    polls: list[Poll]  # current rounds, as they are defined, and earlier ones of these boxes, as they were
    deleted: set[str]  # slugs of polls that were deleted
    bad: Mapping[str, str]  # slug -> error of a poll whose row is invalid


async def read_rounds(connection: Connection, boxes: Iterable[str]) -> Rounds:
    """Return the rounds of polls that some boxes belong to; names that are no boxes are ignored."""
    found = [each for each in map(split_box, boxes) if each]
    parameters = {"slugs": [slug for slug, _ in found], "rounds": [number for _, number in found]}
    cursor = await connection.execute(QUERIES["rounds_of_boxes"], parameters, prepare=True)
    rows = await cursor.fetchall()
    current, bad = parse_polls(row[1:] for row in rows if row[0] == "current")
    earlier, _ = parse_polls(row[1:] for row in rows if row[0] == "earlier")
    return Rounds([*current, *earlier], {slug for what, slug, *_ in rows if what == "deleted"}, bad)
