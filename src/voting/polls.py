"""Polls, choices, and the wire form of a vote on the stream.

A poll is checked where it is read: `Poll.of` and `Poll.from_json` raise `BadPoll` and nothing else. They accept more
than the database does of a new row, so that votes in polls from before its checks are counted.

A stream entry is a vote when it names a known poll, one of that poll's options, and a voter of 16 bytes.
Anything else is `Malformed`, which says why in a sentence; it never raises anything else, whatever the bytes.
"""

import hashlib
import json
import re
import time
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

DEFAULT_POLL = "default"
MAX_OPTIONS = 20
VOTER_BYTES = 16
AHEAD_SECONDS = 24 * 3600
MAX_SEQ = 2**62  # of an entry id, which the database holds as a bigint; Redis counts up from the last one
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEY = re.compile('[^"\\\\\x00-\x1f\x7f\ud800-\udfff]{1,64}')  # what an array literal quotes without an escape
MAX_LABEL = 200  # characters of a label or a question
# C0, DEL and C1; line and paragraph separators; embeddings, overrides and isolates (UAX 9, section 2); surrogates
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2064\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)


class BadPoll(ValueError):
    """What is said of a poll is no poll; the message says why."""


@dataclass(frozen=True, slots=True)
class Option:
    """One thing to vote for: `key` travels, `label` is shown.

    One that was left out before the poll had a vote is `retired`: it is not offered, and its key stays taken, so that a
    vote for it that was on its way is counted.
    """

    key: str
    label: str
    retired: bool = False


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

    @property
    def offered(self) -> tuple[Option, ...]:
        """The options that can be chosen."""
        return tuple(option for option in self.options if not option.retired)

    def options_json(self) -> str:
        """The options as the JSON list that the database holds."""
        marks = ({"retired": True} if option.retired else {} for option in self.options)
        pairs = zip(self.options, marks, strict=True)
        return json.dumps([{"key": option.key, "label": option.label, **mark} for option, mark in pairs])

    def to_json(self) -> str:
        """The form in which the worker publishes the poll: what can be chosen."""
        options = [{"key": option.key, "label": option.label} for option in self.offered]
        return json.dumps({"question": self.question, "options": options})

    @property
    def digest(self) -> str:
        """Eight characters that differ from poll to poll and change with the question, a key or a label."""
        return hashlib.sha256(f"{self.slug} {self.to_json()}".encode()).hexdigest()[:8]

    @classmethod
    def from_json(cls, slug: str, text: str | bytes) -> Self:
        """Read what `to_json` wrote.

        Raises:
            BadPoll: it is something else.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadPoll(f"no JSON: {error}") from None
        if not isinstance(data, dict):
            raise BadPoll("no JSON object")
        return cls.of(slug, data.get("question"), data.get("options"))

    @classmethod
    def of(cls, slug: str, question: object, options: object) -> Self:
        """Build a poll from the parts that the database holds.

        Raises:
            BadPoll: they cannot be counted or shown.
        """
        if not _SLUG.fullmatch(slug):
            raise BadPoll("the slug has other characters than a-z, 0-9 and -, or too many")
        if not isinstance(question, str):
            raise BadPoll("the question is no text")
        if not isinstance(options, list):
            raise BadPoll("options is no list")
        poll = cls(slug, readable(question), tuple(map(_option, options)))
        if not poll.offered:
            raise BadPoll("there is no option to choose")
        if len({option.key for option in poll.options}) < len(poll.options):
            raise BadPoll("two options have the same key")
        return poll


def _option(given: object) -> Option:
    if not isinstance(given, Mapping):
        raise BadPoll("an option is no object with key and label")
    key, label = given.get("key"), given.get("label")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise BadPoll('the key of an option is not 1 to 64 characters without " and \\')
    if not isinstance(label, str) or not (shown := readable(label)):
        raise BadPoll(f"the label of option {key} is no text")
    return Option(key, shown, given.get("retired") is True)


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


_FIELDS = [b"poll", b"voter", b"choice"]


def vote_fields(poll: bytes, voter: bytes, choice: bytes, traceparent: bytes = b"") -> list[bytes]:
    """Return the fields of a vote's stream entry, names and values in turn: what `VoteParser.read` reads."""
    trace = [b"traceparent", traceparent] if traceparent else []
    return [b"poll", poll, b"voter", voter, b"choice", choice, *trace]


class Malformed(Exception):
    """A stream entry that can never become a vote; the message is the reason."""


class VoteParser:
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


def clean(text: str) -> str:
    """Return a label or a question as it is kept: in NFC, and without white space around it.

    Raises:
        ValueError: it is empty, too long, or has characters that end a line, control a terminal or reorder text.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not fold(text) or len(text) > MAX_LABEL:
        raise ValueError(f"a label or question has 1 to {MAX_LABEL} visible characters, and this one has {len(text)}")
    if _FORBIDDEN.search(text):
        raise ValueError(f"{text!a} has control characters")
    return text


def readable(text: str) -> str:
    """Return the nearest text that can be shown: what is forbidden becomes a space, and what is too long is cut."""
    return unicodedata.normalize("NFC", _FORBIDDEN.sub(" ", text)).strip()[:MAX_LABEL].strip()


def fold(label: str) -> str:
    """Return what is equal for two labels that a reader takes for the same: NFKC, case folded, visible characters.

    https://www.unicode.org/versions/latest/core-spec/chapter-3/#G53513 (compatibility caseless match, D146)
    """
    folded = unicodedata.normalize("NFD", _INVISIBLE.sub("", label)).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
