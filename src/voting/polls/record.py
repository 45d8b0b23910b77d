"""The record of a final round: what was asked, what voters chose, and the hash of the published ballots.

A record is a JSON object. Its `fingerprint` is the SHA-256 of the object without it, as UTF-8 text with sorted keys and
without blanks, so a record can be compared by reading 64 characters. `tally` is how many voters made exactly each
choice; what pages show is computed from it.
"""

import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from voting.polls.json_object import parse_object
from voting.polls.poll import BadPoll, Poll
from voting.polls.tracker import tracker_text

HEADER = ("tracker", "choice")
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
    tally, ballots = data.get("tally"), data.get("ballots")
    try:
        poll = Poll.from_parts(data.get("poll"), data.get("question"), data.get("options"), _meaning(data))  # type: ignore[arg-type]
    except (BadPoll, TypeError) as error:
        raise BadRecord(f"its poll is not valid: {error}") from None
    if not isinstance(tally, dict) or not all(type(votes) is int and votes > 0 for votes in tally.values()):
        raise BadRecord("its tally is not an object with positive numbers")
    if type(data.get("total")) is not int or not isinstance(data.get("fingerprint"), str):
        raise BadRecord("it has no total or no fingerprint")
    if ballots is not None and not isinstance(ballots, str):
        raise BadRecord("its hash of the ballots is neither a string nor null")
    return Record(poll, tally, data["total"], ballots, data["fingerprint"], data)


def _meaning(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data.get(name) for name in ("kind", "round", "max_choices", "scale")} | {"state": "final"}


def _fingerprint(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def faults_of_record(record: Record) -> list[str]:
    """Return what is inconsistent in a record itself; none if its own parts agree."""
    faults = []
    unsigned = {name: value for name, value in record.data.items() if name != "fingerprint"}
    if not hmac.compare_digest(_fingerprint(unsigned), record.fingerprint):
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
    """What a list of ballots adds up to. Its lines are added one after another, so the list is never in memory.

    Attributes:
        ballots: their number.
        choices: choice -> ballots with it.
        doubled: their number, of those whose tracker was in the list before.
        first_doubled: the tracker of the first of them.
    """

    def __init__(self, header: bytes) -> None:
        if header.strip() != header_line().strip():
            raise BadBallots(f"its first line is not {','.join(HEADER)}")
        self._hash = hashlib.sha256(header)
        self._seen: set[bytes] = set()
        self.ballots = self.doubled = 0
        self.first_doubled = ""
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
            self.doubled += 1
            self.first_doubled = self.first_doubled or tracker.decode()
        self._seen.add(tracker)

    @property
    def sha256(self) -> str:
        """The hash of the lines so far, in hexadecimal."""
        return self._hash.hexdigest()


def faults_of_ballots(record: Record, count: BallotCount) -> list[str]:
    """Return how a list of ballots differs from a record; none if it is the list that was published."""
    faults = []
    if count.doubled:
        example = f"the first is {count.first_doubled}"
        faults.append(f"{count.doubled:,} ballots have a tracker that was in the list before; {example}")
    if bad := [choice for choice in count.choices if not record.poll.accepts(choice)]:
        faults.append(f"the list has a choice that the poll does not allow: {bad[0][:50]!a}")
    if count.ballots != record.total:
        faults.append(f"the list has {count.ballots:,} ballots, and the record {record.total:,}")
    faults += _differences(count.choices, record.tally)
    if record.ballots is None:
        faults.append("the record says that this poll publishes no ballots")
    elif not hmac.compare_digest(count.sha256, record.ballots):
        faults.append("the file is not the one that was published: its SHA-256 is not the one in the record")
    return faults


def _differences(counted: Mapping[str, int], tally: Mapping[str, int]) -> Iterable[str]:
    for choice in sorted({*counted, *tally}):
        if (found := counted.get(choice, 0)) != (published := tally.get(choice, 0)):
            yield f"choice {choice[:50]!a}: {found:,} ballots in the list, {published:,} in the record"
