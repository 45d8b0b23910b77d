"""Votes, and the fields of a vote's stream entry.

A stream entry is a vote if it names the box of a known poll, a choice that this poll accepts, and a voter of 16 bytes.
For all other bytes, `VoteParser.read` raises `Malformed`.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple, Self

from voting.polls.poll import Poll

VOTER_BYTES = 16
MAX_AHEAD_SECONDS = 24 * 3600
MAX_SEQ = 2**62  # largest sequence number of an entry id: the database stores it as a bigint, and Redis increments it
CACHED_CHOICES = 50_000
KNOWN_POLLS = 1000  # rounds that a parser keeps


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


_FIELDS = [b"poll", b"voter", b"choice"]


def vote_fields(poll: bytes, voter: bytes, choice: bytes, traceparent: bytes = b"") -> list[bytes]:
    """Return the fields of a vote's stream entry, names and values in turn: what `VoteParser.read` reads."""
    trace = [b"traceparent", traceparent] if traceparent else []
    return [b"poll", poll, b"voter", voter, b"choice", choice, *trace]


class Malformed(Exception):
    """The stream entry cannot become a vote; the message is the reason."""


class Undefined(Malformed):
    """It cannot become one by the definitions that are known: it may by the current definition of its `box`."""

    def __init__(self, reason: str, box: bytes) -> None:
        super().__init__(reason)
        self.box = box


class Deleted(Undefined):
    """The vote's poll was deleted, so the vote is dropped."""


class VoteParser:
    """Parses stream entries and validates them against the known polls."""

    def __init__(self, polls: Iterable[Poll] = ()) -> None:
        self._polls = {poll.box.encode(): poll for poll in polls}
        self._choices: dict[tuple[bytes, bytes], tuple[str, str]] = {}  # box and choice -> the same as text
        self._deleted: frozenset[bytes] = frozenset()
        self.forgotten = 0  # how often `forget` was called: what was read before the last call may be outdated

    def define(self, polls: Iterable[Poll], deleted: Iterable[str] = ()) -> None:
        """Accept votes of these rounds, as they are defined now, and drop votes for these deleted polls only.

        Polls that were known before stay known, unless there are very many.
        """
        if len(self._polls) >= KNOWN_POLLS:
            self._polls.clear()
        self._polls |= {poll.box.encode(): poll for poll in polls}
        self._choices.clear()
        self._deleted = frozenset(slug.encode() for slug in deleted)

    def forget(self, slug: str) -> None:
        """Forget a poll that has changed."""
        self.forgotten += 1
        changed = [box for box in self._polls if box.partition(b"#")[0] == slug.encode()]
        for box in changed:
            del self._polls[box]
        if changed:
            self._choices.clear()

    def forget_all(self) -> None:
        """Forget all polls."""
        self.forgotten += 1
        self._polls.clear()
        self._choices.clear()

    def read(self, entry: EntryId, fields: list[bytes]) -> Vote:
        """Return the vote of an entry with these fields, names and values in turn; or raise `Malformed`."""
        names, values = fields[::2], fields[1::2]
        if names != _FIELDS:  # a traced vote has more; entries of other clients may have any
            by_name = dict(zip(names, values, strict=True))
            if missing := [name.decode() for name in _FIELDS if name not in by_name]:
                raise Malformed(f"missing field: {', '.join(missing)}")
            values = [by_name[name] for name in _FIELDS]
        box, voter, choice = values
        if len(voter) != VOTER_BYTES:
            raise Malformed(f"voter has {len(voter)} bytes, expected {VOTER_BYTES}")
        known = self._choices.get((box, choice)) or self._check(box, choice)
        return Vote(known[0], voter, known[1], entry)

    def _check(self, box: bytes, choice: bytes) -> tuple[str, str]:
        poll = self._polls.get(box)
        if poll is None:
            if box.partition(b"#")[0] in self._deleted:
                raise Deleted("deleted poll", box)
            raise Undefined("unknown poll", box)
        text = choice.decode(errors="replace")
        if not poll.accepts(text):
            raise Undefined("choice is not an option of the poll", box)
        if len(self._choices) >= CACHED_CHOICES:
            self._choices.clear()
        self._choices[box, choice] = known = (poll.box, text)
        return known
