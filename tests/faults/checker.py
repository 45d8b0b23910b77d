"""The seven promises, checked against a history and the database. Each violation is a sentence."""

import threading
from collections import defaultdict

import psycopg

from tests.faults.history import Attempt, History
from tests.faults.plant import Plant
from voting.broker.removals import REMOVED
from voting.polls import EntryId
from voting.vote.voter import Voters

TALLIES = """
    SELECT choice, votes, (SELECT count(*) FROM votes v WHERE v.poll = t.poll AND v.choice = t.choice)
    FROM tallies t WHERE votes <> (SELECT count(*) FROM votes v WHERE v.poll = t.poll AND v.choice = t.choice)
"""
VOTES = "SELECT voter, choice, entry_ms, entry_seq FROM votes WHERE poll = 'default'"
Row = tuple[str, EntryId]

POLL = b"default"


class Auditor(threading.Thread):
    """Looks again and again whether tallies and votes agree, each time in one snapshot (promise 3)."""

    def __init__(self, plant: Plant) -> None:
        super().__init__(daemon=True)
        self._plant = plant
        self._stop_now = threading.Event()
        self.looks = 0
        self.found: list[str] = []

    def run(self) -> None:
        """Until stopped; an outage of the database is not our subject."""
        while not self._stop_now.wait(0.3):
            try:
                self.found += check_tallies(self._plant)
                self.looks += 1
            except psycopg.Error:
                continue

    def stop(self) -> None:
        """Enough."""
        self._stop_now.set()
        self.join(10)


def check_tallies(plant: Plant) -> list[str]:
    """Promise 3."""
    return [
        f"3: the tally of {choice} is {tally}, its votes are {votes}" for choice, tally, votes in plant.rows(TALLIES)
    ]


def check(history: History, plant: Plant, *, attempts: int, dead_letters: int, slowest: float) -> list[str]:
    """All seven, when the fault is over and the stream is drained.

    Args:
        history: what voters did and were told.
        plant: whose database is looked at.
        attempts: fewer than that prove nothing.
        dead_letters: how many there must be.
        slowest: seconds that an answer may take.
    """
    accepted = history.count("ok")
    if accepted < attempts:
        return [f"0: the history has {accepted} accepted votes, and {attempts} are needed to prove anything"]
    violations = check_rows(history, plant) + check_tallies(plant)
    length, pending = plant.waiting()
    if length or pending:
        violations.append(f"5: {length} entries are left on the stream, {pending} of them pending")
    dead = plant.rows("SELECT count(*) FROM dead_letters")[0][0]
    if dead != dead_letters:
        violations.append(f"5: {dead} dead letters, not {dead_letters}")
    return violations + check_answers(history.attempts, slowest)


def check_removed(plant: Plant, removed: int) -> list[str]:
    """What belongs to promise 5: the alarm about entries that somebody else has removed is neither silent nor false."""
    with plant.broker() as broker:
        told = int(broker.get(REMOVED) or 0)
    return [f"5: {told} entries are said to be removed by somebody else, not {removed}"] if told != removed else []


def check_rows(history: History, plant: Plant) -> list[str]:
    """Promises 1, 2, 4 and, as far as rows show it, 7."""
    voters = Voters(plant.secret_key, (), https=False)
    rows: dict[bytes, Row] = {bytes(voter): (choice, EntryId(ms, seq)) for voter, choice, ms, seq in plant.rows(VOTES)}
    by_voter: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in history.attempts:
        by_voter[attempt.voter].append(attempt)
    violations = []
    for number in sorted(history.cookies.keys() | history.keys.keys()):
        cookie, key = history.cookies.get(number), history.keys.get(number)
        named = voters.recognise(cookie.encode()) if cookie else None
        derived = voters.derive(key.encode()) if key else None
        voter = named or derived
        if named and derived and named.pseudonym(POLL) != derived.pseudonym(POLL):
            violations.append(f"7: voter {number} got the cookie of another voter than its idempotency key's")
        row = rows.pop(voter.pseudonym(POLL), None) if voter else None
        violations += _check_voter(number, by_voter[number], row)
    return violations + [f"4: a row for {voter.hex()}, who never voted" for voter in rows]


def _check_voter(number: int, attempts: list[Attempt], row: Row | None) -> list[str]:
    last = max((n for n, attempt in enumerate(attempts) if attempt.outcome == "ok"), default=-1)
    receipt = EntryId.parse(attempts[last].receipt.encode()) if last >= 0 else EntryId(0, 0)
    if row is None:
        return [f"1: voter {number} was told {receipt} and has no row"] if last >= 0 else []
    if last >= 0 and row == (attempts[last].choice, receipt):
        return []
    later = [attempt for attempt in attempts[last + 1 :] if attempt.choice == row[0] and row[1] > receipt]
    if any(attempt.counted != "no" for attempt in later):
        return []
    if later:
        return [f"7: voter {number} has {row[0]} {row[1]}, and was told that it was not counted"]
    if last < 0:
        return [f"4: voter {number} has {row}, and never voted so"]
    earlier = [attempt.choice for attempt in attempts[:last] if attempt.outcome != "ok"]
    told = f"{attempts[last].choice} {receipt}"
    return [f"2: voter {number} has {row[0]} {row[1]}, was last told {told}; unclear before that: {earlier[-3:]}"]


def check_answers(attempts: list[Attempt], slowest: float) -> list[str]:
    """Promise 6 and, as far as answers show it, 7."""
    violations = []
    for attempt in attempts:
        if attempt.outcome != "unknown" and attempt.status not in {200, 503, 429}:
            violations.append(f"6: status {attempt.status}")
        if attempt.status == 503 and not attempt.retry_after:
            violations.append("6: 503 without Retry-After")
        if attempt.outcome == "refused" and attempt.counted not in {"no", "unknown"}:
            violations.append(f"7: a refusal with status {attempt.status} does not say whether the vote is counted")
        if attempt.counted == "unknown" and not (attempt.sent_cookie or attempt.got_cookie):
            violations.append("7: a new voter whose vote may be counted got no cookie")
        if attempt.ended - attempt.began > slowest:
            violations.append(f"6: an answer took {attempt.ended - attempt.began:.1f} s")
    return violations
