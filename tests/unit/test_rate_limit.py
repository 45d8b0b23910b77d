"""How many requests and connections one address may have."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.web.addresses import SLASH_48_FACTOR, ConnectionLimit, networks
from voting.web.origin import client_address
from voting.web.rate_limit import RateLimit


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_let_through_and_then_one_at_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(1 / 100, 3, clock)
    for _ in range(2):
        assert [limit.take("a") for _ in range(4)] == [True, True, True, False]
        assert limit.retry_after("a") == 100
        assert limit.take("b")
        clock.now += 99.5
        assert limit.retry_after("a") == 1
        clock.now += 0.5
        assert limit.take("a")
        assert not limit.take("a")
        clock.now += 1000


def test_addresses_whose_buckets_are_full_again_are_forgotten() -> None:
    clock = Clock()
    limit = RateLimit(1 / 100, 3, clock)
    for address in ("192.0.2.1", "2001:db8::1"):
        assert limit.take(address)
    clock.now += 101
    assert limit.take("192.0.2.2")
    assert limit._full_at.keys() == set(networks("192.0.2.2"))


def test_a_wait_is_at_least_one_second_and_asking_takes_no_token() -> None:
    clock = Clock()
    limit = RateLimit(100, 1, clock)
    assert limit.take("a")
    assert [limit.retry_after("a") for _ in range(5)] == [1] * 5
    clock.now += 0.01
    assert limit.retry_after("a") == 1  # there is a token by now
    assert limit.take("a")


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.1, 50), st.integers(1, 20))
def test_whatever_the_gaps_no_more_get_through_than_the_bucket_and_the_rate_allow(
    gaps: list[float], rate: float, burst: int
) -> None:
    clock = Clock()
    limit = RateLimit(rate, burst, clock)
    through = 0
    for gap in gaps:
        clock.now += gap
        through += limit.take("a")
        assert 1 <= limit.retry_after("a") <= math.ceil(1 / rate)
    assert through <= burst + sum(gaps[1:]) * rate + 1e-6


def test_a_slash_48_gets_more_than_one_address_and_not_as_much_as_all_in_it() -> None:
    clock = Clock()
    limit = RateLimit(2, 3, clock)
    customers = [f"2001:db8:1:{number:x}::/64" for number in range(100)]
    assert [limit.take(customers[0]) for _ in range(4)] == [True, True, True, False]
    assert [limit.take(each) for each in customers].count(True) == 3 * SLASH_48_FACTOR - 3
    assert limit.take("2001:db8:2:1::/64")
    clock.now += 0.5
    assert [limit.take(each) for each in customers].count(True) == SLASH_48_FACTOR


def test_a_request_that_the_slash_48_has_no_token_for_takes_none_of_the_address() -> None:
    clock = Clock()
    limit = RateLimit(1 / (100 * SLASH_48_FACTOR), 1, clock)
    for number in range(SLASH_48_FACTOR):
        assert limit.take(f"2001:db8:1:{number:x}::/64")
    assert not limit.take("2001:db8:1:ff::/64")
    assert limit.retry_after("2001:db8:1:ff::/64") == 100
    clock.now += 100
    assert limit.take("2001:db8:1:ff::/64")


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40)), max_size=200), st.floats(0.1, 50), st.integers(1, 5))
def test_whatever_addresses_of_a_slash_48_ask_no_more_get_through_than_it_is_allowed(
    asked: list[tuple[float, int]], rate: float, burst: int
) -> None:
    clock = Clock()
    limit = RateLimit(rate, burst, clock)
    through: Counter[int] = Counter()
    for gap, number in asked:
        clock.now += gap
        through[number] += limit.take(f"2001:db8:1:{number:x}::/64")
    span = sum(gap for gap, _ in asked[1:])
    assert through.total() <= SLASH_48_FACTOR * (burst + span * rate) + 1e-6
    assert max(through.values(), default=0) <= burst + span * rate + 1e-6


def test_a_token_that_is_given_back_can_be_taken_again_and_no_other() -> None:
    clock = Clock()
    limit = RateLimit(1, 3, clock)
    for _ in range(10):
        assert limit.take("a")
        limit.give_back("a")
    assert [limit.take("a") for _ in range(4)] == [True, True, True, False]
    limit.give_back("a")
    assert [limit.take("a") for _ in range(2)] == [True, False]
    limit.give_back("nobody")
    assert limit.take("nobody")


@given(st.lists(st.tuples(st.floats(0, 0.5), st.booleans()), max_size=60))
def test_tokens_that_are_given_back_at_once_are_as_if_never_taken(steps: list[tuple[float, bool]]) -> None:
    clock = Clock()
    limit, other = RateLimit(1, 5, clock), RateLimit(1, 5, clock)
    for gap, used in steps:
        clock.now += gap
        granted = limit.take("a")
        if used:
            assert other.take("a") == granted
        elif granted:
            limit.give_back("a")
        assert limit._full_at.get("a", 0) <= max(clock.now, other._full_at.get("a", 0)) + 1e-6


def test_addresses_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.web.rate_limit.ADDRESSES", 10)
    limit = RateLimit(1, 1, Clock())
    for number in range(50):
        assert limit.take(str(number))
    assert len(limit._full_at) == 10
    assert not limit.take("49")


def test_connections_are_limited_in_all_and_for_each_address_and_are_released() -> None:
    limit = ConnectionLimit(3, 2)
    assert [limit.acquire(address) for address in "aaabc"] == [True, True, False, True, False]
    limit.release("a")
    assert limit.acquire("c")
    for address in "abc":
        limit.release(address)
    assert not limit._open


@pytest.mark.parametrize(("per_address", "of_the_48"), [(2, 32), (20, 50), (60, 60), (0, 100)])
def test_a_slash_48_has_more_connections_than_an_address_and_at_most_half(per_address: int, of_the_48: int) -> None:
    limit = ConnectionLimit(100, per_address)
    held = [address for number in range(101) if limit.acquire(address := f"2001:db8:1:{number:x}::/64")]
    assert len(held) == of_the_48
    for address in held:
        limit.release(address)
    assert not limit._open


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("2001:db8:1:2::/64", ("2001:db8:1:2::/64", "2001:db8:1::/48")),
        ("", ("",)),
        ("garbage/64", ("garbage/64",)),
    ],
)
def test_an_ipv6_address_counts_for_the_slash_48_around_it_too(address: str, expected: tuple[str, ...]) -> None:
    assert networks(address) == expected


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


@given(st.text(max_size=60), st.lists(st.binary(max_size=60), max_size=4), st.integers(0, 10))
def test_no_address_or_header_breaks_it(peer: str, lines: list[bytes], hops: int) -> None:
    headers = [(b"x-forwarded-for", line) for line in lines]
    address = client_address({"client": (peer, 1), "headers": headers}, hops)
    assert len(address) <= 50
    assert RateLimit(1, 1, Clock()).take(address)
