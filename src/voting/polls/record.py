"""The record of a final round: what was asked, what voters chose, and the hash of the published ballots.

A record is a JSON object. Its `fingerprint` is the SHA-256 of the object without it, as UTF-8 text with sorted keys and
without blanks, so a record can be compared by reading 64 characters. `tally` is how many voters made exactly each
choice; what pages show is computed from it.
"""

import csv
import hashlib
import hmac
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from voting.polls.poll import BadPoll, Poll, parse_object
from voting.polls.tally import evaluate
from voting.polls.tracker import parse_tracker, tracker_text

HEADER = ("tracker", "choice")


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


def parse_ballots(data: bytes) -> list[tuple[bytes, str]]:
    """Return tracker and choice of each ballot in a list, or raise `BadBallots`."""
    try:
        rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadBallots(f"it is not CSV in UTF-8: {error}") from None
    if not rows or tuple(rows[0]) != HEADER:
        raise BadBallots(f"its first line is not {','.join(HEADER)}")
    ballots = []
    for number, row in enumerate(rows[1:], 2):
        tracker = parse_tracker(row[0]) if len(row) == len(HEADER) else None
        if tracker is None:
            raise BadBallots(f"line {number} is not a tracker and a choice")
        ballots.append((tracker, row[1]))
    return ballots


def faults_of_ballots(record: Record, data: bytes) -> list[str]:
    """Return how a list of ballots differs from a record; none if it is the list that was published."""
    ballots = parse_ballots(data)
    faults = []
    trackers = Counter(tracker for tracker, _ in ballots)
    if doubled := [tracker for tracker, times in trackers.items() if times > 1]:
        faults.append(f"{len(doubled):,} trackers are in the list more than once, such as {tracker_text(doubled[0])}")
    if bad := [each for each in ballots if not record.poll.accepts(each[1])]:
        tracker, choice = tracker_text(bad[0][0]), bad[0][1][:50]
        faults.append(f"{len(bad):,} ballots have a choice that the poll does not allow, such as {tracker}: {choice!a}")
    counted = Counter(choice for _, choice in ballots)
    if len(ballots) != record.total:
        faults.append(f"the list has {len(ballots):,} ballots, and the record {record.total:,}")
    faults += _differences(counted, record.tally)
    if record.ballots is None:
        faults.append("the record says that this poll publishes no ballots")
    elif not hmac.compare_digest(hashlib.sha256(data).hexdigest(), record.ballots):
        faults.append("the file is not the one that was published: its SHA-256 differs from that in the record")
    return faults


def _differences(counted: Mapping[str, int], tally: Mapping[str, int]) -> Iterable[str]:
    for choice in sorted({*counted, *tally}):
        if (found := counted.get(choice, 0)) != (published := tally.get(choice, 0)):
            yield f"choice {choice[:50]!a}: {found:,} ballots in the list, {published:,} in the record"


def result_of(record: Record) -> Any:
    """Return the result that follows from a record's tally."""
    return evaluate(record.poll, record.tally)
