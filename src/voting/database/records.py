"""Reads what is published of a round that is final: its record and its ballots."""

from datetime import datetime
from typing import NamedTuple

from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.record import ballot_line
from voting.polls.slug import box


class StoredRecord(NamedTuple):
    """The end of a round."""

    publishes: bool  # whether its ballots can be downloaded when it is final
    final: datetime | None  # None while the last votes are being counted
    record: str | None  # JSON text


async def read_record(connection: Connection, slug: str, round_: int) -> StoredRecord | None:
    """Return the end of a round; None if it has not closed, or does not exist."""
    cursor = await connection.execute(QUERIES["record"], {"slug": slug, "round": round_})
    row = await cursor.fetchone()
    return StoredRecord(*row) if row else None


async def find_choice(connection: Connection, slug: str, round_: int, tracker: bytes) -> str | None:
    """Return the choice of the ballot with a tracker; None if the list has none."""
    cursor = await connection.execute(QUERIES["ballot"], {"box": box(slug, round_), "tracker": tracker})
    row = await cursor.fetchone()
    return row[0] if row else None


class BallotReader:
    """Reads the lines of a published list, some thousand at a time."""

    def __init__(self, slug: str, round_: int) -> None:
        self._where = {"box": box(slug, round_), "tracker": b"", "choice": "", "limit": 5000}

    async def read(self, connection: Connection) -> bytes:
        """Return the next lines; b"" at the end."""
        cursor = await connection.execute(QUERIES["ballots_after"], self._where, prepare=True)
        rows = await cursor.fetchall()
        if rows:
            self._where["tracker"], self._where["choice"] = rows[-1]
        return b"".join([ballot_line(tracker, choice) for tracker, choice in rows])
