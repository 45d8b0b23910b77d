"""The bounded cache of one hash of definitions."""

import asyncio

import pytest

from voting.broker import cached_hash
from voting.broker.cached_hash import CachedHash
from voting.polls.poll import Option, Poll

pytestmark = pytest.mark.anyio
OPTIONS = (Option("a", "A"), Option("b", "B"))


def poll(slug: str, question: str = "?") -> Poll:
    return Poll(slug, question, OPTIONS)


class Cached:
    """A cache with what it reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Poll | None]] = []
        self.hash = CachedHash(b"polls", Poll.from_json, lambda *change: self.seen.append(change), "default")

    def put(self, *polls: Poll) -> None:
        for each in polls:
            self.hash.store(each.slug, each.to_json().encode())


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch) -> Cached:
    monkeypatch.setattr(cached_hash, "CAPACITY", 3)
    monkeypatch.setattr(cached_hash, "CHUNK", 2)
    return Cached()


def test_the_least_recently_used_leaves_first_and_the_pinned_one_never(cached: Cached) -> None:
    cached.put(poll("default"), poll("one"), poll("two"))
    assert cached.hash.find("one")
    cached.put(poll("three"))
    assert cached.hash.find("default")
    assert cached.hash.find("one")
    assert cached.hash.find("two") is None
    assert cached.seen[-2:] == [("two", None), ("three", poll("three"))]
    for number in range(20):
        cached.put(poll(f"n{number}"))
    assert cached.hash.find("default")


def test_only_changes_are_reported(cached: Cached) -> None:
    cached.put(poll("one"), poll("one"), poll("one", "new"))
    cached.hash.store("one", None)
    cached.hash.store("one", None)
    assert cached.seen == [("one", poll("one")), ("one", poll("one", "new")), ("one", None)]


def test_an_entry_that_becomes_invalid_stays_as_it_was(cached: Cached) -> None:
    cached.put(poll("one"))
    cached.hash.store("one", b"\xff{")
    cached.hash.store("two", b"[]")
    assert cached.hash.find("one") == poll("one")
    assert cached.hash.bad.keys() == {"one", "two"}
    assert cached.hash.is_missing("two")
    cached.put(poll("one"))
    assert cached.hash.bad.keys() == {"two"}
    assert len(cached.seen) == 1


async def test_loads_of_one_name_share_a_read_and_come_first(cached: Cached) -> None:
    cached.put(poll("one"), poll("two"))
    cached.hash.mark_all()
    assert cached.hash.wait_for("x") is cached.hash.wait_for("x")
    waiting = [cached.hash.wait_for(name) for name in "xyz"]
    assert cached.hash.take() == ["x", "y", "one", "two"]
    cached.hash.store("x", poll("x").to_json().encode())
    cached.hash.store("y", None)
    assert cached.hash.take() == ["z", "default"]
    cached.hash.refuse()
    assert await asyncio.gather(*waiting) == [(True, poll("x")), (True, None), (False, None)]
    assert cached.hash.take() == []


def test_a_missing_name_is_remembered_for_a_moment_and_until_it_is_marked(
    cached: Cached, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three", "four"):
        cached.hash.store(name, None)
    assert [name for name in ("one", "two", "three", "four") if cached.hash.is_missing(name)] == [
        "two",
        "three",
        "four",
    ]
    cached.hash.mark("three")
    assert not cached.hash.is_missing("three")
    assert cached.hash.take() == []
    monkeypatch.setattr(cached_hash, "MISS_SECONDS", 0)
    assert not cached.hash.is_missing("two")


async def test_a_name_that_changes_while_it_is_read_is_read_again(cached: Cached) -> None:
    cached.hash.wait_for("one")
    assert cached.hash.take() == ["one"]
    cached.hash.mark("one")
    cached.hash.mark("unknown")
    cached.put(poll("one"))
    assert cached.hash.take() == ["one"]


def test_a_message_counts_at_once_and_what_was_read_before_it_does_not(cached: Cached) -> None:
    cached.put(poll("one"))
    cached.hash.receive("one", poll("one", "new").to_json().encode())
    assert cached.seen[-1] == ("one", poll("one", "new"))
    cached.put(poll("one"))  # was read before
    assert cached.hash.find("one") == poll("one", "new")
    assert cached.hash.take() == ["one"]
    cached.put(poll("one", "newest"))
    assert cached.hash.find("one") == poll("one", "newest")


def test_a_message_about_what_was_not_asked_for_is_not_kept(cached: Cached) -> None:
    cached.hash.receive("one", poll("one").to_json().encode())
    assert cached.hash.find("one") is None
    assert cached.hash.take() == []
