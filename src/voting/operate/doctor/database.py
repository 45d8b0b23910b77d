"""Checks the database's durability, version, schema, grants, tallies and audit log.

What a check of the audit log cannot show is in `database/audit.py`.
"""

import time

import psycopg
from psycopg.conninfo import conninfo_to_dict

from voting.database import migrations
from voting.database.audit import find_fault, read_head
from voting.database.connection import Connection, connect, deadline
from voting.database.definition import poll_problems
from voting.database.poll_state import read_definitions
from voting.database.queries import QUERIES
from voting.operate.doctor.report import Report, is_remote
from voting.polls.poll import Poll
from voting.settings.urls import redacted

ABOUT = "database"
TIMEOUT_SECONDS = 3.0
COUNT_SECONDS = 20.0  # comparing tallies reads every vote
MIN_VERSION = 18
_CHANGED = "find who has the rights of the database's owner; the fingerprint in the minutes tells which record is right"
_CLOSING_FAULTS = {
    "open": (
        "round {} of {} has been closed for a minute and is not final",
        "start a worker that reaches both stores; see round.bad and closing.interrupted in its log",
    ),
    "tallies": ("the tallies of round {} of {} are not those of its final record", _CHANGED),
    "ballots": ("the published ballots of round {} of {} are not those of its final record", _CHANGED),
}
# https://www.postgresql.org/docs/18/runtime-config-wal.html
DURABLE = {
    "fsync": "a crash of the machine may corrupt the database",
    "full_page_writes": "a crash of the machine may corrupt the database",
    "synchronous_commit": "a crash may lose counted votes, since workers acknowledge after COMMIT",
}


async def check(report: Report, url: str) -> tuple[tuple[Poll, ...] | None, float | None]:
    """Check the database; return its polls, and by how many seconds its clock is ahead of ours."""
    try:
        for host in _unverified(url):
            what = f"the connection to {host} is not verified"
            fix = "add sslmode=verify-full&sslrootcert=<file with its authority> to DATABASE_URL"
            report.add_problem(ABOUT, what, fix)
        async with connect(url, name="doctor", timeout=COUNT_SECONDS) as connection:
            async with deadline(connection, TIMEOUT_SECONDS):
                version = await _check_server(report, connection)
                is_migrated = await _check_schema(report, connection)
                began = time.time()
                cursor = await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float")
                ((seconds,),) = await cursor.fetchall()
                ahead = seconds - (began + time.time()) / 2
            if not is_migrated:
                return None, ahead
            async with deadline(connection, TIMEOUT_SECONDS):
                await _check_grants(report, connection)
                polls, bad = await read_definitions(connection)
            for fault, fix in poll_problems(polls, bad):
                report.add_problem(ABOUT, fault, fix)
            await _check_tallies(report, connection)
            await _check_closings(report, connection)
            log = await _check_log(report, connection)
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        what = f"{redacted(url)} does not answer ({reason})"
        fix = "start it, or correct DATABASE_URL; votes are accepted and wait until then"
        report.add_problem(ABOUT, what, fix)
        return None, None
    report.add_passed(ABOUT, f"PostgreSQL {version}: durable, schema and grants in place, tallies exact{log}")
    return polls, ahead


def _unverified(url: str) -> list[str]:
    """Return the remote hosts whose certificates are not verified; or raise psycopg.ProgrammingError for a bad URL."""
    parameters = conninfo_to_dict(url)
    if parameters.get("sslmode") in {"verify-full", "verify-ca"}:
        return []
    hosts = str(parameters.get("host", "")).split(",")
    return [host for host in hosts if is_remote(host) and not host.startswith("/")]  # a path is a Unix socket


async def _check_server(report: Report, connection: Connection) -> str:
    number = connection.info.server_version
    version = f"{number // 10000}.{number % 10000}"
    if number < MIN_VERSION * 10000:
        report.add_problem(ABOUT, f"PostgreSQL {version} is too old", f"use PostgreSQL {MIN_VERSION} or newer")
    cursor = await connection.execute("SELECT pg_is_in_recovery()")
    if await cursor.fetchone() == (True,):
        report.add_problem(ABOUT, "it is a replica, which accepts no votes", "use the primary in DATABASE_URL")
    for name, consequence in DURABLE.items():
        cursor = await connection.execute("SELECT current_setting(%s)", [name])
        if await cursor.fetchone() == ("off",):
            report.add_problem(ABOUT, f"{name} is off: {consequence}", f"set {name} = on")
    return version


