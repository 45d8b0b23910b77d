"""The system of record: every statement that goes to PostgreSQL 18, and how long it may take.

The statements are in `sql/queries.sql`. All connections are in autocommit mode, so each statement is a
transaction of its own. Whatever fails raises a psycopg error; `OUTAGES` and `DATA_ERRORS` say what it means.
"""

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib import resources
from typing import Any, Literal, LiteralString, NamedTuple, cast

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, dict_row

from voting.core.ballot import DEFAULT_POLL, Backlog, BadPoll, EntryId, Poll, Vote
from voting.core.definition import Definition, define

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
CONNECTIONS = {"worker": 40, "result": 10}  # of a role at a time; a worker has two, a result service one
MAX_FIELDS_TEXT = 1000  # characters of a dead letter's content that are kept
_SQL = resources.files("voting.core") / "sql"


def _read_queries() -> dict[str, LiteralString]:
    """Read `queries.sql` into a dict: the name in each header -> the statement below it."""
    parts = re.split(r"^-- name: (\w+)$", (_SQL / "queries.sql").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: cast("LiteralString", text.strip()) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


_QUERIES = _read_queries()


class DeadLetter(NamedTuple):
    """A stream entry that can never become a vote, and why."""

    entry: EntryId
    reason: str
    fields: list[bytes]


class Standing(NamedTuple):
    """One poll as the database holds it now, and how far counting has come."""

    poll: Poll
    revision: int
    votes: dict[str, int]
    waiting: int
    paused_since: datetime | None


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


async def count(
    connection: Connection, votes: Sequence[Vote], dead: Sequence[DeadLetter], traceparent: str = ""
) -> int:
    """Count a batch, in one statement and so in one transaction; return how many votes changed a tally or a row.

    Args:
        connection: in autocommit mode.
        votes: at most one for each voter of a poll, sorted, as `ballot.latest` gives them. Votes that are not newer
            than the voter's own in the database change nothing, so a batch may be counted again and again.
        dead: entries to put aside for good, in the same transaction.
        traceparent: goes out with the notification, so that the snapshot which follows belongs to a trace.

    Inside an array literal slugs and keys are quoted, since one may be `null`, and need no escapes. Joining them costs
    a fraction of what psycopg's adaptation of lists does.
    """
    parameters = {
        "polls": _quoted(vote.poll for vote in votes),
        "voters": _array(vote.voter.hex() for vote in votes),
        "choices": _quoted(vote.choice for vote in votes),
        "ms": _array(str(vote.entry.ms) for vote in votes),
        "seqs": _array(str(vote.entry.seq) for vote in votes),
        "dead_ms": [letter.entry.ms for letter in dead],
        "dead_seqs": [letter.entry.seq for letter in dead],
        "dead_reasons": [letter.reason for letter in dead],
        "dead_fields": [_legible(letter.fields) for letter in dead],
        "trace": f" {traceparent}" if traceparent else "",
    }
    cursor = await connection.execute(_QUERIES["count"], parameters, prepare=True)
    row = await cursor.fetchone()
    return row[1] if row else 0


def _array(values: Iterable[str]) -> str:
    return "{" + ",".join(values) + "}"


def _quoted(values: Iterable[str]) -> str:
    joined = '","'.join(values)
    return f'{{"{joined}"}}' if joined else "{}"


def _legible(fields: list[bytes]) -> str:
    """The fields of an entry as text that PostgreSQL can hold, whatever the bytes were."""
    shown = [repr(part[:MAX_FIELDS_TEXT])[2:-1] for part in fields[:20]]
    return ", ".join(f"{name}={value}" for name, value in zip(shown[::2], shown[1::2], strict=False))[:MAX_FIELDS_TEXT]


async def polls(connection: Connection) -> tuple[tuple[Poll, ...], dict[str, str]]:
    """Return all polls that are defined, and of rows that are no polls the slug and what is wrong."""
    cursor = await connection.execute(_QUERIES["polls"])
    return _read(await cursor.fetchall())


def _read(rows: Iterable[tuple[Any, ...]]) -> tuple[tuple[Poll, ...], dict[str, str]]:
    good, bad = [], {}
    for slug, question, options in rows:
        try:
            good.append(Poll.of(slug, question, options))
        except BadPoll as error:
            bad[slug] = str(error)
    return tuple(good), bad


async def newest_entry(connection: Connection, latest: int) -> EntryId:
    """Return the newest stream entry that was ever counted or put aside; 0-0 when there was none.

    Args:
        connection: in autocommit mode.
        latest: milliseconds since the epoch; an entry id above it is nobody's but a forger's, and is not looked at.
    """
    cursor = await connection.execute(_QUERIES["newest_entry"], {"latest": latest})
    row = await cursor.fetchone()
    return EntryId(int(row[0]), int(row[1])) if row else EntryId(0, 0)


async def standings(connection: Connection) -> tuple[list[Standing], dict[str, str]]:
    """Return every poll's tallies, all of one moment, and of rows that are no polls the slug and what is wrong."""
    cursor = await connection.execute(_QUERIES["snapshot"], prepare=True)
    rows = await cursor.fetchall()
    polls, bad = _read(row[:3] for row in rows)
    rest = [row[3:] for row in rows if row[0] not in bad]
    return [Standing(poll, *facts) for poll, facts in zip(polls, rest, strict=True)], bad


async def report(connection: Connection, worker: str, backlog: Backlog, *, works: bool, counted: bool) -> None:
    """Write what waits; `works`: whether the worker can count now; `counted`: a vote, since its last report."""
    parameters = {
        "name": worker,
        "lag": backlog.lag,
        "pending": backlog.pending,
        "oldest": backlog.oldest,
        "works": works,
        "counted": counted,
    }
    await connection.execute(_QUERIES["report"], parameters, prepare=True)


async def retire(connection: Connection, worker: str) -> None:
    """Say that a worker has stopped because it was told to."""
    await connection.execute(_QUERIES["retire"], {"name": worker})


async def status(connection: Connection, within: float | None = None) -> dict[str, Any]:
    """Return what `voting status` shows of the database.

    Args:
        connection: as a worker or the owner.
        within: `dead_within` counts the dead letters of so many seconds; None: all.

    Returns:
        counted, dead, dead_within, last_count (seconds), read_only, workers (name -> age in seconds).
    """
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_QUERIES["status"], {"within": within})
        row = await cursor.fetchone()
    return row or {}


