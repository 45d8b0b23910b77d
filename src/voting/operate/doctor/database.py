"""Is the database what the promise rests on: durable, of the right version and schema, with the right grants?"""

import time

import psycopg
from psycopg.conninfo import conninfo_to_dict

from voting.database import migrations
from voting.database.connection import Connection, connect, deadline
from voting.database.definition import poll_problems
from voting.database.poll_state import read_definitions
from voting.database.queries import statement
from voting.operate.doctor.report import Report, is_far
from voting.polls import Poll
from voting.settings.urls import redacted

ABOUT = "database"
PATIENCE = 3.0
COUNT_SECONDS = 20.0  # comparing tallies reads every vote
OLDEST = 18
# https://www.postgresql.org/docs/18/runtime-config-wal.html
DURABLE = {
    "fsync": "a crash of the machine may ruin the database",
    "full_page_writes": "a crash of the machine may ruin the database",
    "synchronous_commit": "a counted vote may be lost: workers acknowledge after COMMIT",
}


async def examine(report: Report, url: str) -> tuple[tuple[Poll, ...] | None, float | None]:
    """Look at the database; return its polls, and how far its clock is ahead of ours in seconds."""
    before = len(report.findings)
    try:
        for host in _unverified(url):
            report.problem(
                ABOUT,
                f"the connection to {host} is not verified",
                "add sslmode=verify-full&sslrootcert=<file of its authority> to DATABASE_URL",
            )
        async with connect(url, name="doctor", timeout=COUNT_SECONDS) as connection:
            async with deadline(connection, PATIENCE):
                version = await _examine_server(report, connection)
                is_migrated = await _examine_schema(report, connection)
                began = time.time()
                cursor = await connection.execute("SELECT extract(epoch FROM clock_timestamp())::float")
                ((seconds,),) = await cursor.fetchall()
                ahead = seconds - (began + time.time()) / 2
            if not is_migrated:
                return None, ahead
            async with deadline(connection, PATIENCE):
                await _examine_grants(report, connection)
                polls, bad = await read_definitions(connection)
            for fault, fix in poll_problems(polls, bad):
                report.problem(ABOUT, fault, fix)
            await _examine_tallies(report, connection)
    except psycopg.Error as error:
        reason = str(error).splitlines()[0]
        report.problem(
            ABOUT,
            f"{redacted(url)} does not answer ({reason})",
            "start it, or correct DATABASE_URL; votes are accepted and wait until then",
        )
        return None, None
    report.note(ABOUT, f"PostgreSQL {version}: durable, schema and grants in place, tallies exact", unless=before)
    return polls, ahead


def _unverified(url: str) -> list[str]:
    """Return the hosts that are far, if nothing proves that it is they who answer.

    Raises:
        psycopg.ProgrammingError: libpq cannot read the URL.
    """
    parameters = conninfo_to_dict(url)
    if parameters.get("sslmode") in {"verify-full", "verify-ca"}:
        return []
    hosts = str(parameters.get("host", "")).split(",")
    return [host for host in hosts if is_far(host) and not host.startswith("/")]  # a path is a Unix socket


async def _examine_server(report: Report, connection: Connection) -> str:
    number = connection.info.server_version
    version = f"{number // 10000}.{number % 10000}"
    if number < OLDEST * 10000:
        report.problem(ABOUT, f"PostgreSQL {version} is too old", f"use PostgreSQL {OLDEST} or newer")
    cursor = await connection.execute("SELECT pg_is_in_recovery()")
    if await cursor.fetchone() == (True,):
        report.problem(ABOUT, "it is a replica, and takes no votes", "let DATABASE_URL name the primary")
    for name, consequence in DURABLE.items():
        cursor = await connection.execute("SELECT current_setting(%s)", [name])
        if await cursor.fetchone() == ("off",):
            report.problem(ABOUT, f"{name} is off: {consequence}", f"set {name} = on")
    return version


async def _examine_schema(report: Report, connection: Connection) -> bool:
    """Whether all tables are there."""
    try:
        done = await migrations.applied_migrations(connection)
    except psycopg.errors.UndefinedTable:
        done = []
    except psycopg.errors.InsufficientPrivilege:
        report.problem(ABOUT, "this role may not see which migrations were made", "run voting migrate")
        return False
    if missing := [name for name in migrations.known_migrations() if name not in done]:
        report.problem(ABOUT, f"the schema lacks {', '.join(missing)}", "run voting migrate")
    if unknown := sorted(set(done) - set(migrations.known_migrations())):
        report.problem(ABOUT, f"the schema has {', '.join(unknown)} of a newer version", "update this installation")
    return not missing


async def _examine_grants(report: Report, connection: Connection) -> None:
    lacks = ("{} lacks {} on {}", "run voting migrate, or as the owner: GRANT {1} ON {2} TO {0}")
    exceeds = ("{} has {} on {}, which it does not need", "as the owner: REVOKE {1} ON {2} FROM {0}")
    for query, (what, fix) in (("grants_lacking", lacks), ("grants_beyond", exceeds)):
        cursor = await connection.execute(statement(query))
        for grant in await cursor.fetchall():
            report.problem(ABOUT, what.format(*grant), fix.format(*grant))


async def _examine_tallies(report: Report, connection: Connection) -> None:
    try:
        cursor = await connection.execute(statement("drift"))
    except psycopg.errors.QueryCanceled:
        report.unchecked(ABOUT, f"tallies (over {COUNT_SECONDS:.0f} s)", "compare them with a backup: voting backup")
        return
    except psycopg.errors.InsufficientPrivilege:
        report.unchecked(ABOUT, "tallies (no right to read votes)", "use the worker's DATABASE_URL")
        return
    for poll, choice, tally, votes in await cursor.fetchall():
        report.problem(
            ABOUT,
            f"the tally of {choice} in {poll} is {tally}, and there are {votes} votes",
            "find out who changed the tables besides workers; with workers stopped, set tallies to what GROUP BY gives",
        )
