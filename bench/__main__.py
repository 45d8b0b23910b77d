"""`./voting bench`: run all measures or some, each on a stack of its own; print a table and write JSON."""

import shutil
import subprocess
import time
from pathlib import Path

import click
import httpx
import psycopg
import redis

from bench import accept, changes, checked, count, growth, live, machine, polls
from bench.report import Results
from bench.runner import Runner

MEASURES = {
    "accept": accept.accept,
    "cores": accept.cores,
    "count": count.count,
    "revotes": count.revotes,
    "whole": accept.whole,
    "freshness": live.freshness,
    "viewers": live.viewers,
    "growth": growth.growth,
    "burst": accept.burst,
    "changes": changes.changes,
    "polls": polls.polls,
    "checked": checked.checked,
    "footprint": live.footprint,
}
MEASURE_ERRORS = (
    AssertionError,
    RuntimeError,
    OSError,
    subprocess.SubprocessError,
    httpx.HTTPError,
    psycopg.Error,
    redis.RedisError,
)


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, help=f"One of: {', '.join(MEASURES)}. May be repeated.")
@click.option("--quick", is_flag=True, help="Small and short: shows that all works, not how fast.")
@click.option(
    "--rounds", type=click.IntRange(1), default=5, help="How often each is measured, ours and its limit in turn."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where results.json and results.md are: by default bench/results, or bench/quick.",
)
def main(*, only: tuple[str, ...], quick: bool, rounds: int, out: Path | None) -> None:
    """Measure, each against its limit in the same run; what --out has of earlier runs stays in the table.

    Nothing else should run on the machine meanwhile.
    """
    for name in only:
        if name not in MEASURES:
            raise click.BadParameter(f"{name} is none of {', '.join(MEASURES)}")
    if not shutil.which("wrk"):
        raise click.BadParameter("needs wrk, the load generator (Debian, Ubuntu: apt install wrk)")
    runner = Runner(quick=quick, rounds=2 if quick else rounds)
    folder = out or Path("bench/quick" if quick else "bench/results")
    try:
        results = Results(folder, machine.machine_info(), list(MEASURES))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    machine.allow_many_files()
    failed = []
    for name in only or MEASURES:
        click.echo(f"{name}: {(MEASURES[name].__doc__ or '').splitlines()[0]}", err=True)
        began, how = time.monotonic(), machine.run_info()
        try:
            outcome = MEASURES[name](runner)
        except MEASURE_ERRORS as error:
            runner.log(f"could not be measured: {type(error).__name__}: {error}")
            failed.append(name)
            continue
        took = round(time.monotonic() - began)
        outcome.run = how | {"rounds": f"{'quick, ' if quick else ''}{runner.rounds} rounds", "took": f"{took} s"}
        results.add(name, outcome)
        for threshold in outcome.thresholds:
            runner.log(str(threshold))
        runner.log(f"took {took} s")
    click.echo(results.markdown())
    click.echo(f"Written to {folder}/results.md and {folder}/results.json", err=True)
    if failed:
        click.echo(f"Could not be measured: {', '.join(failed)}", err=True)
        raise click.exceptions.Exit(1)


if __name__ == "__main__":
    main(prog_name="voting bench")
