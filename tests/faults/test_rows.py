"""Every row in brief."""

from pathlib import Path

import pytest

from tests.faults.rows import ROWS, Row
from tests.faults.run import RunConfig


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_no_vote_is_lost_or_counted_twice(row: Row, tmp_path: Path) -> None:
    assert row.run(RunConfig(tmp_path, seed=1))["accepted"]
