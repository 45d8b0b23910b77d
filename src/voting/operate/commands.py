"""The operator's commands. Each imports what it needs when it runs, because every service imports this module."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar
from uuid import UUID

import click

if TYPE_CHECKING:
    from voting.settings.services import ServiceSettings

S = TypeVar("S", bound="ServiceSettings")

BAD_SETTINGS = 2  # exit code, as for a wrong command line


def load_settings(command: str, settings_class: type[S]) -> S:
    """Load settings and configure logging; bad settings end the process with exit code 2."""
    from voting.service import logs
    from voting.settings.sources import BadSettings, load

    try:
        settings = load(settings_class)
    except BadSettings as bad:
        head = f"{len(bad.problems)} bad setting(s)"
        _fail(command, "\n  ".join([head, *bad.problems]), BAD_SETTINGS)
    logs.configure(command, form=settings.log_format, level=settings.log_level)
    return settings


def _fail(command: str, problem: str, code: int) -> NoReturn:
    click.echo(f"voting {command}: {problem}", err=True)
    raise click.exceptions.Exit(code)


_path = click.Path(path_type=Path)
_data_option = click.option("--data", type=_path, default=Path(".voting"), help="Data directory of `voting up`.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command()
def migrate() -> None:
    """Update the database schema and define the default poll."""
    import asyncio

    import psycopg

    from voting.database.definition import DefinitionConflict
    from voting.operate import migrate
    from voting.polls.poll import BadPoll
    from voting.service import logs
    from voting.settings.services import MigrateSettings
    from voting.settings.urls import redacted

    settings = load_settings("migrate", MigrateSettings)
    try:
        applied = asyncio.run(migrate.run(settings))
    except psycopg.OperationalError as error:
        _fail("migrate", f"{redacted(settings.database_url)} does not answer: {error}", 1)
    except (DefinitionConflict, BadPoll) as error:
        _fail("migrate", str(error), BAD_SETTINGS)
    logs.get().info("database.migrated", applied=applied)


@click.command()
@_data_option
@_json_option
@click.option(
    "--dead-letters-within",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Report only dead letters that are not older than this. Default: report all.",
)
def status(data: Path, as_json: bool, dead_letters_within: float | None) -> None:
    """Show the state of each part, and where the votes are.

    The exit code is 0 if there is no problem, else 1. Checks REDIS_URL and DATABASE_URL if they are set, else what
    `voting up` runs.
    """
    from voting.operate import status

    _check("status", lambda: status.main(data, as_json=as_json, dead_letters_within=dead_letters_within))


@click.command()
@_data_option
@_json_option
def doctor(data: Path, as_json: bool) -> None:
    """Find what could lose votes, each problem with its fix.

    The exit code is 0 if nothing is found, else 1. Checks REDIS_URL and DATABASE_URL if they are set, else what
    `voting up` runs.
    """
    from voting.operate.doctor import app

    _check("doctor", lambda: app.main(data, as_json=as_json))


def _check(command: str, main: Callable[[], int]) -> None:
    """Exit with the code that `main` returns, or with 2 if no installation is found."""
    from voting.settings.sources import BadSettings

    try:
        code = main()
    except BadSettings as bad:
        _fail(command, "\n  ".join(bad.problems), BAD_SETTINGS)
    click.get_current_context().exit(code)


@click.command()
@click.argument("file", type=_path)
@_data_option
def backup(file: Path, data: Path) -> None:
    """Write everything that is counted to FILE.

    FILE is - for standard output. All services can go on. Reads DATABASE_URL if it is set, else the database of
    `voting up`.
    """
    from voting.operate import backup

    if str(file) == "-" and sys.stdout.isatty():
        raise click.BadParameter("a backup is binary: name a file, or redirect standard output with > or |")
    _use_database("backup", lambda url: backup.dump_to_path(url, file), data)


@click.command()
@click.argument("file", type=_path)
@_data_option
@click.option("--replace", is_flag=True, help="Delete the votes and polls that the database holds.")
def restore(file: Path, data: Path, replace: bool) -> None:
    """Load a backup into the database, all or nothing.

    FILE is - for standard input. Votes that wait on the stream are counted after that. Writes to DATABASE_URL (as the
    database's owner) if it is set, else to the database of `voting up`.
    """
    from voting.operate import backup

    _use_database("restore", lambda url: backup.restore_from_path(url, file, replace=replace), data)


@click.command()
@click.argument("installation", type=click.UUID)
@_data_option
def adopt(installation: UUID, data: Path) -> None:
    """Count the votes of another installation's broker here.

    INSTALLATION is the id in the worker's log. Writes to DATABASE_URL (as the database's owner) if it is set, else to
    the database of `voting up`.
    """
    import asyncio

    from voting.operate.installation import adopt

    _use_database("adopt", lambda url: asyncio.run(adopt(url, str(installation))), data)


def _use_database(command: str, run: Callable[[str], object], data: Path) -> None:
    """Print what `run` returns for the database's URL; exit with 1 if it fails."""
    import psycopg

    from voting.operate import addresses, archive, backup
    from voting.settings.sources import BadSettings
    from voting.settings.urls import redacted

    try:
        url = addresses.read_database_url(data)
        done = run(url)
    except BadSettings as bad:
        _fail(command, "\n  ".join(bad.problems), BAD_SETTINGS)
    except (archive.BadArchive, backup.CannotRestore, OSError) as error:
        problem = str(error)
    except psycopg.errors.InsufficientPrivilege as error:
        problem = f"{error.diag.message_primary}: use the database's owner, as voting migrate does (or run that again)"
    except psycopg.Error as error:
        problem = f"{redacted(url)}: {error}"
    else:
        click.echo(f"{command}: {done}", err=True)
        return
    _fail(command, f"{problem}. Nothing was changed.", 1)


@click.command()
@_data_option
def admin_link(data: Path) -> None:
    """Print the link that opens the admin service.

    Whoever has it can do everything there. Reads ADMIN_KEY and ADMIN_URL if the key is set, else what `voting up` made.
    """
    from voting.operate.addresses import read_admin_link
    from voting.settings.sources import BadSettings

    try:
        click.echo(read_admin_link(data))
    except BadSettings as bad:
        _fail("admin-link", "\n  ".join(bad.problems), BAD_SETTINGS)


@click.command()
@click.argument("folder", type=_path)
@click.option("--given", type=_path, default=Path("secrets"), help="Directory of files to use, not random values.")
def secrets(folder: Path, given: Path) -> None:
    """Create the passwords and keys that are missing in FOLDER.

    FOLDER gets one directory for each service. Existing secrets are kept.
    """
    from voting.operate import secrets

    try:
        new = secrets.write_secrets(folder, given)
    except (secrets.BadSecret, OSError) as error:
        _fail("secrets", str(error), BAD_SETTINGS)
    click.echo(f"secrets: {len(secrets.GIVEN)} in place, new: {', '.join(new) or 'none'}")


@click.command()
@click.argument("address")
@click.argument("hosts", nargs=-1, required=True)
def certificate(address: str, hosts: tuple[str, ...]) -> None:
    """Export a proxy's certificate dates (port 9100).

    ADDRESS is the proxy's host:port, HOSTS are the host names that it has certificates for. The dates are for
    Prometheus.
    """
    from voting.operate import certificate
    from voting.settings.services import ServiceSettings

    certificate.run(load_settings("certificate", ServiceSettings), address, list(hosts))


COMMANDS = (migrate, status, doctor, backup, restore, adopt, admin_link, secrets, certificate)
