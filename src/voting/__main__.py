"""The `voting` command. Each subcommand loads its settings, sets up logs and runs one service's `main`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

cli = typer.Typer(
    help="A voting application that people can rely on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _settings(class_name: str, service: str) -> Any:
    """Load the settings of a service and set up its logs; a bad setting ends the process with code 2."""
    from voting.service import logs
    from voting.settings import services
    from voting.settings.sources import BadSettings, load

    try:
        settings = load(getattr(services, class_name))
    except BadSettings as bad:
        print(f"voting {service}: {len(bad.problems)} bad setting(s)", *bad.problems, sep="\n  ", file=sys.stderr)
        raise typer.Exit(2) from None
    if isinstance(settings, services.ServiceSettings):
        logs.configure(service, form=settings.log_format, level=settings.log_level)
    return settings


def _serve(service: str) -> None:
    from voting.service import metrics_directory

    settings = _settings(f"{service.capitalize()}Settings", service)
    if getattr(settings, "web_concurrency", 1) != 1:
        metrics_directory.share()
    importlib.import_module(f"voting.{service}.app").run(settings)


@cli.command()
def vote() -> None:
    """Serve the ballot and take votes (port 8080)."""
    _serve("vote")


@cli.command()
def worker() -> None:
    """Move votes from Redis into PostgreSQL."""
    _serve("worker")


@cli.command()
def result() -> None:
    """Serve the live result (port 8081)."""
    _serve("result")


@cli.command()
def migrate() -> None:
    """Bring the database's schema up to date, and define the default poll."""
    import asyncio

    import psycopg

    from voting.database.definition import DefinitionConflict
    from voting.operate import migrate
    from voting.polls import BadPoll
    from voting.service import logs
    from voting.settings.urls import redacted

    settings = _settings("MigrateSettings", "migrate")

    try:
        applied = asyncio.run(migrate.run(settings))
    except psycopg.OperationalError as error:
        print(f"voting migrate: {redacted(settings.database_url)} does not answer: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    except (DefinitionConflict, BadPoll) as error:
        print(f"voting migrate: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    logs.get().info("database.migrated", applied=applied)


@cli.command()
def up(
    data: Annotated[Path, typer.Option(help="Where everything is kept between runs.")] = Path(".voting"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")] = "127.0.0.1",
    vote_port: Annotated[int, typer.Option(help="Port of the ballot.", min=1, max=65535)] = 8080,
    result_port: Annotated[int, typer.Option(help="Port of the live result.", min=1, max=65535)] = 8081,
    workers: Annotated[int, typer.Option(help="How many workers count.", min=1, max=64)] = 2,
) -> None:
    """Run everything on this machine, without Docker: stores, workers, ballot and result."""
    from voting.local import app

    if vote_port == result_port:
        raise typer.BadParameter(f"--vote-port and --result-port are both {vote_port}; they need two different ports")
    raise typer.Exit(app.up(data, app.Options(host, vote_port, result_port, workers)))


@cli.command()
def status(
    data: Annotated[Path, typer.Option(help="Data directory of the `voting up` to look at.")] = Path(".voting"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    dead_letters_within: Annotated[
        float | None, typer.Option(help="Older dead letters (in seconds) are not a problem.", min=0)
    ] = None,
) -> None:
    """Show each part and where the votes are; the exit code is 0 only when all is well.

    Looks at REDIS_URL and DATABASE_URL if they are set, else at what `voting up` runs.
    """
    from voting.operate import status

    _look("status", lambda: status.main(data, as_json=as_json, dead_letters_within=dead_letters_within))


@cli.command()
def doctor(
    data: Annotated[Path, typer.Option(help="Data directory of the `voting up` to look at.")] = Path(".voting"),
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what could break the promises, each thing with its fix; the exit code is 0 only when there is nothing.

    Looks at REDIS_URL and DATABASE_URL if they are set, else at what `voting up` runs.
    """
    from voting.operate.doctor import app

    _look("doctor", lambda: app.main(data, as_json=as_json))


def _look(command: str, main: Callable[[], int]) -> None:
    """Look at an installation and end with what `main` returns; 2 if nobody says where it is."""
    from voting.settings.sources import BadSettings

    try:
        code = main()
    except BadSettings as bad:
        raise _nowhere(command, bad) from None
    raise typer.Exit(code)


def _nowhere(command: str, bad: Any) -> typer.Exit:
    print(f"voting {command}: " + "\n  ".join(bad.problems), file=sys.stderr)
    return typer.Exit(2)


@cli.command()
def backup(
    file: Annotated[Path, typer.Argument(help="Where to; - for standard output.")],
    data: Annotated[Path, typer.Option(help="Data directory of the `voting up` to save.")] = Path(".voting"),
) -> None:
    """Write all that is counted into one file, while everything runs.

    Of DATABASE_URL if that is set, else of what `voting up` runs.
    """
    from voting.operate import backup

    if str(file) == "-" and sys.stdout.isatty():
        raise typer.BadParameter("a backup is no text: name a file, or send it on with > or |")
    _transfer("backup", lambda url: backup.write(url, file), data)


@cli.command()
def restore(
    file: Annotated[Path, typer.Argument(help="Where from; - for standard input.")],
    data: Annotated[Path, typer.Option(help="Data directory of the `voting up` to restore.")] = Path(".voting"),
    replace: Annotated[bool, typer.Option("--replace", help="Give up what the database holds.")] = False,
) -> None:
    """Put what a backup holds into the database, all or nothing; votes that wait on the stream are counted after that.

    Into DATABASE_URL (of the database's owner) if that is set, else into what `voting up` runs.
    """
    from voting.operate import backup

    _transfer("restore", lambda url: backup.read(url, file, replace=replace), data)


@cli.command()
def adopt(
    installation: Annotated[UUID, typer.Argument(help="The id that the worker names in its log.")],
    data: Annotated[Path, typer.Option(help="Data directory of the `voting up` to change.")] = Path(".voting"),
) -> None:
    """Count the votes of a broker that belongs to another installation into this database.

    Into DATABASE_URL (of the database's owner) if that is set, else into what `voting up` runs.
    """
    import asyncio

    from voting.operate.installation import adopt

    _transfer("adopt", lambda url: asyncio.run(adopt(url, str(installation))), data)


def _transfer(command: str, run: Callable[[str], object], data: Path) -> None:
    import psycopg

    from voting.operate import archive, backup, target
    from voting.settings.sources import BadSettings
    from voting.settings.urls import redacted

    try:
        url = target.find_database(data)
        done = run(url)
    except BadSettings as bad:
        raise _nowhere(command, bad) from None
    except (archive.BadArchive, backup.CannotRestore, OSError) as error:
        problem = str(error)
    except psycopg.errors.InsufficientPrivilege as error:
        problem = f"{error.diag.message_primary}: use the database's owner, as voting migrate does (or run that again)"
    except psycopg.Error as error:
        problem = f"{redacted(url)}: {error}"
    else:
        print(f"{command}: {done}", file=sys.stderr)
        return
    print(f"voting {command}: {problem}. Nothing was changed.", file=sys.stderr)
    raise typer.Exit(1)


@cli.command(name="secrets")
def make_secrets(
    folder: Annotated[Path, typer.Argument(help="Where each service's directory of secrets is.")],
    given: Annotated[Path, typer.Option(help="Files to use instead of random values.")] = Path("secrets"),
) -> None:
    """Make the passwords and keys of an installation, at random unless given; keep those made before."""
    from voting.operate import secrets

    try:
        new = secrets.lay_out(folder, given)
    except (secrets.BadSecret, OSError) as error:
        print(f"voting secrets: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(f"secrets: {len(secrets.GIVEN)} in place, new: {', '.join(new) or 'none'}")


@cli.command()
def certificate(
    address: Annotated[str, typer.Argument(help="Where the proxy answers: host:port.")],
    hosts: Annotated[list[str], typer.Argument(help="The host names that it has certificates for.")],
) -> None:
    """Tell Prometheus until when a proxy's certificates are valid (port 9100)."""
    from voting.operate import certificate

    certificate.run(_settings("ServiceSettings", "certificate"), address, hosts)


@cli.command()
def probe() -> None:
    """Ask the service of this container whether it is ready; the exit code says."""
    import asyncio

    from voting.service import probe
    from voting.settings.services import ProbeSettings
    from voting.settings.sources import load

    address = load(ProbeSettings).metrics_listen
    raise typer.Exit(0 if asyncio.run(probe.is_ready(address)) else 1)


def main() -> None:
    """Run the command line."""
    cli(prog_name="voting")


if __name__ == "__main__":
    main()
