"""The audit log as a file: a line for each row, from the first one on, with the text that was hashed and the hash.

Whoever has the file can compute the hashes without this program: each is the SHA-256 of the hash before, 32 zero bytes
for the first line, followed by the text in UTF-8.
"""

import json
from collections.abc import AsyncIterator

from psycopg.rows import dict_row

from voting.admin.database import Database
from voting.database.audit import Head, read_head
from voting.database.queries import QUERIES

CHUNK = 1000  # rows that are read in one transaction


async def newest(database: Database) -> Head:
    """Return the row with which an export ends that begins now."""
    async with database.read() as connection:
        return await read_head(connection)


async def lines(database: Database, last: int) -> AsyncIterator[bytes]:
    """Yield the lines up to a row. Rows never change, so they need not be read in one transaction."""
    after = 0
    while after < last:
        async with database.read() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(QUERIES["admin_audit_texts"], {"after": after, "last": last, "limit": CHUNK})
            rows = await cursor.fetchall()
        if not rows:
            return
        after = rows[-1].pop("id")
        yield b"".join(
            json.dumps({"text": row["text"], "hash": row["hash"]}, ensure_ascii=False).encode() + b"\n" for row in rows
        )
