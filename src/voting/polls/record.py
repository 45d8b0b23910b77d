"""The record of a final round: what was asked, what voters chose, and the hash of the published ballots.

A record is a JSON object. Its `fingerprint` is the SHA-256 of the object without it, as UTF-8 text with sorted keys and
without blanks, so a record can be compared by reading 64 characters. `tally` is how many voters made exactly each
choice; what pages show is computed from it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from voting.polls.json_object import parse_object
from voting.polls.poll import SCALES, BadPoll, Poll
from voting.polls.tracker import tracker_text

HEADER = ("tracker", "choice")
MAX_VOTERS = 10**12  # that a record may have
_SHA256 = re.compile("[0-9a-f]{64}")
_BALLOT = re.compile(rb'([0-9a-f]{4}(?:-[0-9a-f]{4}){3}),(?:"([^"\r\n]*)"|([^",\r\n]*))\r?\n?')


class BadRecord(ValueError):
    """The data is not a record; the message says why."""


class BadBallots(ValueError):
    """The data is not a list of ballots; the message says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record, parsed."""

    poll: Poll
    tally: Mapping[str, int]  # choice -> voters who made it
    total: int
    ballots: str | None  # the SHA-256 of the published list, in hexadecimal; None if the poll does not publish it
    fingerprint: str
    data: Mapping[str, Any]  # the whole object


def make_record(poll: Poll, tally: Mapping[str, int], ballots: str | None, **more: Any) -> str:
    """Return the JSON text of a record.

    Args:
        poll: the round that is final.
        tally: choice -> voters who made it; choices without voters are left out.
        ballots: the SHA-256 of the list of ballots, None if it is not published.
        more: further fields, such as the time.
    """
    options = [
        {"key": each.key, "label": each.label} for each in poll.options if not each.retired or tally.get(each.key)
    ]
    definition: dict[str, Any] = {"poll": poll.slug, "round": poll.round, "question": poll.question, "kind": poll.kind}
    definition |= {"options": options, "max_choices": poll.max_choices, "scale": poll.scale}
    counted = {choice: votes for choice, votes in sorted(tally.items()) if votes}
    data = definition | {"tally": counted, "total": sum(counted.values()), "ballots": ballots} | more
    return json.dumps(data | {"fingerprint": _fingerprint(data)}, ensure_ascii=False)


def parse_record(text: str | bytes) -> Record:
    """Return the record of a JSON text, or raise `BadRecord`; the fingerprint is not compared."""
    data = parse_object(text, BadRecord)
    tally, total, ballots, fingerprint = (data.get(name) for name in ("tally", "total", "ballots", "fingerprint"))
    try:
        _canonical(data).encode()
    except UnicodeEncodeError:  # JSON can have half of a surrogate pair
        raise BadRecord("it is not valid Unicode") from None
    try:
        poll = Poll.from_parts(data.get("poll"), data.get("question"), data.get("options"), _meaning(data))  # type: ignore[arg-type]
    except BadPoll as error:
        raise BadRecord(f"its poll is not valid: {error}") from None
    except TypeError:
        raise BadRecord("its poll is not valid: a value has a wrong type") from None
    keys = {option.key for option in poll.options}
    if poll.kind == "rating" and not keys <= set(map(str, SCALES[poll.scale or 5])):
        raise BadRecord("its options are not the numbers of its scale")
    if not isinstance(tally, dict) or not all(_is_number(votes) and votes for votes in tally.values()):
        raise BadRecord("its tally is not an object with positive numbers")
    if not _is_number(total):
        raise BadRecord("its total is not a number of voters")
    if not _is_sha256(fingerprint):
        raise BadRecord("its fingerprint is not a SHA-256")
    if ballots is not None and not _is_sha256(ballots):
        raise BadRecord("its hash of the ballots is neither a SHA-256 nor null")
    return Record(poll, tally, total, ballots, fingerprint, data)


def _is_number(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_VOTERS


def _is_sha256(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _meaning(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data.get(name) for name in ("kind", "round", "max_choices", "scale")} | {"state": "final"}


def _canonical(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _fingerprint(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(data).encode()).hexdigest()


def faults_of_record(record: Record) -> list[str]:
    """Return what is inconsistent in a record itself; none if its own parts agree."""
    faults = []
    unsigned = {name: value for name, value in record.data.items() if name != "fingerprint"}
    if _fingerprint(unsigned) != record.fingerprint:
        faults.append("the record was changed: its fingerprint is not that of its contents")
    if sum(record.tally.values()) != record.total:
        faults.append(
            f"the record's tally adds up to {sum(record.tally.values()):,}, and its total is {record.total:,}"
        )
    if bad := [choice for choice in record.tally if not record.poll.accepts(choice)]:
        faults.append(f"the record counts a choice that the poll does not allow: {bad[0]!a}")
    return faults


def ballot_line(tracker: bytes, choice: str) -> bytes:
    """Return the line of one ballot in the published list. A key has no quote, but can have a comma: see `Poll`."""
    field = f'"{choice}"' if "," in choice else choice
    return f"{tracker_text(tracker)},{field}\r\n".encode()


def header_line() -> bytes:
    """Return the first line of the list."""
    return ",".join(HEADER).encode() + b"\r\n"


class BallotCount:
    """What a list of ballots adds up to. Its lines are added one after another; only their trackers are kept.

    Attributes:
        ballots: their number.
        choices: choice -> ballots with it.
        duplicates: how many of them repeat a tracker.
        first_duplicate: the first tracker that is repeated.
    """

    def __init__(self, header: bytes) -> None:
        if header.strip() != header_line().strip():
            raise BadBallots(f"its first line is not {','.join(HEADER)}")
        self._hash = hashlib.sha256(header)
        self._seen: set[bytes] = set()
        self.ballots = self.duplicates = 0
        self.first_duplicate = ""
        self.choices: Counter[str] = Counter()

    def add(self, line: bytes) -> None:
        """Count the next line, or raise `BadBallots`."""
        found = _BALLOT.fullmatch(line)
        if found is None:
            raise BadBallots(f"line {self.ballots + 2} is not a tracker and a choice")
        tracker = found[1]
        self._hash.update(line)
        self.ballots += 1
        self.choices[(found[2] or found[3] or b"").decode(errors="replace")] += 1
        if tracker in self._seen:
            self.duplicates += 1
            self.first_duplicate = self.first_duplicate or tracker.decode()
        self._seen.add(tracker)

    @property
    def sha256(self) -> str:
        """The hash of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()


def faults_of_ballots(record: Record, count: BallotCount) -> list[str]:
    """Return how a list of ballots differs from a record; none if it is the list that was published."""
    faults = []
    if count.duplicates:
        faults.append(f"repeated trackers: {count.duplicates:,}; the first is {count.first_duplicate}")
    if bad := [choice for choice in count.choices if not record.poll.accepts(choice)]:
        faults.append(f"the list has a choice that the poll does not allow: {bad[0][:50]!a}")
    if count.ballots != record.total:
        faults.append(f"the list has {count.ballots:,} ballots, and the record {record.total:,}")
    faults += _differences(count.choices, record.tally)
    if record.ballots is None:
        faults.append("the record says that this poll publishes no ballots")
    elif count.sha256 != record.ballots:
        faults.append("the file is not the one that was published: its SHA-256 is not the one in the record")
    return faults


def _differences(counted: Mapping[str, int], tally: Mapping[str, int]) -> Iterable[str]:
    for choice in sorted({*counted, *tally}):
        if (found := counted.get(choice, 0)) != (published := tally.get(choice, 0)):
            yield f"choice {choice[:50]!a}: {found:,} ballots in the list, {published:,} in the record"
