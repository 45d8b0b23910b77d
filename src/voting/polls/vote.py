"""Votes, the ids that order them, and the fields of a vote's stream entry."""

import time
from typing import NamedTuple, Self

VOTER_BYTES = 16
MAX_AHEAD_SECONDS = 24 * 3600
MAX_SEQ = 2**62  # largest sequence number of an entry id: the database stores it as a bigint, and Redis increments it


class EntryId(NamedTuple):
    """The id that Redis gave a stream entry; ids order votes."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Parse an id such as `b"1732449600000-0"`."""
        ms, seq = text.split(b"-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


def max_entry_ms() -> int:
    """Return the largest entry id that a vote can have, in milliseconds since the epoch: a day ahead of the clock.

    Redis takes ids from its clock. An id further ahead is forged, and would be newer than all later votes.
    """
    return int((time.time() + MAX_AHEAD_SECONDS) * 1000)


class Vote(NamedTuple):
    """A well-formed stream entry; `voter` is a keyed hash of 16 bytes, from which no cookie can be computed."""

    poll: str  # the box of the poll's round
    voter: bytes
    choice: str
    entry: EntryId


def vote_fields(poll: bytes, voter: bytes, choice: bytes, traceparent: bytes = b"") -> list[bytes]:
    """Return the fields of a vote's stream entry, names and values in turn: what `VoteParser.read` reads."""
    trace = [b"traceparent", traceparent] if traceparent else []
    return [b"poll", poll, b"voter", voter, b"choice", choice, *trace]
