"""Reads polls from the database: definitions, tallies, and the number of votes that wait."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.poll import BadPoll, Poll


class PollState(NamedTuple):
    """One poll at one moment."""

    poll: Poll
    revision: int  # grows with each change that viewers see
    defined: int  # the revision of the last change of the definition or state
    votes: dict[str, int]  # choice -> votes; choices without votes may be missing
    waiting: int  # votes of all polls that are accepted and not counted yet
    paused_since: datetime | None  # when the last worker stopped counting; None while one counts


async def read_definitions(connection: Connection) -> tuple[tuple[Poll, ...], dict[str, str]]:
    """Return all polls, and the errors of invalid rows by slug."""
    cursor = await connection.execute(QUERIES["polls"])
    return _parse(await cursor.fetchall())


def _parse(rows: Iterable[tuple[Any, ...]]) -> tuple[tuple[Poll, ...], dict[str, str]]:
    polls, bad = [], {}
    for slug, question, options, more in rows:
        try:
            polls.append(Poll.from_parts(slug, question, options, more))
        except BadPoll as error:
            bad[slug] = str(error)
    return tuple(polls), bad


async def poll_states(connection: Connection) -> tuple[list[PollState], dict[str, str]]:
    """Return the states of all polls at one moment, and the errors of invalid rows by slug."""
    cursor = await connection.execute(QUERIES["snapshot"], prepare=True)
    rows = await cursor.fetchall()
    polls, bad = _parse(row[:4] for row in rows)
    valid = (row[4:] for row in rows if row[0] not in bad)
    return [PollState(poll, *columns) for poll, columns in zip(polls, valid, strict=True)], bad
