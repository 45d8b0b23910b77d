"""The system of record: every statement that goes to PostgreSQL 18, and how long it may take.

The statements are in `sql/queries.sql`. All connections are in autocommit mode, so each statement is a
transaction of its own. Whatever fails raises a psycopg error; `OUTAGES` and `DATA_ERRORS` say what it means.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.rows import TupleRow

Connection = psycopg.AsyncConnection[TupleRow]

# What to do when a statement fails, by SQLSTATE: https://www.postgresql.org/docs/18/errcodes-appendix.html
# Try again later: no connection (08, 57P), a server that is read-only during a failover (25006) or out of resources
# (53), and a schema or grants that a migration, a restore or a rotation is changing.
OUTAGES = (
    OSError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.FeatureNotSupported,  # "cached plan must not change result type"; a new connection has none
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.NotNullViolation,  # these three no vote can cause: the schema has what we do not know
    psycopg.errors.UniqueViolation,
    psycopg.errors.ExclusionViolation,
)
# Put the vote aside: what it says can never be stored. All other errors are bugs and end the process.
DATA_ERRORS = (psycopg.DataError, psycopg.errors.CheckViolation, psycopg.errors.ForeignKeyViolation)
NOTIFY_CHANNEL = "tallies"


@asynccontextmanager
async def connect(url: str, *, name: str, patience: float) -> AsyncIterator[Connection]:
    """A connection on which no statement takes longer than `patience` seconds, whichever side falls silent.

    The server is told (`statement_timeout`, and to look whether we are still there); `deadline` is our own half.
    `name` is what pg_stat_activity shows.
    """
    milliseconds = int(patience * 1000)
    options = f"-c statement_timeout={milliseconds} -c client_connection_check_interval=2s -c jit=off"
    connection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name=f"voting {name}", connect_timeout=max(2, int(patience)), options=options
    )
    async with connection:
        yield connection


@asynccontextmanager
async def deadline(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """Cut the connection when the block takes longer: whatever waits in it gets an OperationalError.

    Cancelling the task instead would make psycopg ask the silent server for a cancellation first, and wait for that.
    """
    handle = asyncio.get_running_loop().call_later(seconds, _cut, connection)
    try:
        yield
    finally:
        handle.cancel()


def _cut(connection: Connection) -> None:
    if connection.closed:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
