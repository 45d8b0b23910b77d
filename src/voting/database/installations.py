"""The ids of the installations that the database belongs to, see `broker/installation.py`."""

from collections.abc import Sequence

from voting.database.connection import Connection
from voting.database.queries import QUERIES


async def installations(connection: Connection) -> list[str]:
    """Return the ids of the installations that the database belongs to, the first one first."""
    cursor = await connection.execute(QUERIES["installations"])
    return [identifier for (identifier,) in await cursor.fetchall()]


async def add_installations(connection: Connection, ids: Sequence[str]) -> int:
    """Add the ids of other installations to the database; return how many are new."""
    cursor = await connection.execute(QUERIES["add_installations"], {"ids": list(ids)})
    return cursor.rowcount
