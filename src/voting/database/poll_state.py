"""TODO voting.database.poll_state."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls import BadPoll, Poll


class PollState(NamedTuple):
    """One poll as the database holds it now, and how far counting has come."""

    poll: Poll
    revision: int
    votes: dict[str, int]
    waiting: int
    paused_since: datetime | None


async def read_definitions(connection: Connection) -> tuple[tuple[Poll, ...], dict[str, str]]:
    """Return all polls, and of rows that are no polls the slug and what is wrong."""
    cursor = await connection.execute(QUERIES["polls"])
    return _parse(await cursor.fetchall())


def _parse(rows: Iterable[tuple[Any, ...]]) -> tuple[tuple[Poll, ...], dict[str, str]]:
    good, bad = [], {}
    for slug, question, options in rows:
        try:
            good.append(Poll.of(slug, question, options))
        except BadPoll as error:
            bad[slug] = str(error)
    return tuple(good), bad


async def poll_states(connection: Connection) -> tuple[list[PollState], dict[str, str]]:
    """Return every poll's tallies, all of one moment, and of rows that are no polls the slug and what is wrong."""
    cursor = await connection.execute(QUERIES["snapshot"], prepare=True)
    rows = await cursor.fetchall()
    polls, bad = _parse(row[:3] for row in rows)
    rest = [row[3:] for row in rows if row[0] not in bad]
    return [PollState(poll, *facts) for poll, facts in zip(polls, rest, strict=True)], bad
