"""What a measure found: rounds of ours and of the limit it is held against, marks, and how both are written down."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Mark:
    """One thing to reach."""

    text: str
    value: float
    limit: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{'✓' if self.met else '✗'} {self.text}: {self.value:,.3g} ({sign} {self.limit:,.3g})"


@dataclass
class Outcome:
    """The rounds of one measure. `limit` is empty where the marks are absolute."""

    name: str
    unit: str
    ours: list[float]
    limit: list[float] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours to the limit."""
        return median(self.ours) / median(self.limit) if self.limit else None

    def row(self) -> str:
        """A row of the Markdown table."""
        ratio = f"{self.ratio:.2f}" if self.ratio is not None else ""
        marks = "<br>".join(map(str, self.marks))
        return f"| {self.name} | {spread(self.ours)} {self.unit} | {spread(self.limit)} | {ratio} | {marks} |"

    def record(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self) | {"ratio": self.ratio, "met": all(mark.met for mark in self.marks)}


def median(values: list[float]) -> float:
    return statistics.median(values)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: list[float]) -> str:
    """Median, and the range that it comes from."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:,.4g}"
    return f"{median(values):,.4g} ({min(values):,.4g} to {max(values):,.4g})"


def markdown(outcomes: list[Outcome], machine: dict[str, str]) -> str:
    """The table, under a description of the machine."""
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", "| measure | ours: median (range) | limit, same run | ratio | marks |", "|---|---|---|---|---|"]
    lines += [outcome.row() for outcome in outcomes]
    for outcome in outcomes:
        if outcome.notes:
            lines += ["", f"**{outcome.name}**", "", "```json", json.dumps(outcome.notes, indent=1), "```"]
    return "\n".join(lines) + "\n"
