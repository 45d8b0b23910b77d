"""`voting verify`: count published ballots again, and compare them with the record of the final result. Offline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from voting.polls.poll import Poll
from voting.polls.record import BallotCount, Record, faults_of_ballots, faults_of_record, parse_record
from voting.polls.tally import Evaluation, evaluate

MAX_RECORD = 64 * 2**20  # bytes; a ranking can have as many choices as voters
MAX_LINE = 1000  # bytes
REPORT_EVERY = 500_000  # ballots


def read_record(path: Path) -> Record:
    """Return the record in a file.

    Raises:
        OSError: the file cannot be read.
        BadRecord: it is not a record.
    """
    with path.open("rb") as file:
        return parse_record(file.read(MAX_RECORD))


def count_ballots(file: BinaryIO, on_progress: Callable[[int], None] = lambda _: None) -> BallotCount:
    """Count the ballots in a file.

    Args:
        file: the list as it was downloaded.
        on_progress: called after each `REPORT_EVERY` ballots with their number.

    Raises:
        BadBallots: the file is not a list of ballots.
    """
    count = BallotCount(file.readline(MAX_LINE))
    while line := file.readline(MAX_LINE):
        count.add(line)
        if not count.ballots % REPORT_EVERY:
            on_progress(count.ballots)
    return count


def faults(record: Record, count: BallotCount, fingerprint: str = "") -> list[str]:
    """Return everything in which record, ballots, and the fingerprint that was noted (if any) do not agree."""
    found = faults_of_record(record) + faults_of_ballots(record, count)
    noted = fingerprint.strip().lower()
    if not record.fingerprint.startswith(noted):
        found.append("this is not the record whose fingerprint you gave")
    return found


def describe(record: Record, count: BallotCount) -> str:
    """Return the result that follows from the ballots, as text."""
    poll = record.poll
    valid = {choice: votes for choice, votes in count.choices.items() if poll.accepts(choice)}
    result = evaluate(poll, valid)
    lines = [f"{poll.question} ({poll.kind}, round {poll.round})", f"{count.ballots:,} ballots"]
    lines += [f"  {label}: {number}" for label, number in _rows(poll, result)]
    if result.mean is not None:
        lines.append(f"  average: {result.mean:.2f}")
    if result.winner:
        label = next(option.label for option in poll.options if option.key == result.winner)
        lines.append(f"  winner of the run-off: {label}")
    return "\n".join(lines)


def _rows(poll: Poll, result: Evaluation) -> list[tuple[str, str]]:
    points = result.points
    return [
        (
            json.dumps(option.label, ensure_ascii=False),
            f"{result.votes[option.key]:,}"
            if points is None
            else f"{points.get(option.key, 0):,} points, the first choice of {result.votes[option.key]:,}",
        )
        for option in poll.options
    ]
