"""Backoff, and the limit of open files."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.service import lifecycle
from voting.service.lifecycle import Backoff


@given(st.integers(1, 100))
def test_waits_grow_to_the_cap_and_are_never_zero(attempts: int) -> None:
    backoff = Backoff(0.1, 2)
    waits = [backoff.next() for _ in range(attempts)]
    for number, wait in enumerate(waits):
        step = min(2, 0.1 * 2**number)
        assert step * 0.1 <= wait <= step
    backoff.reset()
    assert backoff.next() <= 0.1


INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "highest", "expected"),
    [
        (1024, 4096, 1 << 30, 4096),  # Linux
        (1024, 1 << 30, 1 << 30, 1 << 20),  # a container with a huge limit
        (1 << 20, INFINITE, 1 << 30, 1 << 20),
        (256, INFINITE, 10_240, 10_240),  # macOS
        (256, INFINITE, 100, 256),  # every limit is refused
        (INFINITE, INFINITE, 100, INFINITE),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, highest: int, expected: int
) -> None:
    """Linux has no infinite limit of open files, so getrlimit(2) and setrlimit(2) of macOS are simulated."""
    current = [soft, hard]

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        if not 0 <= limits[0] <= highest or limits[1] != hard:
            raise ValueError("current limit exceeds maximum limit")
        current[:] = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(current))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    lifecycle._raise_open_files_limit()
    assert current == [expected, hard]
