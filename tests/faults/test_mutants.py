"""Every mutant, with the row that notices it quickest."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant, run_mutant
from tests.faults.run import RunConfig


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    assert run_mutant(mutant, mutant.rows[0], RunConfig(tmp_path / "mutant", seed=1))
