"""`voting backup` and `voting restore`: polls, sessions, votes, tallies, ballots, codes and the audit log in one file.

A backup is one REPEATABLE READ snapshot. It needs only a worker's rights and blocks nothing. It does not include votes
that wait on the stream. A restore is one transaction. Before it commits, it checks the totals of the file, and each
poll's tally against its votes. A draft that was to open in the meantime stays a draft, without `opens_at`. The audit
log is that of the backup, and a row that says so; it has the hash of the newest row that was replaced.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import psycopg
from psycopg import sql

from voting import __version__
from voting.database import counting, migrations
from voting.database.audit import read_head, record_command
from voting.database.connection import Connection, connect
from voting.database.installations import add_installations, installations
from voting.database.queries import QUERIES
from voting.operate.archive import PIECE, BadArchive, Reader, Totals, Writer
from voting.operate.backup_tables import CLEARED, COLUMNS, FIRST_COLUMNS, copy_statement
from voting.polls.vote import max_entry_ms

CONNECT_SECONDS = 10
LOCK_SECONDS = 30
LOCK_TRIES = 5
MAX_NAMED = 5  # polls that a message names


class CannotRestore(Exception):
    """The database is unchanged; the message says why, and what to do."""


class Summary(NamedTuple):
    """What was written or restored. `missed` are the drafts that were to open before they were restored."""

    polls: int
    votes: int
    dead_letters: int
    newest: str
    missed: tuple[str, ...] = ()

    def __str__(self) -> str:
        letters = f", {self.dead_letters:,} dead letters" if self.dead_letters else ""
        return f"{self.votes:,} votes in {self.polls:,} polls{letters}; newest entry {self.newest}{self._missed()}"

    def _missed(self) -> str:
        if not self.missed:
            return ""
        more = ", …" if len(self.missed) > MAX_NAMED else ""
        names = ", ".join(self.missed[:MAX_NAMED])
        return f"; still drafts, though their time to open has passed: {names}{more} (open them in admin)"


@asynccontextmanager
async def _connect(url: str, name: str) -> AsyncIterator[Connection]:
    """Connect without a time limit for statements, but with one for locks."""
    async with connect(url, name=name, timeout=CONNECT_SECONDS) as connection:
        await connection.execute("SET statement_timeout = 0")
        await connection.execute(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        yield connection


async def dump(url: str, file: BinaryIO) -> Summary:
    """Write a backup of the database.

    Raises:
        CannotRestore: tallies and votes do not match, so this backup could not be restored.
        psycopg.Error: the database does not answer, or the role may not read all tables.
        OSError: the file cannot be written.
    """
    async with _connect(url, "backup") as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await _check_tallies(connection)
        about = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": __version__,
            "migrations": await migrations.applied_migrations(connection),
            "installations": await installations(connection),
            "columns": COLUMNS,
        }
        writer = Writer(file, about)
        for table in COLUMNS:
            await _copy_out(connection, table, writer)
        writer.finish()
        return await _summary(connection)


async def _copy_out(connection: Connection, table: str, writer: Writer) -> None:
    piece = bytearray()
    async with connection.cursor() as cursor:
        async with cursor.copy(copy_statement("COPY {} ({}) TO STDOUT", table, COLUMNS[table])) as rows:
            async for row in rows:
                piece += row
                if len(piece) >= PIECE:
                    writer.add_piece(table, bytes(piece))
                    piece.clear()
        writer.add_piece(table, bytes(piece))
        writer.end_table(table, cursor.rowcount)


async def restore(url: str, file: BinaryIO, *, replace: bool) -> Summary:
    """Migrate the database and load a backup into it.

    Args:
        url: connects as the owner of the database.
        file: the backup.
        replace: delete what the database holds; without it, existing votes or dead letters are an error.

    Raises:
        CannotRestore: the database is not empty, the backup is of a newer version, or its tallies are wrong.
        archive.BadArchive: the file is not a complete backup.
        psycopg.Error: the database does not answer, or the role lacks a right.
    """
    reader = Reader(file)
    if unknown := set(reader.about["migrations"]) - set(migrations.known_migrations()):
        message = f"voting {reader.about['version']} made this backup (with {max(unknown)}): update voting first"
        raise CannotRestore(message)
    columns = _columns(reader)
    async with _connect(url, "restore") as connection, connection.transaction():
        await migrations.migrate(connection, None)
        tables = sql.SQL(", ").join(map(sql.Identifier, (*COLUMNS, *CLEARED)))
        await _lock(connection, tables)
        existing = await _summary(connection)
        if (existing.votes or existing.dead_letters) and not replace:
            raise CannotRestore(f"the database holds {existing}; --replace deletes them")
        await connection.execute(QUERIES["announce_all"])  # polls that the backup does not have are gone
        replaced = await read_head(connection)
        await connection.execute("ALTER TABLE audit DISABLE TRIGGER USER")
        await connection.execute(sql.SQL("TRUNCATE {}").format(tables))
        await connection.execute("ALTER TABLE polls DISABLE TRIGGER check_poll")  # a backup may have older polls
        await add_installations(connection, reader.about.get("installations", []))  # version 0.1 has none
        await _copy_in(connection, reader, columns)
        await connection.execute("ALTER TABLE polls ENABLE TRIGGER check_poll")
        if "closings" not in columns:
            await connection.execute(QUERIES["add_closings"])
        await connection.execute(QUERIES["chain_audit"])
        await connection.execute(
            "ALTER TABLE audit ENABLE ALWAYS TRIGGER append_audit, ENABLE ALWAYS TRIGGER keep_audit"
        )
        await _check_tallies(connection)
        cursor = await connection.execute(QUERIES["clear_missed_openings"])
        missed = tuple(sorted([slug for (slug,) in await cursor.fetchall()]))
        for name in ("restored", "restored_deletions"):
            await connection.execute(QUERIES[name], {"now": int(time.time() * 1_000_000)})
        summary = (await _summary(connection))._replace(missed=missed)
        detail: dict[str, Any] = {"made": reader.about.get("made"), "missed": list(missed)}
        await record_command(connection, "restore", replaced=replaced._asdict(), **detail)
        return summary


def _columns(reader: Reader) -> dict[str, tuple[str, ...]]:
    """Return the columns of each table in the file; or raise `BadArchive` if this version does not have one."""
    columns = {table: tuple(names) for table, names in reader.about.get("columns", FIRST_COLUMNS).items()}
    for table, names in columns.items():
        if unknown := set(names) - set(COLUMNS.get(table, ())):
            raise BadArchive(f"it has an unexpected column: {table}.{min(unknown)}")
    return columns


async def _lock(connection: Connection, tables: sql.Composed) -> None:
    """Lock the tables exclusively. Services lock them in another order, so try again after a deadlock."""
    for attempt in range(LOCK_TRIES):
        try:
            async with connection.transaction():  # a savepoint: a deadlock releases the locks taken so far
                await connection.execute("SELECT lock_definitions()")
                await connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(tables))
        except psycopg.errors.DeadlockDetected:
            if attempt + 1 == LOCK_TRIES:
                raise
        else:
            return


async def _copy_in(connection: Connection, reader: Reader, columns: Mapping[str, Sequence[str]]) -> None:
    totals = {table: Totals() for table in columns}
    found = {}
    pieces = reader.pieces()
    table, data = next(pieces, ("", b""))
    while table:
        if table not in totals or table in found:
            raise BadArchive(f"it has an unexpected table: {table}")
        async with connection.cursor() as cursor:
            current = table
            try:
                async with cursor.copy(copy_statement("COPY {} ({}) FROM STDIN", table, columns[table])) as rows:
                    while table == current:
                        totals[current].add(data)
                        await rows.write(data)
                        table, data = next(pieces, ("", b""))
            except (psycopg.DataError, psycopg.IntegrityError) as error:
                raise BadArchive(f"its rows of {current} cannot be read ({error.diag.message_primary})") from None
            found[current] = totals[current].entry(cursor.rowcount)
    if found != reader.manifest or set(found) != set(columns):
        raise BadArchive("its contents do not match its manifest: the file was damaged or changed")


async def _check_tallies(connection: Connection) -> None:
    cursor = await connection.execute(QUERIES["drift"])
    if rows := await cursor.fetchall():
        drift = "; ".join(f"{poll} {choice}: tally {tally}, votes {votes}" for poll, choice, tally, votes in rows[:5])
        message = f"tallies and votes do not match ({drift}): not only workers changed them; correct them first"
        raise CannotRestore(message)


async def _summary(connection: Connection) -> Summary:
    cursor = await connection.execute(QUERIES["summary"])
    polls, votes, dead = await cursor.fetchone() or (0, 0, 0)
    return Summary(polls, votes, dead, str(await counting.newest_entry(connection, max_entry_ms())))


def dump_to_path(url: str, target: Path) -> Summary:
    """Write a backup to a file, which appears only when complete, or to standard output if `target` is `-`."""
    if str(target) == "-":
        summary = asyncio.run(dump(url, sys.stdout.buffer))
        sys.stdout.flush()
        return summary
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target} is not a file: use - for standard output")
    # Private from its first byte: it has the choice of each pseudonym.
    descriptor, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            summary = asyncio.run(dump(url, file))
            file.flush()
            os.fsync(descriptor)
        Path(draft).rename(target)
    finally:
        Path(draft).unlink(missing_ok=True)
    return summary


def restore_from_path(url: str, source: Path, *, replace: bool) -> Summary:
    """Restore a backup from a file, or from standard input if `source` is `-`."""
    if str(source) == "-":
        return asyncio.run(restore(url, sys.stdin.buffer, replace=replace))
    with source.open("rb") as file:
        return asyncio.run(restore(url, file, replace=replace))
