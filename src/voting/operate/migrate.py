"""`voting migrate`: update the schema, define the default poll, and create the services' roles."""

from voting.database.connection import connect
from voting.database.definition import Definition
from voting.database.migrations import migrate
from voting.database.roles import define_role
from voting.settings.services import MigrateSettings

TIMEOUT = 60.0  # seconds for one statement


def definition_of(settings: MigrateSettings) -> Definition:
    """Return the definition of the default poll."""
    renames = dict(settings.rename_options)
    return Definition(settings.poll_question, settings.options or None, settings.option_a, settings.option_b, renames)


async def run(settings: MigrateSettings) -> list[str]:
    """Migrate; return the names of the migrations applied. Errors are those of `migrations.migrate`."""
    async with connect(settings.database_url, name="migrate", timeout=TIMEOUT) as connection:
        applied = await migrate(connection, definition_of(settings))
        if settings.worker_database_password:
            await define_role(connection, "worker", settings.worker_database_password)
        if settings.result_database_password:
            await define_role(connection, "result", settings.result_database_password)
        if settings.admin_database_password:
            await define_role(connection, "admin", settings.admin_database_password)
        return applied
