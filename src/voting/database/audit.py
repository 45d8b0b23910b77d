"""The audit log: what commands write into it, and whether its rows are those that were written.

Each row has a hash of the row before and of itself: see 0008_audit.sql. The database accepts new rows and refuses every
other change. A row that was changed, inserted or removed by force is found. One thing cannot be seen here: somebody
with the rights of the owner has cut off the newest rows, or has replaced everything from some row on. To see that,
compare the log with the fingerprint of a row that was noted elsewhere before, such as in the record of a final round.
"""

import json
from typing import Any, NamedTuple

from voting.database.connection import Connection
from voting.database.queries import QUERIES


class Head(NamedTuple):
    """The newest row: its number, 0 if there is none, and its hash in hexadecimal."""

    id: int
    hash: str

    def __str__(self) -> str:
        return f"{self.id:,}, fingerprint {fingerprint(self.hash)}"


def fingerprint(digest: str) -> str:
    """Return the beginning of a hash, as people compare it: `0123-4567-89ab-cdef`."""
    return bytes.fromhex(digest[:16]).hex("-", 2)


async def read_head(connection: Connection) -> Head:
    """Return the newest row."""
    cursor = await connection.execute(QUERIES["audit_head"])
    return Head(*(await cursor.fetchone() or (0, "")))


async def find_fault(connection: Connection) -> tuple[int, int | None]:
    """Compute all hashes again; return the number of rows, and the first row whose hash is wrong, if there is one."""
    cursor = await connection.execute(QUERIES["audit_fault"])
    rows, wrong = await cursor.fetchone() or (0, None)
    return rows, wrong


async def record_command(connection: Connection, action: str, *, poll: str | None = None, **detail: Any) -> None:
    """Write a row for what an operator did with a command, in the transaction that does it."""
    row = {"action": action, "poll": poll, "detail": json.dumps(detail)}
    await connection.execute(QUERIES["record_command"], row)
