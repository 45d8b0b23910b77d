"""Connections to PostgreSQL with time limits, and the classes of errors.

All connections are in autocommit mode, so each statement is a transaction of its own. Failures raise psycopg's errors;
`OUTAGES` and `DATA_ERRORS` say how to handle them.
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

# Errors by SQLSTATE: https://www.postgresql.org/docs/18/errcodes-appendix.html
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
    psycopg.errors.NotNullViolation,  # votes cannot cause these three: someone has added constraints to the schema
    psycopg.errors.UniqueViolation,
    psycopg.errors.ExclusionViolation,
)
# The vote becomes a dead letter: it can never be stored. All other errors are bugs and end the process.
DATA_ERRORS = (psycopg.DataError, psycopg.errors.CheckViolation, psycopg.errors.ForeignKeyViolation)
NOTIFY_CHANNEL = "tallies"  # payload: the slug of a poll with new tallies, and perhaps a traceparent
DEFINITIONS_CHANNEL = "definitions"  # payload: `poll SLUG` or `session CODE`, which was changed; `closing SLUG`


async def open_connection(url: str, *, name: str, timeout: float) -> Connection:
    """Connect; the caller closes the connection.

    Args:
        url: libpq URI.
        name: shown in pg_stat_activity.
        timeout: time limit of a statement in seconds. The server enforces it (`statement_timeout`), and cancels a
            statement if the client has disconnected. `deadline` covers a server that does not respond.
    """
    milliseconds = int(timeout * 1000)
    options = f"-c statement_timeout={milliseconds} -c client_connection_check_interval=2s -c jit=off"
    return await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name=f"voting {name}", connect_timeout=max(2, int(timeout)), options=options
    )


@asynccontextmanager
async def connect(url: str, *, name: str, timeout: float) -> AsyncIterator[Connection]:
    """Connect for the duration of the block; with the arguments of `open_connection`."""
    async with await open_connection(url, name=name, timeout=timeout) as connection:
        yield connection


@asynccontextmanager
async def deadline(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """Shut the connection down if the block takes longer; statements in the block then raise OperationalError.

    Cancelling the task instead would make psycopg send a cancel request to the silent server first, and wait for it.
    """
    handle = asyncio.get_running_loop().call_later(seconds, _shut_down, connection)
    try:
        yield
    finally:
        handle.cancel()


def _shut_down(connection: Connection) -> None:
    if connection.closed:
        return
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)