async def _check_schema(report: Report, connection: Connection) -> bool:
    """Return whether all migrations were applied."""
    try:
        done = await migrations.applied_migrations(connection)
    except psycopg.errors.UndefinedTable:
        done = []
    except psycopg.errors.InsufficientPrivilege:
        report.add_problem(ABOUT, "this role may not read which migrations were applied", "run voting migrate")
        return False
    if missing := [name for name in migrations.known_migrations() if name not in done]:
        report.add_problem(ABOUT, f"the schema lacks {', '.join(missing)}", "run voting migrate")
    if unknown := sorted(set(done) - set(migrations.known_migrations())):
        report.add_problem(ABOUT, f"the schema has {', '.join(unknown)} of a newer version", "update this installation")
    return not missing


async def _check_grants(report: Report, connection: Connection) -> None:
    lacks = ("{} lacks {} on {}", "run voting migrate, or as the owner: GRANT {1} ON {2} TO {0}")
    exceeds = ("{} has {} on {}, which it does not need", "as the owner: REVOKE {1} ON {2} FROM {0}")
    for query, (what, fix) in (("grants_lacking", lacks), ("grants_beyond", exceeds)):
        cursor = await connection.execute(QUERIES[query])
        for grant in await cursor.fetchall():
            report.add_problem(ABOUT, what.format(*grant), fix.format(*grant))


async def _check_tallies(report: Report, connection: Connection) -> None:
    try:
        cursor = await connection.execute(QUERIES["drift"])
    except psycopg.errors.QueryCanceled:
        what = f"tallies (took over {COUNT_SECONDS:.0f} s)"
        report.add_unchecked(ABOUT, what, "compare them with a backup: voting backup")
        return
    except psycopg.errors.InsufficientPrivilege:
        report.add_unchecked(ABOUT, "tallies (no right to read votes)", "use the worker's DATABASE_URL")
        return
    for poll, choice, tally, votes in await cursor.fetchall():
        what = f"the tally of {choice} in {poll} is {tally}, but there are {votes} votes"
        fix = "find what changed the tables besides workers; stop the workers and set tallies to the counts of GROUP BY"
        report.add_problem(ABOUT, what, fix)


async def _check_closings(report: Report, connection: Connection) -> None:
    try:
        cursor = await connection.execute(QUERIES["closing_faults"])
    except (psycopg.errors.QueryCanceled, psycopg.errors.InsufficientPrivilege) as error:
        fix = "use the worker's DATABASE_URL; voting verify checks a published list"
        report.add_unchecked(ABOUT, f"the records of final rounds ({type(error).__name__})", fix)
        return
    for poll, round_, fault in await cursor.fetchall():
        report.add_problem(ABOUT, *(text.format(round_, poll) for text in _CLOSING_FAULTS[fault]))


async def _check_log(report: Report, connection: Connection) -> str:
    """Check the hashes of the audit log; return what is said of it if they are right."""
    fix = "find who has the rights of the database's owner, and compare with exports and backups: docs/operations.md"
    try:
        async with connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            rows, wrong = await find_fault(connection)
            head = await read_head(connection)
    except psycopg.errors.QueryCanceled:
        report.add_unchecked(ABOUT, f"the audit log (took over {COUNT_SECONDS:.0f} s)", "export it, and check the file")
        return ""
    except psycopg.errors.InsufficientPrivilege:
        report.add_unchecked(ABOUT, "the audit log (no right to read it)", "use the worker's DATABASE_URL")
        return ""
    if wrong is not None:
        what = f"row {wrong:,} of the audit log is not the one that was written, or rows before it were changed"
        report.add_problem(ABOUT, what, fix)
    return f", {rows:,} rows in the audit log, the newest is {head}" if rows else ", audit log empty"
