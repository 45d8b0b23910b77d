"""No cell of an export begins like a formula, and a reader gets back what was written."""

import csv
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from voting.admin.csv_export import csv_of

cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def export(question: str, labels: list[str], votes: list[int], **more: Any) -> dict[str, Any]:
    options = [{"key": str(n), "label": label, "votes": votes[n]} for n, label in enumerate(labels)]
    total = {"total": sum(votes), "runoff": None, "kind": "single"}
    return {"poll": "p", "round": 1, "question": question, "options": options} | total | more


@given(question=cells, label=cells, begins=st.sampled_from(["", *"=+-@\t\r＝＋－＠"]))  # noqa: RUF001 - full-width
def test_a_cell_is_text_for_every_spreadsheet(question: str, label: str, begins: str) -> None:
    written = csv_of(export(question, [begins + label, "b"], [3, 1]))
    rows = list(csv.reader(io.StringIO(written.decode("utf-8-sig"), newline="")))
    assert len(rows) == 3
    cell = rows[1][4]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.removeprefix("'") == (begins + label).removeprefix("'")
    assert rows[1][5:] == ["3", "4", "75.0"]


@given(votes=st.lists(st.integers(0, 1000), min_size=2, max_size=20))
def test_equal_votes_have_equal_percentages(votes: list[int]) -> None:
    def percent(kind: str, total: int) -> list[float]:
        written = csv_of(export("q", [f"o{n}" for n in range(len(votes))], votes, kind=kind, total=total))
        rows = csv.DictReader(io.StringIO(written.decode("utf-8-sig"), newline=""))
        return [float(row["percent"]) for row in rows]

    total = sum(votes)
    found = percent("single", total)
    assert found == [round(100 * count / total, 1) if total else 0 for count in votes]
    assert len(set(zip(votes, found, strict=True))) == len(set(votes))
    assert max(percent("multiple", max(votes))) in {0.0, 100.0}
