"""`./voting faults`: run all rows or some, each on a system of its own, and print a table."""

import functools
import secrets
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from tests.faults.mutants import MUTANTS, run_mutant
from tests.faults.rows import ROWS, Row, find
from tests.faults.run import RowFailed, RunConfig


@dataclass
class Outcome:
    """The result of one run."""

    title: str
    seed: int
    verdict: str
    seconds: float
    found: str

    def line(self) -> str:
        """Return a row of the Markdown table."""
        return f"| {self.title} | {self.seed} | {self.verdict} | {self.seconds:.0f} s | {self.found} |"


def try_run(title: str, config: RunConfig, run: Callable[[RunConfig], str], good: str) -> Outcome:
    """Run a row or mutant; keep its folder only if it failed. `good` is the verdict otherwise."""
    began = time.monotonic()
    try:
        found, verdict = run(config), good
    except RowFailed as failure:
        found, verdict = str(failure), "FAILED"
    except pytest.skip.Exception as skipped:
        found, verdict = str(skipped), "NOT RUN"
    except Exception as error:  # noqa: BLE001 - an error of the harness fails the row; the others still run
        traceback.print_exc()
        found, verdict = f"{type(error).__name__}: {error}".splitlines()[0], "FAILED"
    if verdict == good:
        shutil.rmtree(config.folder)
    else:
        found += f" (see {config.folder})"
    return Outcome(title, config.seed, verdict, time.monotonic() - began, found)


def figures(notes: dict[str, Any]) -> str:
    """Return the notes of a run in one line."""
    parts = []
    for name, value in notes.items():
        if isinstance(value, dict):
            parts.append(f"{name}: {figures(value)}")
        else:
            shown = " → ".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{name} {shown}")
    return ", ".join(parts)


def find_all(words: tuple[str, ...]) -> tuple[Row, ...]:
    """Return the rows with these numbers or names, or all rows."""
    try:
        return tuple(map(find, words)) or ROWS
    except LookupError as error:
        raise click.BadParameter(str(error)) from None


@click.command(context_settings={"show_default": True})
@click.option("--only", multiple=True, help="A row's number or name. May be repeated.")
@click.option("--brief", is_flag=True, help="Short, with time limits for a busy machine, as in CI.")
@click.option("--seed", type=int, help="Of all random numbers; printed, to repeat a run.")
@click.option("--rounds", type=click.IntRange(1), default=1, help="Number of runs, each with the next seed.")
@click.option("--repeat", type=click.IntRange(1), help="Repetitions of the fault `closing`; by default 50, in brief 6.")
@click.option("--mutants", is_flag=True, help="Run mutants of the product instead; the rows must fail.")
def main(
    *, only: tuple[str, ...], brief: bool, seed: int | None, rounds: int, repeat: int | None, mutants: bool
) -> None:
    """Break the installation in every way we know of, under load, and check that no acknowledged vote is lost."""
    rows = find_all(only)
    first = secrets.randbelow(100_000) if seed is None else seed
    folder = Path(tempfile.mkdtemp(prefix="voting-faults-"))
    folder.chmod(0o711)  # PostgreSQL of root runs as another user, who needs to enter it
    outcomes: list[Outcome] = []
    good = "noticed" if mutants else "passed"

    def record(title: str, config: RunConfig, run: Callable[[RunConfig], str]) -> None:
        click.echo(f"{title}, seed {config.seed} …", err=True)
        outcomes.append(try_run(title, config, run, good))
        click.echo(f"  {outcomes[-1].verdict} after {outcomes[-1].seconds:.0f} s: {outcomes[-1].found}", err=True)

    for number in range(first, first + rounds):
        if mutants:
            for mutant in MUTANTS:
                for name in mutant.rows:
                    if find(name) in rows:
                        config = RunConfig(folder / f"{number}-{len(outcomes)}-{name}", number)
                        record(f"{mutant.name} | {name}", config, functools.partial(run_mutant, mutant, name))
        else:
            for row in rows:
                config = RunConfig(folder / f"{number}-{row.name}", number, brief, repetitions=repeat or 0)
                config.folder.mkdir()
                record(str(row), config, lambda config, row=row: figures(row.run(config)))  # type: ignore[misc]
    head = "| mutant | row " if mutants else "| row "
    print(head + f"| seed | verdict | took | {'what the mutant lost' if mutants else 'figures'} |")
    print("|---" * (head.count("|") + 4) + "|")
    for outcome in outcomes:
        print(outcome.line())
    failed = sum(outcome.verdict != good for outcome in outcomes)
    print(
        f"\n{len(outcomes) - failed} of {len(outcomes)} {good}"
        + (f"; logs and histories of the others: {folder}" if failed else "")
    )
    if not failed:
        folder.rmdir()
    raise click.exceptions.Exit(failed > 0)


if __name__ == "__main__":
    main(prog_name="voting faults")
