"""Outcomes of measures: figures of ours and of the limit, thresholds (printed as "marks"), and their reports."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self


@dataclass
class Threshold:
    """A threshold that a figure has to reach, or must not exceed."""

    text: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is met; NaN never is."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    @property
    def verdict(self) -> str:
        """The result in a word."""
        return "met" if self.met else "**missed**"

    @property
    def goal(self) -> str:
        """The condition, as text."""
        return f"{'≤' if self.at_most else '≥'} {number(self.limit)}"

    def __str__(self) -> str:
        return f"{'✓' if self.met else '✗'} {self.text}: {number(self.value)} ({self.goal})"


MAX_BUSY = 0.9  # share of a core above which a load generator may be the bottleneck


def generator_threshold(busy: list[float]) -> Threshold:
    """Return the threshold for the share of a core that each load generator took."""
    return Threshold("busiest load generator, share of a core", max(busy), MAX_BUSY, at_most=True)


@dataclass
class Outcome:
    """The rounds of one measure. `limit` is empty where the thresholds are absolute.

    `cpu` has CPU seconds for a thousand votes, part by part, round by round. `run` says when and how it was taken.
    """

    name: str
    unit: str
    ours: list[float]
    limit: list[float] = field(default_factory=list)
    thresholds: list[Threshold] = field(default_factory=list)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours to the limit."""
        return median(self.ours) / median(self.limit) if self.limit else None

    @property
    def met(self) -> bool:
        """Whether all thresholds are met."""
        return all(threshold.met for threshold in self.thresholds)

    def record(self) -> dict[str, Any]:
        """Return the outcome as it is in results.json."""
        record = asdict(self)
        return record | {"marks": record.pop("thresholds"), "ratio": self.ratio, "met": self.met}

    @classmethod
    def of(cls, record: dict[str, Any]) -> Self:
        """Read what `record` wrote."""
        fields = {name: value for name, value in record.items() if name not in {"ratio", "met", "marks"}}
        return cls(**fields, thresholds=[Threshold(**mark) for mark in record["marks"]])


class Results:
    """The newest outcome of each measure on one machine, kept in a folder over several runs.

    Args:
        folder: for results.json and results.md.
        machine: its description, to compare results.
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
        """Add an outcome, replacing an earlier one of the same measure, and write both files."""
        self.outcomes[name] = outcome
        known = sorted(self.outcomes, key=self._order.index)
        self.outcomes = {each: self.outcomes[each] for each in known}
        record = {"machine": self._machine, "measures": {each: self.outcomes[each].record() for each in known}}
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "results.json").write_text(json.dumps(record, indent=1) + "\n")
        (self._folder / "results.md").write_text(self.markdown())

    def markdown(self) -> str:
        """Return the tables of measures, thresholds and CPU, then the notes."""
        return markdown(list(self.outcomes.values()), self._machine)


def median(values: list[float]) -> float:
    return statistics.median(values)


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def number(value: float) -> str:
    """Format with three significant digits, or as a whole number from 1,000 on."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values: list[float]) -> str:
    """Format the median and the range."""
    if not values:
        return ""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def markdown(outcomes: list[Outcome], machine: dict[str, str]) -> str:
    """Return the report for people."""
    thresholds = [(outcome, threshold) for outcome in outcomes for threshold in outcome.thresholds]
    missed = [f"{outcome.name}: {threshold.text}" for outcome, threshold in thresholds if not threshold.met]
    lines = [", ".join(machine.values()) + ".", ""]
    lines += [f"{len(thresholds) - len(missed)} of {len(thresholds)} marks met" + ("." if not missed else "; missed:")]
    lines += [f"- {each}" for each in missed]
    lines += _table("measure | ours: median (range) | limit, in turn | ratio | marks | taken", map(_row, outcomes))
    lines += _table("measure | mark | found | to reach | ", (_threshold_row(*each) for each in thresholds))
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
    met = f"{sum(threshold.met for threshold in outcome.thresholds)} of {len(outcome.thresholds)} met"
    return (
        f"{outcome.name} | {spread(outcome.ours)} {outcome.unit} | {spread(outcome.limit)} | {ratio} | {met} | {taken}"
    )


def _threshold_row(outcome: Outcome, threshold: Threshold) -> str:
    return f"{outcome.name} | {threshold.text} | {number(threshold.value)} | {threshold.goal} | {threshold.verdict}"


def _cpu_row(outcome: Outcome) -> str:
    parts = (f"{name} {number(median(values))}" for name, values in outcome.cpu.items())
    return f"{outcome.name} | {', '.join(parts)}"
