"""Migrations of the schema, and the definition of the default poll."""

import json

import psycopg

from voting.database.audit import record_command
from voting.database.connection import NOTIFY_CHANNEL, Connection
from voting.database.definition import Definition, default_poll
from voting.database.queries import QUERIES, SQL
from voting.polls.poll import DEFAULT_POLL, BadPoll, Poll


def known_migrations() -> list[str]:
    """Return the names of the migrations of this version, in order."""
    return sorted(script.name for script in (SQL / "migrations").iterdir())


async def applied_migrations(connection: Connection) -> list[str]:
    """Return the names of the migrations that were applied to the database, in order."""
    cursor = await connection.execute("SELECT name FROM schema_migrations ORDER BY name")
    return [name for (name,) in await cursor.fetchall()]


async def _define_default_poll(connection: Connection, definition: Definition) -> None:
    """Write the default poll.

    Its row is locked first, so that no vote is counted between reading the tallies and writing the poll. An unchanged
    poll is not written, because it may be older than the trigger that checks it.
    """
    await connection.execute("SELECT lock_definitions()")
    cursor = await connection.execute(QUERIES["default_poll"], {"slug": DEFAULT_POLL})
    row = await cursor.fetchone()
    try:
        stored = Poll.from_parts(DEFAULT_POLL, *row) if row else None
    except BadPoll as error:
        if definition == Definition():
            return
        raise BadPoll(f"the default poll in the database is invalid ({error}): correct its row in polls") from None
    cursor = await connection.execute(QUERIES["votes_of_box"], {"box": stored.box if stored else DEFAULT_POLL})
    poll = default_poll(definition, stored, dict(await cursor.fetchall()))
    if poll == stored:
        return
    parameters = {"slug": poll.slug, "question": poll.question, "options": poll.options_json()}
    try:
        await connection.execute(QUERIES["define_poll"], parameters)
    except psycopg.errors.CheckViolation as error:
        raise BadPoll(f"{error.diag.message_primary}") from None
    if stored:
        options = json.loads(parameters["options"])
        await record_command(connection, "edit", poll=poll.slug, question=poll.question, options=options)
    await connection.execute("SELECT pg_notify(%s, %s)", [NOTIFY_CHANNEL, poll.slug])


async def migrate(connection: Connection, definition: Definition | None) -> list[str]:
    """Apply missing migrations and define the default poll, in one transaction; return the migrations applied.

    An advisory lock allows only one call at a time. Without a definition the default poll is not changed.

    Raises:
        DefinitionConflict: the settings would change the meaning of votes.
        BadPoll: the stored poll is invalid, and must be corrected before it can be changed.
    """
    applied = []
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('voting migrate'))")
        await connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY)")
        done = await applied_migrations(connection)
        for name in known_migrations():
            if name not in done:
                await connection.execute((SQL / "migrations" / name).read_text(encoding="utf-8"))
                await connection.execute("INSERT INTO schema_migrations VALUES (%s)", [name])
                applied.append(name)
        if definition is not None:
            await _define_default_poll(connection, definition)
    return applied
