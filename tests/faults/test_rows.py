"""Every row in brief, and each build that is broken on purpose against the row that notices it quickest."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant, run_mutant
from tests.faults.rows import ROWS, Row
from tests.faults.run import RunConfig

SEED = 1


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_vote_is_lost_or_counted_twice(row: Row, tmp_path: Path) -> None:
    assert row.run(RunConfig(tmp_path, SEED))["accepted"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_build_that_is_broken_on_purpose_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    assert run_mutant(mutant, mutant.rows[0], RunConfig(tmp_path / "mutant", SEED))
