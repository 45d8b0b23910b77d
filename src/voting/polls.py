"""Polls, options, votes, and the fields of a vote's stream entry.

A poll is validated when it is read: `Poll.from_parts` and `Poll.from_json` raise only `BadPoll`. They accept more than
the database accepts in a new row, so that votes in polls older than its checks are counted.

A stream entry is a vote if it names a known poll, an option of that poll, and a voter of 16 bytes. For all other bytes,
`VoteParser.read` raises `Malformed`.
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
MAX_AHEAD_SECONDS = 24 * 3600
MAX_SEQ = 2**62  # largest sequence number of an entry id: the database stores it as a bigint, and Redis increments it
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_KEY = re.compile('[^"\\\\\x00-\x1f\x7f\ud800-\udfff]{1,64}')  # needs no escape in a quoted array literal
MAX_LABEL = 200  # characters of a label or a question
# C0, DEL and C1; line and paragraph separators; embeddings, overrides and isolates (UAX 9, section 2); surrogates
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u2064\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)


class BadPoll(ValueError):
    """The data is not a valid poll; the message says why."""


@dataclass(frozen=True, slots=True)
class Option:
    """One thing to vote for: votes contain the key, pages show the label.

    An option that was removed before the poll had a vote is `retired`: it is not offered, and its key is never used
    again. Votes for it that were already on the stream are counted.
    """

    key: str
    label: str
    retired: bool = False


@dataclass(frozen=True, slots=True)
class Poll:
    """A question with its options; the slug identifies it in URLs, on the stream and in the database."""

    slug: str
    question: str
    options: tuple[Option, ...]

    @property
    def path(self) -> str:
        """The path of the poll on both web services, without a trailing slash."""
        return "" if self.slug == DEFAULT_POLL else f"/p/{self.slug}"

    @property
    def offered(self) -> tuple[Option, ...]:
        return tuple(option for option in self.options if not option.retired)

    def options_json(self) -> str:
        """Return the options as the JSON list that the database stores."""
        retired = {True: {"retired": True}, False: {}}
        return json.dumps([{"key": each.key, "label": each.label} | retired[each.retired] for each in self.options])

    def to_json(self) -> str:
        """Return the JSON that the worker publishes: the question and the options offered."""
        options = [{"key": option.key, "label": option.label} for option in self.offered]
        return json.dumps({"question": self.question, "options": options})

    @property
    def digest(self) -> str:
        """Eight characters that identify this version of the poll: its slug, question, keys and labels."""
        return hashlib.sha256(f"{self.slug} {self.to_json()}".encode()).hexdigest()[:8]

    @classmethod
    def from_json(cls, slug: str, text: str | bytes) -> Self:
        """Parse the output of `to_json`, or raise `BadPoll`."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadPoll(f"not JSON: {error}") from None
        if not isinstance(data, dict):
            raise BadPoll("not a JSON object")
        return cls.from_parts(slug, data.get("question"), data.get("options"))

    @classmethod
    def from_parts(cls, slug: str, question: object, options: object) -> Self:
        """Return the poll of a row of `polls`, or raise `BadPoll` if it could not be shown or its votes not counted."""
        if not _SLUG.fullmatch(slug):
            raise BadPoll("the slug has other characters than a-z, 0-9 and -, or too many")
        if not isinstance(question, str):
            raise BadPoll("the question is not a string")
        if not isinstance(options, list):
            raise BadPoll("options is not a list")
        poll = cls(slug, displayable(question), tuple(map(_parse_option, options)))
        if not poll.offered:
            raise BadPoll("no option is offered")
        if len({option.key for option in poll.options}) < len(poll.options):
            raise BadPoll("two options have the same key")
        return poll


def _parse_option(data: object) -> Option:
    if not isinstance(data, Mapping):
        raise BadPoll("an option is not an object with key and label")
    key, label = data.get("key"), data.get("label")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise BadPoll('the key of an option is not 1 to 64 characters without " and \\')
    if not isinstance(label, str) or not (text := displayable(label)):
        raise BadPoll(f"the label of option {key} is not a string that can be shown")
    return Option(key, text, data.get("retired") is True)


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
    """The stream entry can never become a vote; the message is the reason."""


class VoteParser:
    """Parses stream entries and validates them against the known polls."""

    def __init__(self, polls: Iterable[Poll]) -> None:
        self.polls = tuple(polls)
        self._choices = {
            (poll.slug.encode(), option.key.encode()): (poll.slug, option.key)
            for poll in self.polls
            for option in poll.options
        }

    def read(self, entry: EntryId, fields: list[bytes]) -> Vote:
        """Return the vote of an entry with these fields, names and values in turn; or raise `Malformed`."""
        names, values = fields[::2], fields[1::2]
        if names != _FIELDS:  # a traced vote has more; entries of other clients may have any
            by_name = dict(zip(names, values, strict=True))
            if missing := [name.decode() for name in _FIELDS if name not in by_name]:
                raise Malformed(f"missing field: {', '.join(missing)}")
            values = [by_name[name] for name in _FIELDS]
        poll, voter, choice = values
        if len(voter) != VOTER_BYTES:
            raise Malformed(f"voter has {len(voter)} bytes, expected {VOTER_BYTES}")
        known = self._choices.get((poll, choice))
        if known is None:
            is_known = any(candidate.slug.encode() == poll for candidate in self.polls)
            raise Malformed("choice is not an option of the poll" if is_known else "unknown poll")
        return Vote(known[0], voter, known[1], entry)


def clean_label(text: str) -> str:
    """Return a label or a question in NFC, without surrounding white space.

    Raise ValueError if it is empty, too long, or has characters that end a line, control a terminal or reorder text.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not fold_label(text) or len(text) > MAX_LABEL:
        raise ValueError(f"a label or question has 1 to {MAX_LABEL} visible characters, and this one has {len(text)}")
    if _FORBIDDEN.search(text):
        raise ValueError(f"{text!a} has control characters")
    return text


def displayable(text: str) -> str:
    """Return a label or a question with spaces instead of forbidden characters, cut to `MAX_LABEL`."""
    return unicodedata.normalize("NFC", _FORBIDDEN.sub(" ", text)).strip()[:MAX_LABEL].strip()


def fold_label(label: str) -> str:
    """Return a form that is equal for labels that look the same: NFKC, case folded, without invisible characters.

    https://www.unicode.org/versions/latest/core-spec/chapter-3/#G53513 (compatibility caseless match, D146)
    """
    folded = unicodedata.normalize("NFD", _INVISIBLE.sub("", label)).casefold()
    folded = unicodedata.normalize("NFKD", folded).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())
