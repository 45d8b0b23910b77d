"""Waiting between tries."""

from hypothesis import given
from hypothesis import strategies as st

from voting.core.lifecycle import Backoff


@given(st.integers(1, 100))
def test_waits_grow_to_the_cap_and_never_to_nothing(tries: int) -> None:
    backoff = Backoff(0.1, 2)
    waits = [backoff.next() for _ in range(tries)]
    for number, wait in enumerate(waits):
        step = min(2, 0.1 * 2**number)
        assert step * 0.1 <= wait <= step
    backoff.reset()
    assert backoff.next() <= 0.1
