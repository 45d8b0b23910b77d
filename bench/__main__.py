"""`./voting bench`: every measure, or some, on a stack of its own; a table, and the same as JSON."""

import json
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from bench import accept, count, live, machine
from bench.report import markdown
from bench.setting import Setting

MEASURES = {
    "accept": accept.accept,
    "cores": accept.cores,
    "count": count.count,
    "revotes": count.revotes,
    "whole": accept.whole,
    "freshness": live.freshness,
    "viewers": live.viewers,
    "growth": count.growth,
    "burst": accept.burst,
    "footprint": live.footprint,
}


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of: {', '.join(MEASURES)}. May be repeated.")] = None,
    quick: Annotated[bool, typer.Option(help="Small and short: shows that all works, not how fast.")] = False,  # noqa: FBT002
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured, ours and its limit in turn.")] = 5,
    out: Annotated[Path, typer.Option(help="Where results.json and results.md are written.")] = Path("bench/results"),
) -> None:
    """Measure, each against its limit in the same run. Nothing else should run on the machine meanwhile."""
    for name in only or []:
        if name not in MEASURES:
            raise typer.BadParameter(f"{name} is none of {', '.join(MEASURES)}")
    if not shutil.which("wrk"):
        raise typer.BadParameter("needs wrk, the load generator (Debian, Ubuntu: apt install wrk)")
    setting = Setting(quick=quick, rounds=2 if quick else rounds)
    machine.allow_many_files()
    described = machine.describe()
    outcomes = []
    for name in only or MEASURES:
        typer.echo(f"{name}: {(MEASURES[name].__doc__ or '').splitlines()[0]}", err=True)
        began = time.monotonic()
        outcomes.append(MEASURES[name](setting))
        for mark in outcomes[-1].marks:
            setting.say(str(mark))
        setting.say(f"took {time.monotonic() - began:.0f} s")
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.md").write_text(markdown(outcomes, described))
    record = {"machine": described, "quick": quick, "measures": [outcome.record() for outcome in outcomes]}
    (out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    typer.echo(markdown(outcomes, described))
    typer.echo(f"Written to {out}/results.md and {out}/results.json", err=True)


if __name__ == "__main__":
    cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    cli.command()(main)
    cli(prog_name="voting bench")
