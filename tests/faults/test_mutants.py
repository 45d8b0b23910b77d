"""Every mutant, with the row that notices it quickest."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS, Mutant, run_mutant
from tests.faults.run import RowFailed, RunConfig


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_a_mutant_is_noticed(mutant: Mutant, tmp_path: Path) -> None:
    missed = []
    for seed in (1, 2):  # what it breaks may need luck: that it was noticed proves that it can be
        config = RunConfig(tmp_path / f"mutant-{seed}", seed=seed)
        try:
            assert run_mutant(mutant, mutant.rows[0], config)
        except (RowFailed, AssertionError) as failure:
            missed.append(failure)
        else:
            return
    raise ExceptionGroup(f"not noticed: {mutant.name}", missed)
