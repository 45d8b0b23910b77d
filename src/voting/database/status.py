"""The reports of workers about themselves and the stream, and the data of `voting status`."""

from typing import Any

from psycopg.rows import dict_row

from voting.database.connection import Connection
from voting.database.queries import QUERIES


async def report_backlog(
    connection: Connection, worker: str, *, lag: int, pending: int, oldest: float, is_counting: bool, has_counted: bool
) -> None:
    """Write the backlog of the stream and the state of a worker.

    Args:
        connection: has the rights of a worker.
        worker: the worker's name.
        lag: number of entries that no worker has read.
        pending: number of entries that were read and are not counted.
        oldest: age of the oldest of these, in seconds.
        is_counting: whether the worker can count now.
        has_counted: whether it has counted a vote since its last report.
    """
    backlog = {"lag": lag, "pending": pending, "oldest": oldest}
    parameters = {"name": worker, "is_counting": is_counting, "counted": has_counted} | backlog
    await connection.execute(QUERIES["report"], parameters, prepare=True)


async def report_stopped(connection: Connection, worker: str) -> None:
    """Write that a worker was stopped on purpose, so that it is not reported as missing."""
    await connection.execute(QUERIES["retire"], {"name": worker})


async def latest_polls(connection: Connection, most: int) -> tuple[list[dict[str, Any]], int]:
    """Return slug, state, round and votes of `most` polls, and the number of all. Open ones and new changes come first.

    It needs the rights of a worker or the owner.
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["latest_polls"], {"most": most})
        rows = await cursor.fetchall()
    number = rows[0]["polls"] if rows else 0
    return [{name: row[name] for name in ("slug", "state", "round", "votes")} for row in rows], number


async def read_status(connection: Connection, within: float | None = None) -> dict[str, Any]:
    """Return the data of `voting status`; it needs the rights of a worker or the owner.

    Keys: counted, dead, dead_within (dead letters of the last `within` seconds; None means all), last_count (seconds
    ago), read_only, workers (name -> age in seconds).
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["status"], {"within": within})
        row = await cursor.fetchone()
    return row or {}
