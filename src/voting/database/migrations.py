"""TODO voting.database.migrations."""

import psycopg

from voting.database.connection import NOTIFY_CHANNEL, Connection
from voting.database.definition import Definition, default_poll
from voting.database.queries import QUERIES, SQL
from voting.polls import DEFAULT_POLL, BadPoll, Poll


def known_migrations() -> list[str]:
    """The migrations that this version has, in order."""
    return sorted(script.name for script in (SQL / "migrations").iterdir())


async def migrations(connection: Connection) -> list[str]:
    """The migrations that the database has had, in order."""
    cursor = await connection.execute("SELECT name FROM schema_migrations ORDER BY name")
    return [name for (name,) in await cursor.fetchall()]


async def _define_default_poll(connection: Connection, given: Definition) -> None:
    """Write the default poll. Its row is locked first, so that no vote is counted between reading the tallies and this.

    A poll that stays as it is is not written: it may be from before the checks of the database.
    """
    cursor = await connection.execute(QUERIES["default_poll"], {"slug": DEFAULT_POLL})
    row = await cursor.fetchone()
    try:
        stored = Poll.of(DEFAULT_POLL, *row) if row else None
    except BadPoll as error:
        if given == Definition():
            return
        raise BadPoll(f"the default poll in the database is none ({error}): mend its row in the table polls") from None
    cursor = await connection.execute(QUERIES["votes_of_poll"], {"slug": DEFAULT_POLL})
    poll = default_poll(given, stored, dict(await cursor.fetchall()))
    if poll == stored:
        return
    parameters = {"slug": poll.slug, "question": poll.question, "options": poll.options_json()}
    try:
        await connection.execute(QUERIES["define_poll"], parameters)
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
                await connection.execute((SQL / "migrations" / name).read_text(encoding="utf-8"))
                await connection.execute("INSERT INTO schema_migrations VALUES (%s)", [name])
                applied.append(name)
        if given is not None:
            await _define_default_poll(connection, given)
    return applied
