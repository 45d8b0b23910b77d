"""Polls, choices, and the wire form of a vote on the stream.

A stream entry is a vote when it names a known poll, one of that poll's options, and a voter of 16 bytes.
Anything else is `Malformed`, which says why in a sentence; it never raises anything else, whatever the bytes.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, Self

DEFAULT_POLL = "default"
MAX_OPTIONS = 20
KEYS = "abcdefghijklmnopqrst"
VOTER_BYTES = 16
AHEAD_SECONDS = 24 * 3600
_FIELDS = [b"poll", b"voter", b"choice"]  # of an entry, in the order in which vote writes them


@dataclass(frozen=True, slots=True)
class Option:
    """One thing to vote for: `key` travels, `label` is shown."""

    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Poll:
    """A question with its options; `slug` names it in addresses, on the stream and in the database."""

    slug: str
    question: str
    options: tuple[Option, ...]

    @property
    def path(self) -> str:
        """The address of the poll on both web services, without a closing slash."""
        return "" if self.slug == DEFAULT_POLL else f"/p/{self.slug}"

    def options_json(self) -> str:
        """The options as the JSON list that the database and Redis hold."""
        return json.dumps([{"key": option.key, "label": option.label} for option in self.options])

    def to_json(self) -> str:
        """The form in which the worker publishes the poll."""
        return json.dumps({"question": self.question, "options": json.loads(self.options_json())})

    @classmethod
    def from_json(cls, slug: str, text: str | bytes) -> Self:
        """Read what `to_json` wrote."""
        data = json.loads(text)
        return cls.of(slug, data["question"], data["options"])

    @classmethod
    def of(cls, slug: str, question: str, options: Iterable[dict[str, str]]) -> Self:
        """Build a poll from the parts that the database holds."""
        return cls(slug, question, tuple(Option(option["key"], option["label"]) for option in options))


class EntryId(NamedTuple):
    """The id that Redis gave a stream entry; ids order votes."""

    ms: int
    seq: int

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read `b"1732449600000-0"`."""
        ms, seq = text.split(b"-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        """Write it as Redis does."""
        return f"{self.ms}-{self.seq}"


def latest_ms() -> int:
    """Return the largest entry id that can be a vote's, a day ahead of the clock, in milliseconds since the epoch.

    Redis takes ids from its clock; one that is further ahead was written by somebody else, and would be newer than all
    votes to come.
    """
    return int((time.time() + AHEAD_SECONDS) * 1000)


class Vote(NamedTuple):
    """A well-formed stream entry. `voter` has 16 bytes: a keyed hash, which no cookie can be read from."""

    poll: str
    voter: bytes
    choice: str
    entry: EntryId


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: entries not yet read, entries read but not yet counted, and the age of the oldest in seconds.

    `accepted`: entries ever added. `missing`: entries that were removed before a worker had read them.
    """

    lag: int
    pending: int
    oldest: float
    accepted: int
    missing: int = 0

    @property
    def waiting(self) -> int:
        """Votes that were accepted and are not counted yet."""
        return self.lag + self.pending


class Malformed(Exception):
    """A stream entry that can never become a vote; the message is the reason."""


class Register:
    """The polls that are known, and the check of a stream entry against them."""

    def __init__(self, polls: Iterable[Poll]) -> None:
        self.polls = tuple(polls)
        self._choices = {
            (poll.slug.encode(), option.key.encode()): (poll.slug, option.key)
            for poll in self.polls
            for option in poll.options
        }

    def read(self, entry: EntryId, fields: list[bytes]) -> Vote:
        """Read one entry, given as field names and values in turn.

        Raises:
            Malformed: the entry is no vote in any of the known polls.
        """
        names, values = fields[::2], fields[1::2]
        if names != _FIELDS:  # with more, as a traced vote has, or not written by vote
            given = dict(zip(names, values, strict=True))
            if missing := [name.decode() for name in _FIELDS if name not in given]:
                raise Malformed(f"missing field: {', '.join(missing)}")
            values = [given[name] for name in _FIELDS]
        poll, voter, choice = values
        if len(voter) != VOTER_BYTES:
            raise Malformed(f"voter has {len(voter)} bytes, expected {VOTER_BYTES}")
        known = self._choices.get((poll, choice))
        if known is None:
            is_known = any(candidate.slug.encode() == poll for candidate in self.polls)
            raise Malformed("choice is not an option of the poll" if is_known else "unknown poll")
        return Vote(known[0], voter, known[1], entry)


def latest(votes: Iterable[Vote]) -> list[Vote]:
    """Keep each voter's newest vote, sorted by poll and voter: the order in which all workers lock rows."""
    newest = {vote[:2]: vote for vote in sorted(votes, key=attrgetter("entry"))}
    return sorted(newest.values())
