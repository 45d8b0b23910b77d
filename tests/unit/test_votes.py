"""Polls, the fields of a stream entry, and the newest vote of each voter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voting.polls.labels import displayable
from voting.polls.poll import Option, Poll
from voting.polls.vote import EntryId, Vote, vote_fields
from voting.polls.vote_parser import Malformed, VoteParser
from voting.worker.batch import newest_per_voter

POLL = Poll("default", "Cats or dogs?", (Option("a", "Cats"), Option("b", "Dogs")))
VOTER = bytes(range(16))
ENTRY = EntryId(1732449600000, 7)


def fields(**values: bytes) -> list[bytes]:
    return [part for name, value in values.items() for part in (name.encode(), value)]


def test_a_well_formed_entry_becomes_a_vote() -> None:
    entry = fields(poll=b"default", voter=VOTER, choice=b"b")
    assert VoteParser([POLL]).read(ENTRY, entry) == Vote("default", VOTER, "b", ENTRY)


@pytest.mark.parametrize("traceparent", [b"", b"00-1-2-01"])
def test_the_fields_of_a_vote_are_parsed_to_the_same_vote(traceparent: bytes) -> None:
    entry = vote_fields(b"default", VOTER, b"b", traceparent)
    assert VoteParser([POLL]).read(ENTRY, entry) == Vote("default", VOTER, "b", ENTRY)


def test_unknown_fields_are_ignored() -> None:
    entry = fields(choice=b"a", trace=b"x", voter=VOTER, poll=b"default")
    assert VoteParser([POLL]).read(ENTRY, entry).choice == "a"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (fields(voter=VOTER, choice=b"a"), "missing field: poll"),
        (fields(), "missing field: poll, voter, choice"),
        (fields(poll=b"default", voter=b"short", choice=b"a"), "voter has 5 bytes, expected 16"),
        (fields(poll=b"default", voter=VOTER * 2, choice=b"a"), "voter has 32 bytes, expected 16"),
        (fields(poll=b"other", voter=VOTER, choice=b"a"), "unknown poll"),
        (fields(poll=b"default", voter=VOTER, choice=b"c"), "choice is not an option of the poll"),
        (fields(poll=b"default", voter=VOTER, choice=b"\0"), "choice is not an option of the poll"),
        (fields(poll=b"\xff\xfe", voter=VOTER, choice=b"a"), "unknown poll"),
        (fields(poll=b"default", voter=VOTER, choice=b"a" * 1_000_000), "choice is not an option of the poll"),
    ],
)
def test_a_malformed_entry_is_refused_with_a_reason(entry: list[bytes], reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        VoteParser([POLL]).read(ENTRY, entry)
    assert str(caught.value) == reason


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=6))
def test_whatever_the_bytes_an_entry_is_a_vote_or_malformed(pairs: list[tuple[bytes, bytes]]) -> None:
    entry = [part for pair in pairs for part in pair]
    try:
        vote = VoteParser([POLL]).read(ENTRY, entry)
    except Malformed as malformed:
        assert str(malformed)  # noqa: PT017 - either outcome is right
    else:
        assert vote.choice in {"a", "b"}
        assert len(vote.voter) == 16


votes = st.builds(
    Vote,
    st.sampled_from(["default", "lunch"]),
    st.sampled_from([bytes([n]) * 16 for n in range(4)]),
    st.sampled_from(["a", "b"]),
    st.builds(EntryId, st.integers(0, 50), st.integers(0, 3)),
)


@given(st.lists(votes))
def test_newest_per_voter_keeps_exactly_each_voters_newest_vote_in_lock_order(batch: list[Vote]) -> None:
    kept = newest_per_voter(batch)
    keys = [(vote.poll, vote.voter) for vote in kept]
    assert keys == sorted({(vote.poll, vote.voter) for vote in batch})
    for vote in kept:
        own = [other.entry for other in batch if (other.poll, other.voter) == (vote.poll, vote.voter)]
        assert vote.entry == max(own)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_an_entry_id_survives_being_written_and_read(ms: int, seq: int) -> None:
    entry = EntryId(ms, seq)
    assert EntryId.parse(str(entry).encode()) == entry


TEXT = st.text(max_size=30).map(displayable).filter(bool)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=20))
def test_a_poll_survives_being_published(question: str, labels: list[str]) -> None:
    poll = Poll("default", question, tuple(Option(chr(97 + n), label) for n, label in enumerate(labels)))
    assert Poll.from_json("default", poll.to_json()) == poll
