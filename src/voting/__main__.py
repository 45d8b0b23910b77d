"""The `voting` command. Each command imports what it needs when it runs, so a process loads only its own code."""

from pathlib import Path
from typing import Any

import click

from voting.operate.commands import COMMANDS, load_settings
from voting.operate.verify_command import verify


class InOrder(click.Group):
    """Lists its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as in `click.Group`
        return list(self.commands)


@click.group(
    cls=InOrder,
    epilog="In a checkout of the source code, ./voting also has the commands test, lint, bench and faults.",
    context_settings={"show_default": True},
)
def cli() -> None:
    """Vote between two or more options, and watch the result live."""


@cli.command()
def vote() -> None:
    """Serve the ballot page and accept votes (port 8080)."""
    from voting.settings.services import VoteSettings

    settings = load_settings("vote", VoteSettings)
    if settings.web_concurrency != 1:
        from voting.service import metrics_directory

        metrics_directory.share()  # among the processes; before `app` imports prometheus-client
    from voting.vote import app

    app.run(settings)


@cli.command()
def worker() -> None:
    """Count the votes of the Redis stream in PostgreSQL."""
    from voting.settings.services import WorkerSettings

    settings = load_settings("worker", WorkerSettings)
    from voting.worker import app

    app.run(settings)


@cli.command()
def result() -> None:
    """Serve the live result (port 8081)."""
    from voting.settings.services import ResultSettings

    settings = load_settings("result", ResultSettings)
    from voting.result import app

    app.run(settings)


@cli.command()
def admin() -> None:
    """Serve the pages and the API of whoever runs polls (port 8082)."""
    from voting.settings.services import AdminSettings

    settings = load_settings("admin", AdminSettings)
    from voting.admin import app

    app.run(settings)


@cli.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path(".voting"), help="Data directory.")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all networks of this machine.")
@click.option(
    "--admin-host", default="127.0.0.1", envvar="ADMIN_BIND", show_envvar=True, help="Address that admin listens on."
)
@click.option("--vote-port", type=click.IntRange(1, 65535), default=8080, help="Port of the vote service.")
@click.option("--result-port", type=click.IntRange(1, 65535), default=8081, help="Port of the result service.")
@click.option("--admin-port", type=click.IntRange(1, 65535), default=8082, help="Port of the admin service.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, help="Number of worker processes.")
def up(**options: Any) -> None:
    """Run all services and both stores here, without Docker."""
    from voting.local import app

    data: Path = options.pop("data")
    ports = {flag: options[flag] for flag in ("vote_port", "result_port", "admin_port")}
    if len(set(ports.values())) < len(ports):
        raise click.BadParameter("--vote-port, --result-port and --admin-port must be three different ports")
    click.get_current_context().exit(app.up(data, app.Options(**options)))


for command in (*COMMANDS, verify):
    cli.add_command(command)


@cli.command()
def probe() -> None:
    """Check whether this container's service is ready."""
    import asyncio

    from voting.service import probe
    from voting.settings.services import ProbeSettings
    from voting.settings.sources import load

    address = load(ProbeSettings).metrics_listen
    click.get_current_context().exit(0 if asyncio.run(probe.is_ready(address)) else 1)


def main() -> None:
    """Run the command line."""
    cli(prog_name="voting")


if __name__ == "__main__":
    main()
