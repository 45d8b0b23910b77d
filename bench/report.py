"""What a measure found: rounds of ours and of the limit it is held against, marks, and how all is written down."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass
class Mark:
    """One thing to reach."""

    text: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached; a value that is no number reaches nothing."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def verdict(self) -> str:
        """In a word."""
        return "met" if self.met else "**missed**"

    @property
    def goal(self) -> str:
        """What is to be reached."""
        return f"{'≤' if self.at_most else '≥'} {number(self.limit)}"

    def __str__(self) -> str:
        return f"{'✓' if self.met else '✗'} {self.text}: {number(self.value)} ({self.goal})"


BUSY = 0.9  # share of a core above which a generator, rather than what it loads, may be what is measured


def idle_enough(busy: list[float]) -> Mark:
    """That the load generators were not the bottleneck, by the share of a core that each took."""
    return Mark("busiest load generator, share of a core", max(busy), BUSY, at_most=True)


@dataclass
class Outcome:
    """The rounds of one measure. `limit` is empty where the marks are absolute.

    `cpu` has CPU seconds for a thousand votes, part by part, round by round. `run` says when and how it was taken.
    """

    name: str
    unit: str
    ours: list[float]
    limit: list[float] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours to the limit."""
        return median(self.ours) / median(self.limit) if self.limit else None

    @property
    def met(self) -> bool:
        """Whether all marks were reached."""
        return all(mark.met for mark in self.marks)

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """Read what `record` wrote."""
        fields = {name: value for name, value in record.items() if name not in {"ratio", "met"}}
        return cls(**fields | {"marks": [Mark(**mark) for mark in record["marks"]]})


class Results:
    """The newest outcome of each measure on one machine, kept in a folder over several runs.

    Args:
        folder: for results.json and results.md.
        machine: what a reader has to know to compare.
        order: of the measures' names.

    Raises:
        ValueError: the folder has results of another machine, or of another kind of run.
    """

    def __init__(self, folder: Path, machine: dict[str, str], order: list[str]) -> None:
        self._folder, self._machine, self._order = folder, machine, order
        self.outcomes: dict[str, Outcome] = {}
        file = folder / "results.json"
        if file.exists():
            found = json.loads(file.read_text())
            if found["machine"] != machine:
                raise ValueError(f"{file} is of another machine; move it away, or choose another --out")
            self.outcomes = {name: Outcome.of(record) for name, record in found["measures"].items()}

    def add(self, name: str, outcome: Outcome) -> None:
        """Take an outcome in, in place of an earlier one of the same measure, and write all down."""
        self.outcomes[name] = outcome
        known = sorted(self.outcomes, key=self._order.index)
        self.outcomes = {each: self.outcomes[each] for each in known}
        record = {"machine": self._machine, "measures": {each: self.outcomes[each].record() for each in known}}
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
        (self._folder / "results.md").write_text(self.markdown())

    def markdown(self) -> str:
        """The tables: measures, marks, CPU; then the notes."""
        return markdown(list(self.outcomes.values()), self._machine)


def median(values: list[float]) -> float:
    return statistics.median(values)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def number(value: float) -> str:
    """Three digits that count, or all those of a whole number."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: list[float]) -> str:
    """Median, and the range that it comes from."""
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def markdown(outcomes: list[Outcome], machine: dict[str, str]) -> str:
    """All that was found, for people."""
    marks = [(outcome, mark) for outcome in outcomes for mark in outcome.marks]
    missed = [f"{outcome.name}: {mark.text}" for outcome, mark in marks if not mark.met]
    lines = [", ".join(machine.values()) + ".", ""]
    lines += [f"{len(marks) - len(missed)} of {len(marks)} marks met" + ("." if not missed else "; missed:")]
    lines += [f"- {each}" for each in missed]
    lines += _table("measure | ours: median (range) | limit, in turn | ratio | marks | taken", map(_row, outcomes))
    lines += _table("measure | mark | found | to reach | ", (_mark_row(*each) for each in marks))
    costly = [outcome for outcome in outcomes if outcome.cpu]
    lines += _table("measure | CPU seconds for a thousand votes, part by part", map(_cpu_row, costly))
    for outcome in outcomes:
        lines += ["", f"**{outcome.name}**: {json.dumps(outcome.notes, ensure_ascii=False)}"] if outcome.notes else []
    return "\n".join(lines) + "\n"


def _table(head: str, rows: Any) -> list[str]:
    return ["", f"| {head} |", "|" + "---|" * (head.count("|") + 1), *(f"| {row} |" for row in rows)]


def _row(outcome: Outcome) -> str:
    ratio = f"{outcome.ratio:.2f}" if outcome.ratio is not None else ""
    taken = ", ".join(str(value) for value in outcome.run.values())
    met = f"{sum(mark.met for mark in outcome.marks)} of {len(outcome.marks)} met"
    return (
        f"{outcome.name} | {spread(outcome.ours)} {outcome.unit} | {spread(outcome.limit)} | {ratio} | {met} | {taken}"
    )


def _mark_row(outcome: Outcome, mark: Mark) -> str:
    return f"{outcome.name} | {mark.text} | {number(mark.value)} | {mark.goal} | {mark.verdict}"


def _cpu_row(outcome: Outcome) -> str:
    parts = (f"{name} {number(median(values))}" for name, values in outcome.cpu.items())
    return f"{outcome.name} | {', '.join(parts)}"
