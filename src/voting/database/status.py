"""TODO voting.database.status."""

from typing import Any

from psycopg.rows import dict_row

from voting.database.connection import Connection
from voting.database.queries import QUERIES


async def report_backlog(
    connection: Connection, worker: str, *, lag: int, pending: int, oldest: float, works: bool, counted: bool
) -> None:
    """Write how many votes wait, and what the worker does.

    Args:
        connection: as a worker.
        worker: its name.
        lag: entries of the stream that no worker has read.
        pending: entries that were read and are not counted yet.
        oldest: age of the oldest of all these, in seconds.
        works: whether the worker can count now.
        counted: whether it has counted a vote since its last report.
    """
    parameters = {
        "name": worker,
        "lag": lag,
        "pending": pending,
        "oldest": oldest,
        "works": works,
        "counted": counted,
    }
    await connection.execute(QUERIES["report"], parameters, prepare=True)


async def report_stopped(connection: Connection, worker: str) -> None:
    """Say that a worker has stopped because it was told to."""
    await connection.execute(QUERIES["retire"], {"name": worker})


async def read_status(connection: Connection, within: float | None = None) -> dict[str, Any]:
    """Return what `voting status` shows of the database.

    Args:
        connection: as a worker or the owner.
        within: `dead_within` counts the dead letters of so many seconds; None: all.

    Returns:
        counted, dead, dead_within, last_count (seconds), read_only, workers (name -> age in seconds).
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["status"], {"within": within})
        row = await cursor.fetchone()
    return row or {}
