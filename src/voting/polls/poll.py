"""Polls and their options.

A poll is validated when it is read: `Poll.from_parts` and `Poll.from_json` raise only `BadPoll`. They accept more than
the database accepts in a new row, so that votes in polls older than its checks are counted.

A poll can have several rounds, one after the other. The votes of round n are stored and counted under the poll's `box`:
its slug in the first round, `slug#n` in a later one. So a vote always belongs to the round in which it was accepted.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from voting.polls.codes import BadCodeList, CodeList
from voting.polls.json_object import parse_object
from voting.polls.labels import displayable
from voting.polls.slug import SLUG, box
from voting.polls.state import STATES, State

DEFAULT_POLL = "default"
MAX_OPTIONS = 20
SCALES = {5: range(1, 6), 10: range(11)}  # the scale of a rating -> its numbers
Kind = Literal["single", "multiple", "rating", "ranking"]
Results = Literal["live", "after_vote", "after_close", "hidden"]
Access = Literal["open", "browser", "code"]
_KEY = re.compile('[^"\\\\\x00-\x1f\x7f\ud800-\udfff]{1,64}')  # needs no escape in a quoted array literal


class BadPoll(ValueError):
    """The data is not a valid poll; the message says why."""


class BadChoice(ValueError):
    """The keys are not a choice that the poll allows: none, an unknown one, one twice, or too many."""

    def __init__(self, message: str, reason: Literal["none", "unknown", "twice", "many"]) -> None:
        super().__init__(message)
        self.reason = reason


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
    """A question with its options; the slug identifies it in URLs, on the stream and in the database.

    Times are in seconds since the epoch. `ticket` is a secret that the vote service gives to those who have voted, and
    that the result service asks for where the result is visible `after_vote`. `tracker_key`, which only workers and the
    vote service know, is the secret of trackers in this round. `codes`, which admin knows too, are the voting codes of
    a poll with the access `code`. `changed` grows with each change of a poll's definition or state, in all polls
    together.
    """

    slug: str
    question: str
    options: tuple[Option, ...]
    kind: Kind = "single"
    max_choices: int | None = None  # of `multiple`; None means as many as there are options
    scale: int | None = None  # of `rating`, a key of `SCALES`
    state: State = "open"
    round: int = 1
    results: Results = "live"
    access: Access = "open"  # browser: only those that have loaded the ballot may vote; code: only with a voting code
    opens_at: float | None = None
    closes_at: float | None = None
    ticket: str = ""
    publish: bool = False  # the ballots, when the round is final
    tracker_key: str = ""
    codes: CodeList | None = None
    changed: int = 0

    @property
    def path(self) -> str:
        """The path of the poll on both web services, without a trailing slash."""
        return "" if self.slug == DEFAULT_POLL else f"/p/{self.slug}"

    @property
    def box(self) -> str:
        """The name under which the votes of this round are stored: `poll` on the stream, in `votes` and `tallies`."""
        return box(self.slug, self.round)

    @property
    def offered(self) -> tuple[Option, ...]:
        return tuple(option for option in self.options if not option.retired)

    @property
    def limit(self) -> int:
        """How many options one vote can name."""
        if self.kind == "multiple":
            return min(self.max_choices or MAX_OPTIONS, len(self.offered))
        return len(self.offered) if self.kind == "ranking" else 1

    def options_json(self) -> str:
        """Return the options as the JSON list that the database stores."""
        retired = {True: {"retired": True}, False: {}}
        return json.dumps([{"key": each.key, "label": each.label} | retired[each.retired] for each in self.options])

    def _definition(self) -> dict[str, Any]:
        """Return what a vote means: the question and the options offered, and what differs from a new single poll."""
        options = [{"key": option.key, "label": option.label} for option in self.offered]
        more = {"kind": self.kind, "max_choices": self.max_choices, "scale": self.scale, "round": self.round}
        usual = {"kind": "single", "max_choices": None, "scale": None, "round": 1}
        unusual = {name: value for name, value in more.items() if value != usual[name]}
        return {"question": self.question, "options": options} | unusual

    def to_json(self) -> str:
        """Return the JSON that the worker publishes."""
        state = {
            "state": self.state,
            "results": self.results,
            "access": self.access,
            "ticket": self.ticket,
            "publish": self.publish,
            "tracker_key": self.tracker_key,
            "codes": self.codes.to_dict() if self.codes else None,
            "changed": self.changed,
        }
        times = {"opens_at": self.opens_at, "closes_at": self.closes_at}
        return json.dumps(self._definition() | state | times)

    @property
    def digest(self) -> str:
        """Eight characters that identify what a vote means here: slug, round, question, kind, keys and labels."""
        return hashlib.sha256(f"{self.slug} {json.dumps(self._definition())}".encode()).hexdigest()[:8]

    def parse_choice(self, values: list[str], *, retired: bool = False) -> str:
        """Return the choice that some values of the form field `vote` make, as it is stored; or raise `BadChoice`.

        A choice is a key. Where several options can be named it is their keys joined: in the order of the options for
        `multiple`, in that of preference for `ranking`.

        Args:
            values: in order; empty ones count as not given.
            retired: accept options that are not offered any more.
        """
        keys = [option.key for option in (self.options if retired else self.offered)]
        named = [value for value in values if value]
        if self.kind in {"multiple", "ranking"}:
            named = list("".join(named))
        if not named:
            raise BadChoice("it names no option", "none")
        if unknown := set(named) - set(keys):
            raise BadChoice(f"it names an option that the poll does not have: {min(unknown)[:20]!a}", "unknown")
        if len(set(named)) < len(named):
            raise BadChoice("it names an option twice", "twice")
        if not retired and len(named) > self.limit:
            raise BadChoice(f"it names {len(named)} options, and at most {self.limit} can be chosen", "many")
        return "".join(sorted(named, key=keys.index) if self.kind == "multiple" else named)

    def accepts(self, choice: str) -> bool:
        """Whether a stored choice is one of this round, of retired options too."""
        try:
            return self.parse_choice([choice], retired=True) == choice
        except BadChoice:
            return False

    @classmethod
    def from_json(cls, slug: str, text: str | bytes) -> Self:
        """Parse the output of `to_json`, or raise `BadPoll`."""
        data = parse_object(text, BadPoll)
        return cls.from_parts(slug, data.pop("question", None), data.pop("options", None), data)

    @classmethod
    def from_parts(cls, slug: str, question: object, options: object, more: Mapping[str, Any] | None = None) -> Self:
        """Return the poll of a row of `polls`, or raise `BadPoll` if it could not be shown or its votes not counted.

        Args:
            slug: identifies the poll.
            question: the question.
            options: a list of objects with key and label.
            more: other fields of `Poll`; names that it does not have are ignored.
        """
        if not SLUG.fullmatch(slug):
            raise BadPoll("the slug has other characters than a-z, 0-9 and -, or too many")
        if not isinstance(question, str):
            raise BadPoll("the question is not a string")
        if not isinstance(options, list):
            raise BadPoll("options is not a list")
        poll = cls(slug, displayable(question), tuple(map(_parse_option, options)), **_parse_more(more or {}))
        if not poll.offered:
            raise BadPoll("no option is offered")
        if len({option.key for option in poll.options}) < len(poll.options):
            raise BadPoll("two options have the same key")
        if poll.kind in {"multiple", "ranking"} and any(len(option.key) > 1 for option in poll.options):
            raise BadPoll(f"a key has more than one character, which a {poll.kind} poll cannot have")
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


_CHOICES: dict[str, tuple[Any, ...]] = {
    "kind": get_args(Kind),
    "state": STATES,
    "results": get_args(Results),
    "access": get_args(Access),
    "scale": (None, *SCALES),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "max_choices": (int, type(None)),
    "round": (int,),
    "opens_at": (int, float, type(None)),
    "closes_at": (int, float, type(None)),
    "ticket": (str,),
    "publish": (bool,),
    "tracker_key": (str,),
    "changed": (int,),
}


def _parse_more(more: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: more[name] for name in (*_CHOICES, *_TYPES) if name in more}
    for name, value in found.items():
        if not (value in _CHOICES[name] if name in _CHOICES else isinstance(value, _TYPES[name])):
            raise BadPoll(f"{name} is not valid: {str(value)[:50]!a}")
    if more.get("codes") is not None:
        try:
            found["codes"] = CodeList.from_dict(more["codes"])
        except BadCodeList as error:
            raise BadPoll(f"its code list is not valid: {error}") from None
    return found
