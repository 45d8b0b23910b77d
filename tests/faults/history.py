"""The history of all votes and their answers, against which the promises are checked."""

import itertools
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["ok", "refused", "unknown"]


@dataclass(frozen=True)
class Attempt:
    """One attempt to vote. Times are seconds of the monotonic clock; the outcome `unknown` means that no answer came.

    Args:
        counted: what a refusal says, "no" or "unknown".
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
        if not since:
            return self._totals[outcome]
        latest = itertools.takewhile(lambda attempt: attempt.ended >= since, reversed(self.attempts))
        return sum(attempt.outcome == outcome for attempt in latest)
