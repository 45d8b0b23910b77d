"""Transactions on the database, with a time limit, on a few connections that are kept.

A transaction is done completely or not at all. If the database is away it ends in a `Problem` with status 503, and
nothing was changed: reason `database_away`. If the connection breaks while COMMIT is on its way, nobody knows: reason
`unknown`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg

from voting.admin.change import Change
from voting.admin.identity import Identity
from voting.admin.metrics import AdminMetrics
from voting.admin.problems import Invalid, invalid
from voting.database.connection import DATA_ERRORS, OUTAGES, Connection, deadline, open_connection
from voting.service import logs
from voting.service.lifecycle import Stop, pause
from voting.settings.services import AdminSettings
from voting.settings.urls import redacted
from voting.web.language import translatable
from voting.web.problems import Problem

CONNECTIONS = 6  # of the ten that the role may have; the others are for a second process during an update
KEPT = 1  # idle connections that stay open: each takes 2 MiB in the server
SECONDS = 1.9  # time limit of a transaction, with waiting for a connection and for locks
CHECK_SECONDS = 1.0

AWAY = translatable("Not now: the database does not answer. Nothing was changed. Please try again in a moment.")
UNKNOWN = translatable(
    "The database stopped answering at the last moment. Check whether the change was made before you try again."
)
log = logs.get()


class Database:
    """The connections of the admin service."""

    def __init__(self, settings: AdminSettings, metrics: AdminMetrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._idle: list[Connection] = []
        self.on_change: list[Callable[[list[str]], None]] = []  # called after each change, with its actions
        self._answered_at = float("-inf")
        self._lost = False

    @property
    def ready(self) -> bool:
        """Whether the database has answered within the last seconds."""
        return time.monotonic() - self._answered_at < 3 * CHECK_SECONDS

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """Run the block in a transaction that sees the database at one moment."""
        async with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
            yield connection

    @asynccontextmanager
    async def write(self, who: Identity) -> AsyncIterator[Change]:
        """Run the block in a transaction that holds the lock of all definitions."""
        async with self._transaction("BEGIN") as connection:
            await connection.execute("SELECT lock_definitions()")
            change = Change(connection, who)
            yield change
        for action in change.actions:
            self._metrics.changes.labels(action).inc()
        for notify in self.on_change:
            notify(change.actions)

    @asynccontextmanager
    async def work(self) -> AsyncIterator[Connection]:
        """Run the block in a transaction that changes neither polls nor sessions."""
        async with self._transaction("BEGIN") as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[Connection]:
        end = asyncio.get_running_loop().time() + SECONDS
        committing = False
        try:
            async with self._begun(begin, end) as connection:
                yield connection
                committing = begin == "BEGIN"
                await connection.execute("COMMIT")
        except DATA_ERRORS as error:
            raise _refused(error) from None
        except OUTAGES as error:
            self._report_lost(error)
            raise Problem(503, *(("unknown", UNKNOWN) if committing else ("database_away", AWAY))) from None
        self._report_answer()

    @asynccontextmanager
    async def _begun(self, begin: str, end: float) -> AsyncIterator[Connection]:
        """Begin a transaction on a free connection, and close the connection if the block raises an error."""
        async with asyncio.timeout_at(end):
            await self._free.acquire()
        try:
            connection = await self._begin(begin, end)
            try:
                async with deadline(connection, end - asyncio.get_running_loop().time()):
                    try:
                        yield connection
                    except Problem:
                        await connection.execute("ROLLBACK")
                        self._idle.append(connection)
                        raise
            except Problem:
                raise
            except BaseException:
                await _discard(connection)
                raise
            self._idle.append(connection)
        finally:
            self._free.release()

    async def _begin(self, begin: str, end: float) -> Connection:
        """Begin on a kept connection, or on a new one if those have been closed since their last use."""
        while self._idle:
            with contextlib.suppress(*OUTAGES):
                return await _run(self._idle.pop(), begin, end)
        async with asyncio.timeout_at(end):
            url = await self._settings.reread("database_url")
            connection = await open_connection(url, name="admin", timeout=2)
        return await _run(connection, begin, end)

    def _report_answer(self) -> None:
        if self._lost or self._answered_at == float("-inf"):
            self._lost = False
            log.info("database.connected", database=redacted(self._settings.database_url))
        self._answered_at = time.monotonic()

    def _report_lost(self, error: BaseException) -> None:
        if not self._lost:
            self._lost = True
            self._metrics.interruptions.inc()
        log.warning("database.lost", error=f"{type(error).__name__}: {error}")

    async def run(self, stop: Stop) -> None:
        """Ask the database once a second whether it answers, for `ready`, until `stop` is set.

        Then close one of the connections that were idle, the one that was used least recently.
        """
        while not stop.is_set():
            with contextlib.suppress(Problem):
                async with self.read() as connection:
                    await connection.execute("SELECT 1")
            if len(self._idle) > KEPT:
                await _discard(self._idle.pop(0))
            await pause(stop, CHECK_SECONDS)

    async def close(self) -> None:
        """Close the connections, when no transaction is left."""
        while self._idle:
            await _discard(self._idle.pop())


async def _run(connection: Connection, begin: str, end: float) -> Connection:
    """Run the statement that begins a transaction and return the connection; close it if that fails."""
    try:
        async with deadline(connection, end - asyncio.get_running_loop().time()):
            await connection.execute(begin.encode())
    except BaseException:
        await _discard(connection)
        raise
    return connection


async def _discard(connection: Connection) -> None:
    with contextlib.suppress(*OUTAGES):
        await connection.close()


def _refused(error: psycopg.Error) -> Invalid:
    """Return the refusal of a row that the checks of the schema do not accept, though ours did."""
    return invalid("", translatable("The database does not accept this: {reason}"), reason=error.diag.message_primary)
