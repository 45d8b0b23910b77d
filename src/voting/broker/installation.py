"""The id of the installation that the broker belongs to, so that votes are counted only into its own database.

The table `installation` holds the ids that a database has: its own, which a migration made, and those that came with a
restored backup or `voting adopt`. The key `installation` of the broker holds one of them; a worker writes it where
there is none. Without this check an empty database beside a broker in use, as after an upgrade of PostgreSQL into a
new directory or with a wrong volume, would count the votes from then on, and nothing would look wrong.
"""

from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis

INSTALLATION = b"installation"


class InstallationMismatch(Exception):
    """The database does not belong to the broker; the message says what to do."""

    def __init__(self, broker: str) -> None:
        super().__init__(
            f"the broker belongs to installation {broker}, and this database does not, so no vote is counted: "
            "let DATABASE_URL name the database of that installation, or restore its backup (voting restore); "
            f"to give that database up and count into this one: voting adopt {broker}"
        )


async def read_installation(client: Redis) -> str | None:
    """Return the id of the installation that the broker belongs to."""
    held = cast("bytes | None", await client.get(INSTALLATION))
    return None if held is None else held.decode(errors="replace")


async def check_installation(client: Redis, ids: Sequence[str], *, claim: bool = False) -> None:
    """Compare the broker's id with those of a database.

    Args:
        client: of the broker.
        ids: of the installations that the database belongs to, its own first.
        claim: give the broker the first of them if it has none.

    Raises:
        InstallationMismatch: the broker has an id that the database does not have.
        redis.NoPermissionError: the broker's user has the rights of an earlier version.
    """
    held = await (_claim(client, ids[0]) if claim and ids else read_installation(client))
    if held is not None and held not in ids:
        raise InstallationMismatch(held)


async def _claim(client: Redis, identifier: str) -> str:
    """Give the broker the id of an installation unless it has one; return the one that it has then."""
    held = cast("bytes | None", await client.set(INSTALLATION, identifier, nx=True, get=True))
    return identifier if held is None else held.decode(errors="replace")
