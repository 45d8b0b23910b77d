"""Percentages that add up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.polls.tally import shares


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=20))
def test_shares_add_up_to_100_and_are_never_off_by_a_tenth_or_more(votes: list[int]) -> None:
    found = shares(votes)
    total = sum(votes)
    if not total:
        assert found == [0.0] * len(votes)
        return
    assert round(sum(found), 6) == 100
    for share, count in zip(found, votes, strict=True):
        assert abs(share - 100 * count / total) < 0.1 + 1e-9


@pytest.mark.parametrize(
    ("votes", "expected"),
    [([1, 1, 1], [33.4, 33.3, 33.3]), ([2000, 1000], [66.7, 33.3]), ([0, 0], [0, 0]), ([0, 7], [0, 100])],
)
def test_the_largest_remainder_gets_the_last_tenth(votes: list[int], expected: list[float]) -> None:
    assert shares(votes) == expected
