"""Reads polls from the database: definitions, tallies, and the number of votes that wait."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.poll import BadPoll, Poll


class Backlog(NamedTuple):
    """What is not counted yet, of all polls."""

    waiting: int  # votes that are accepted and not counted
    paused_since: datetime | None  # when the last worker stopped counting; None while one counts


class Final(NamedTuple):
    """The end of the current round."""

    at: datetime  # when it became final
    fingerprint: str  # of its record
    revision: int  # of the poll when the record was made
    publishes: bool  # whether its ballots can be downloaded


class PollState(NamedTuple):
    """One poll at one moment."""

    poll: Poll
    revision: int  # grows with each change that viewers see
    defined: int  # the revision of the last change of the definition or state
    tallies: str  # JSON: choice -> votes; choices without votes may be missing. Many choices take long to parse.
    backlog: Backlog
    final: Final | None = None

    @property
    def votes(self) -> dict[str, int]:
        """Parse `tallies`."""
        votes: dict[str, int] = json.loads(self.tallies)
        return votes


async def read_definitions(connection: Connection) -> tuple[tuple[Poll, ...], dict[str, str]]:
    """Return all polls, and the errors of invalid rows by slug."""
    cursor = await connection.execute(QUERIES["polls"])
    return parse_polls(await cursor.fetchall())


def parse_polls(rows: Iterable[tuple[Any, ...]]) -> tuple[tuple[Poll, ...], dict[str, str]]:
    """Return the polls of rows (slug, question, options, further fields), and the errors of invalid rows by slug."""
    polls, bad = [], {}
    for slug, question, options, more in rows:
        try:
            polls.append(Poll.from_parts(slug, question, options, more))
        except BadPoll as error:
            bad[slug] = str(error)
    return tuple(polls), bad


async def poll_states(connection: Connection, slugs: Sequence[str]) -> tuple[list[PollState], dict[str, str]]:
    """Return the states of some polls at one moment, and the errors of invalid rows by slug."""
    cursor = await connection.execute(QUERIES["snapshot"], {"slugs": list(slugs)}, prepare=True)
    rows = await cursor.fetchall()
    polls, bad = parse_polls(row[:4] for row in rows)
    valid = (row[4:] for row in rows if row[0] not in bad)
    return [
        PollState(
            poll,
            revision,
            defined,
            tallies,
            Backlog(waiting, paused),
            Final(at, *record) if at else None,
        )
        for poll, (revision, defined, tallies, waiting, paused, at, *record) in zip(polls, valid, strict=True)
    ], bad


async def poll_revisions(connection: Connection, slugs: Sequence[str]) -> dict[str, tuple[int, Backlog]]:
    """Return the revision of each of these polls that exists, and the backlog."""
    cursor = await connection.execute(QUERIES["revisions"], {"slugs": list(slugs)}, prepare=True)
    return {slug: (revision, Backlog(*backlog)) for slug, revision, *backlog in await cursor.fetchall()}
