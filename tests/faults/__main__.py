"""`./voting faults`: every row, or some, each on an installation of its own; a table at the end."""

import secrets
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from tests.faults.mutants import MUTANTS, hunt
from tests.faults.rows import ROWS, Row, find
from tests.faults.trial import Broken, Case


@dataclass
class Outcome:
    """What one run of a row found."""

    title: str
    seed: int
    verdict: str
    seconds: float
    found: str

    def line(self) -> str:
        """A row of the Markdown table."""
        return f"| {self.title} | {self.seed} | {self.verdict} | {self.seconds:.0f} s | {self.found} |"


def attempt(title: str, case: Case, run: Callable[[Case], str], good: str) -> Outcome:
    """Run something in the folder of a case; keep the folder only if it failed. `good` is what else it is called."""
    began = time.monotonic()
    try:
        found, verdict = run(case), good
    except Broken as broken:
        found, verdict = str(broken), "FAILED"
    except pytest.skip.Exception as skipped:
        found, verdict = str(skipped), "NOT RUN"
    except Exception as error:  # noqa: BLE001 - a fault in the harness fails the row, and the others are run
        traceback.print_exc()
        found, verdict = f"{type(error).__name__}: {error}".splitlines()[0], "FAILED"
    if verdict == good:
        shutil.rmtree(case.folder)
    else:
        found += f" (see {case.folder})"
    return Outcome(title, case.seed, verdict, time.monotonic() - began, found)


def figures(notes: dict[str, Any]) -> str:
    """What a row noted, in one line."""
    parts = []
    for name, value in notes.items():
        if isinstance(value, dict):
            parts.append(f"{name}: {figures(value)}")
        else:
            shown = " → ".join(map(str, value)) if isinstance(value, list) else value
            parts.append(f"{name} {shown}")
    return ", ".join(parts)


def find_all(words: list[str]) -> tuple[Row, ...]:
    """The rows that were asked for, or all."""
    try:
        return tuple(map(find, words)) or ROWS
    except LookupError as error:
        raise typer.BadParameter(str(error)) from None


def main(
    only: Annotated[list[str] | None, typer.Option(help="A row's number or name. May be repeated.")] = None,
    brief: Annotated[bool, typer.Option(help="Short, with room for a busy machine, as in CI.")] = False,  # noqa: FBT002
    seed: Annotated[int | None, typer.Option(help="Of the dice; printed, so that a run can be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often, each time with the next seed.")] = 1,
    mutants: Annotated[bool, typer.Option(help="Builds broken on purpose instead, which rows must notice.")] = False,  # noqa: FBT002
) -> None:
    """Break the installation in every way we know of, under load, and check that no acknowledged vote is lost."""
    rows = find_all(only or [])
    first = secrets.randbelow(100_000) if seed is None else seed
    place = Path(tempfile.mkdtemp(prefix="voting-faults-"))
    place.chmod(0o711)  # root's PostgreSQL runs as another user, who has to pass through
    outcomes: list[Outcome] = []
    good = "noticed" if mutants else "passed"

    def do(title: str, case: Case, run: Callable[[Case], str]) -> None:
        typer.echo(f"{title}, seed {case.seed} …", err=True)
        outcomes.append(attempt(title, case, run, good))
        typer.echo(f"  {outcomes[-1].verdict} after {outcomes[-1].seconds:.0f} s: {outcomes[-1].found}", err=True)

    for number in range(first, first + rounds):
        if mutants:
            for mutant in MUTANTS:
                for name in mutant.rows:
                    if find(name) in rows:
                        case = Case(place / f"{number}-{len(outcomes)}-{name}", number)
                        do(f"{mutant.name} | {name}", case, lambda case, m=mutant, n=name: hunt(m, n, case))  # type: ignore[misc]
        else:
            for row in rows:
                case = Case(place / f"{number}-{row.name}", number, brief)
                case.folder.mkdir()
                do(str(row), case, lambda case, row=row: figures(row.run(case)))  # type: ignore[misc]
    head = "| mutant | row " if mutants else "| row "
    print(head + f"| seed | verdict | took | {'what the mutant lost' if mutants else 'figures'} |")
    print("|---" * (head.count("|") + 4) + "|")
    for outcome in outcomes:
        print(outcome.line())
    failed = sum(outcome.verdict != good for outcome in outcomes)
    print(
        f"\n{len(outcomes) - failed} of {len(outcomes)} {good}"
        + (f"; logs and histories of the others: {place}" if failed else "")
    )
    if not failed:
        place.rmdir()
    raise typer.Exit(failed > 0)


if __name__ == "__main__":
    cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    cli.command()(main)
    cli(prog_name="voting faults")
