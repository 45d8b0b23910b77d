"""The history of all votes and their answers, against which the promises are checked."""

import itertools
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from voting.polls.poll import DEFAULT_POLL

Outcome = Literal["ok", "refused", "unknown"]


@dataclass(frozen=True)
class Attempt:
    """One attempt to vote. Times are seconds of the monotonic clock; the outcome `unknown` means that no answer came.

    Args:
        box: of the round of the poll, see polls/poll.py.
        counted, reason: what a refusal says: "no" or "unknown", and why.
        sent_cookie: whether the voter had a cookie.
        got_cookie: whether the answer had one.
    """

    voter: int
    choice: str
    began: float
    ended: float
    outcome: Outcome
    status: int = 0
    receipt: str = ""
    retry_after: str = ""
    counted: str = ""
    sent_cookie: bool = True
    got_cookie: bool = False
    box: str = DEFAULT_POLL
    reason: str = ""


class History:
    """All attempts in the order in which they ended, also written to a file, a line of JSON each."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.attempts: list[Attempt] = []
        self.cookies: dict[int, str] = {}
        self.keys: dict[int, str] = {}  # idempotency keys of those who voted without a cookie
        self._totals: Counter[Outcome] = Counter()
        self._writer = file.open("w")

    def add(self, attempt: Attempt) -> None:
        """Add an attempt."""
        self.attempts.append(attempt)
        self._totals[attempt.outcome] += 1
        self._writer.write(json.dumps(asdict(attempt)) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def count(self, outcome: Outcome, since: float = 0) -> int:
        """Return how many attempts with this outcome ended since a moment."""
        return sum(each.outcome == outcome for each in self.latest(since)) if since else self._totals[outcome]

    def latest(self, since: float, box: str = "") -> list[Attempt]:
        """Return the attempts that ended since a moment, the latest first; with `box`, only those in one round."""
        latest = itertools.takewhile(lambda attempt: attempt.ended >= since, reversed(self.attempts))
        return [attempt for attempt in latest if box in {"", attempt.box}]
