"""The command `voting verify`."""

from pathlib import Path

import click

MIN_FINGERPRINT = 16  # characters, as pages show


@click.command()
@click.argument("ballots", type=click.Path(path_type=Path))
@click.argument("record", type=click.Path(path_type=Path), required=False)
@click.option("--fingerprint", default="", help="The record's fingerprint as you noted it, or its beginning.")
def verify(ballots: Path, record: Path | None, fingerprint: str) -> None:
    """Count published ballots again, and compare them with the record.

    BALLOTS is the list of ballots, and RECORD the record, as downloaded from the page "Is my vote in?". By default,
    trip-round-1-final.json belongs to trip-round-1-ballots.csv, and final.json to ballots.csv. Nothing is sent.
    The exit code is 0 only if everything agrees.

    Example: ./voting verify trip-round-1-ballots.csv
    """
    from voting.operate import verify as work
    from voting.polls.record import BadBallots, BadRecord

    if 0 < len(fingerprint.strip()) < MIN_FINGERPRINT:
        raise click.BadParameter(f"give at least {MIN_FINGERPRINT} characters of it", param_hint="--fingerprint")
    path = record or ballots.with_name(ballots.name.rpartition("ballots")[0] + "final.json")
    try:
        final = work.read_record(path)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}; download it from the poll's page") from None
    except BadRecord as error:
        raise click.ClickException(f"{path} is not a record: {error}") from None
    try:
        with ballots.open("rb") as file:
            count = work.count_ballots(file, lambda number: click.echo(f"{number:,} ballots …", err=True))
    except OSError as error:
        raise click.ClickException(f"{ballots}: {error.strerror}; download it from the poll's page") from None
    except BadBallots as error:
        raise click.ClickException(f"{ballots} is not a list of ballots: {error}") from None
    click.echo(work.describe(final, count))
    found = work.faults(final, count, fingerprint)
    for fault in found:
        click.echo(f"✗ {fault}")
    if found:
        click.get_current_context().exit(1)
    click.echo("✓ the ballots add up to the record, and the file is the one that was published")
    if fingerprint:
        click.echo("✓ the record has the fingerprint that you gave")
    else:
        click.echo(f"Compare the fingerprint with the one on the poll's page: {final.fingerprint}")
