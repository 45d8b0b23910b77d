"""What workers report about themselves and the stream, and the status that `voting status` shows."""

from typing import Any

from psycopg.rows import dict_row

from voting.database.connection import Connection
from voting.database.queries import QUERIES


async def report_backlog(
    connection: Connection, worker: str, *, lag: int, pending: int, oldest: float, is_counting: bool, counted: bool
) -> None:
    """Write the backlog of the stream and the state of a worker.

    Args:
        connection: with the rights of a worker.
        worker: its name.
        lag: entries of the stream that no worker has read.
        pending: entries that were read and are not counted yet.
        oldest: age of the oldest of all these, in seconds.
        is_counting: whether the worker can count now.
        counted: whether it has counted a vote since its last report.
    """
    parameters = {
        "name": worker,
        "lag": lag,
        "pending": pending,
        "oldest": oldest,
        "is_counting": is_counting,
        "counted": counted,
    }
    await connection.execute(QUERIES["report"], parameters, prepare=True)


async def report_stopped(connection: Connection, worker: str) -> None:
    """Write that a worker was told to stop, so that it is not reported as missing."""
    await connection.execute(QUERIES["retire"], {"name": worker})


async def read_status(connection: Connection, within: float | None = None) -> dict[str, Any]:
    """Return what `voting status` shows of the database.

    Args:
        connection: with the rights of a worker or the owner.
        within: seconds whose dead letters `dead_within` counts; None: all.

    Returns:
        counted, dead, dead_within, last_count (seconds), read_only, workers (name -> age in seconds).
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["status"], {"within": within})
        row = await cursor.fetchone()
    return row or {}
