"""Reads what has changed in sessions, and writes how many people are there."""

from collections.abc import Mapping, Sequence

from voting.database.connection import Connection
from voting.database.queries import QUERIES


async def session_changes(connection: Connection, codes: Sequence[str]) -> dict[str, int]:
    """Return `Session.changed` of those of the sessions that exist."""
    cursor = await connection.execute(QUERIES["session_changes"], {"codes": list(codes)}, prepare=True)
    return dict(await cursor.fetchall())


async def write_audiences(connection: Connection, replica: str, people: Mapping[str, int]) -> None:
    """Write how many people a result process has in some sessions: code -> number."""
    parameters = {"replica": replica, "codes": list(people), "people": list(people.values())}
    await connection.execute(QUERIES["write_audiences"], parameters, prepare=True)


async def delete_audiences(connection: Connection, replica: str) -> None:
    """Delete the rows of a result process that stops."""
    await connection.execute(QUERIES["delete_audiences"], {"replica": replica})
