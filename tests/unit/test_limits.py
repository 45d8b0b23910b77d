"""How much one address may ask for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.core import limits
from voting.core.limits import RateLimit, Seats
from voting.core.origin import client_address
from voting.core.rendering import Problem


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_one_at_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(2, 3, clock)
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    assert limit.take("b") == 0
    clock.now += 0.5
    assert limit.take("a") == 0
    assert limit.take("a") > 0
    clock.now += 100
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.1, 50), st.integers(1, 20))
def test_whatever_the_gaps_no_more_get_through_than_the_bucket_and_the_rate_allow(
    gaps: list[float], rate: float, burst: int
) -> None:
    clock = Clock()
    limit = RateLimit(rate, burst, clock)
    through = 0
    for gap in gaps:
        clock.now += gap
        wait = limit.take("a")
        through += not wait
        assert wait <= 1 / rate + 1e-6
    assert through <= burst + sum(gaps[1:]) * rate + 1e-6


def test_a_token_that_is_given_back_can_be_taken_again_and_no_other() -> None:
    clock = Clock()
    limit = RateLimit(1, 3, clock)
    for _ in range(10):
        assert limit.take("a") == 0
        limit.give_back("a")
    assert [limit.take("a") for _ in range(4)] == [0, 0, 0, pytest.approx(1)]
    limit.give_back("a")
    assert [limit.take("a") for _ in range(2)] == [0, pytest.approx(1)]
    limit.give_back("nobody")
    assert limit.take("nobody") == 0


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=60))
def test_tokens_that_are_given_back_at_once_are_as_if_never_taken(steps: list[tuple[float, bool]]) -> None:
    clock = Clock()
    limit, other = RateLimit(1, 5, clock), RateLimit(1, 5, clock)
    for gap, used in steps:
        clock.now += gap
        wait = limit.take("a")
        if used:
            assert other.take("a") == pytest.approx(wait, abs=1e-6)
        elif not wait:
            limit.give_back("a")


def test_addresses_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ADDRESSES", 10)
    limit = RateLimit(1, 1, Clock())
    for number in range(50):
        assert limit.take(str(number)) == 0
    assert len(limit._full_at) == 10
    assert limit.take("49") > 0


def test_seats_are_limited_in_all_and_for_each_address_and_come_back() -> None:
    seats = Seats(3, 2)
    seats.take("a")
    seats.take("a")
    with pytest.raises(Problem) as refused:
        seats.take("a")
    assert refused.value.status == 429
    seats.take("b")
    with pytest.raises(Problem):
        seats.take("c")
    seats.give_back("a")
    seats.take("c")
    for address in ("a", "b", "c"):
        seats.give_back(address)
    assert not seats._taken


@pytest.mark.parametrize(
    ("peer", "forwarded", "hops", "address"),
    [
        ("192.0.2.1", [], 0, "192.0.2.1"),
        ("192.0.2.1", ["6.6.6.6"], 0, "192.0.2.1"),  # nobody of ours wrote that
        ("10.0.0.1", ["6.6.6.6, 192.0.2.1"], 1, "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6", "192.0.2.1"], 1, "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.1, 10.0.0.2"], 2, "192.0.2.1"),
        ("10.0.0.1", [], 1, "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.1"], 2, "10.0.0.1"),
        ("2001:db8:1:2:3::4", [], 0, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", [], 0, "192.0.2.1"),
        ("10.0.0.1", ["garbage"], 1, "garbage"),
        ("10.0.0.1", ["x" * 5000], 1, "x" * 50),
    ],
)
def test_the_client_is_whom_the_last_proxy_of_ours_saw(
    peer: str, forwarded: list[str], hops: int, address: str
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert client_address({"client": (peer, 1234), "headers": headers}, hops) == address


def test_a_unix_socket_has_no_address() -> None:
    assert client_address({"client": None, "headers": []}, 0) == ""