async def define_role(connection: Connection, service: Literal["worker", "result"], password: str) -> None:
    """Make the role `voting_<service>`, with just the rights that the service needs, or give it a new password."""
    role = sql.Identifier(f"voting_{service}")
    async with connection.transaction():
        cursor = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [f"voting_{service}"])
        verb = sql.SQL("ALTER" if await cursor.fetchone() else "CREATE")
        # A password cannot be a parameter, and statements are logged: the server gets what it would store.
        verifier = connection.pgconn.encrypt_password(password.encode(), f"voting_{service}".encode(), b"scram-sha-256")
        definition = sql.SQL("{} ROLE {} LOGIN CONNECTION LIMIT {} PASSWORD {}")
        limit, word = sql.Literal(CONNECTIONS[service]), sql.Literal(verifier.decode())
        await connection.execute(definition.format(verb, role, limit, word))
        await connection.execute(_QUERIES[f"grant_{service}"])
        await connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # a database from before PostgreSQL 15
        database = sql.Identifier(connection.info.dbname)
        await connection.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(database))


async def installations(connection: Connection) -> list[str]:
    """Return the ids of the installations that the database belongs to, the first one first."""
    cursor = await connection.execute(_QUERIES["installations"])
    return [identifier for (identifier,) in await cursor.fetchall()]


async def add_installations(connection: Connection, ids: Sequence[str]) -> None:
    """Let the database belong to these installations too."""
    await connection.execute(_QUERIES["add_installations"], {"ids": list(ids)})


def statement(name: str) -> LiteralString:
    """One of the statements in `queries.sql`, for a command that runs it as it is."""
    return _QUERIES[name]


def known_migrations() -> list[str]:
    """The migrations that this version has, in order."""
    return sorted(script.name for script in (_SQL / "migrations").iterdir())


async def migrations(connection: Connection) -> list[str]:
    """The migrations that the database has had, in order."""
    cursor = await connection.execute("SELECT name FROM schema_migrations ORDER BY name")
    return [name for (name,) in await cursor.fetchall()]


async def _define(connection: Connection, given: Definition) -> None:
    """Write the default poll. Its row is locked first, so that no vote is counted between reading the tallies and this.

    A poll that stays as it is is not written: it may be from before the checks of the database.
    """
    cursor = await connection.execute(_QUERIES["default_poll"], {"slug": DEFAULT_POLL})
    row = await cursor.fetchone()
    try:
        stored = Poll.of(DEFAULT_POLL, *row) if row else None
    except BadPoll as error:
        if given == Definition():
            return
        raise BadPoll(f"the default poll in the database is none ({error}): mend its row in the table polls") from None
    cursor = await connection.execute(_QUERIES["votes_of_poll"], {"slug": DEFAULT_POLL})
    poll = define(given, stored, dict(await cursor.fetchall()))
    if poll == stored:
        return
    parameters = {"slug": poll.slug, "question": poll.question, "options": poll.options_json()}
    try:
        await connection.execute(_QUERIES["define_poll"], parameters)
    except psycopg.errors.CheckViolation as error:
        raise BadPoll(f"{error.diag.message_primary}") from None
    await connection.execute("SELECT pg_notify(%s, %s)", [NOTIFY_CHANNEL, poll.slug])


async def migrate(connection: Connection, given: Definition | None) -> list[str]:
    """Bring the schema up to date and define the default poll, all or nothing; return the migrations applied.

    An advisory lock lets only one migration run at a time.

    Raises:
        Conflict: the settings would change what votes mean.
        BadPoll: the stored poll is none, or has to be mended before it can be changed.
    """
    applied = []
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('voting migrate'))")
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY)")
        done = await migrations(connection)
        for name in known_migrations():
            if name not in done:
                await connection.execute((_SQL / "migrations" / name).read_text(encoding="utf-8"))
                await connection.execute("INSERT INTO schema_migrations VALUES (%s)", [name])
                applied.append(name)
        if given is not None:
            await _define(connection, given)
    return applied
