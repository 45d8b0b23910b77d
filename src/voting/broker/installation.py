"""The id of the installation that the broker belongs to, so that votes are counted only into its own database.

The table `installation` holds the ids of a database: its own, created by a migration, and those added by `voting
restore` or `voting adopt`. The key `installation` of the broker holds one of them; a worker sets it if it is missing.
Without this check, a new and empty database (a wrong volume, a new directory of PostgreSQL) would get the votes of a
broker in use, and no error would be reported.
"""

from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis

INSTALLATION = b"installation"


class InstallationMismatch(Exception):
    """The database does not belong to the broker's installation; the message says what to do."""

    def __init__(self, broker: str) -> None:
        super().__init__(
            f"the broker belongs to installation {broker}, and this database does not, so no vote is counted: "
            "set DATABASE_URL to the database of that installation, or restore its backup (voting restore); "
            f"to abandon that database and count into this one: voting adopt {broker}"
        )


async def read_installation(client: Redis) -> str | None:
    """Return the id of the broker's installation; None if it has none yet."""
    identifier = cast("bytes | None", await client.get(INSTALLATION))
    return None if identifier is None else identifier.decode(errors="replace")


async def check_installation(client: Redis, ids: Sequence[str], *, claim: bool = False) -> None:
    """Check that the broker belongs to one of the installations of a database.

    Args:
        client: a client of the broker.
        ids: the installations of the database, its own first.
        claim: if the broker has no id, set it to the first of these.

    Raises:
        InstallationMismatch: the broker has an id that the database does not have.
        redis.NoPermissionError: the broker's user has the rights of an earlier version.
    """
    identifier = await (_claim(client, ids[0]) if claim and ids else read_installation(client))
    if identifier is not None and identifier not in ids:
        raise InstallationMismatch(identifier)


async def _claim(client: Redis, identifier: str) -> str:
    """Set the broker's id unless it has one; return the id that it has afterwards."""
    current = cast("bytes | None", await client.set(INSTALLATION, identifier, nx=True, get=True))
    return identifier if current is None else current.decode(errors="replace")
