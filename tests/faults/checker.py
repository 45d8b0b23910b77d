"""Check the seven promises against a history and the database. Each violation is a sentence."""

import threading
from collections import defaultdict

import psycopg

from tests.faults.history import Attempt, History
from tests.faults.system import SystemUnderTest
from voting.broker.removals import REMOVED
from voting.polls.vote import EntryId
from voting.vote.voter import Voters

TALLIES = """
    SELECT choice, votes, (SELECT count(*) FROM votes v WHERE v.poll = t.poll AND v.choice = t.choice)
    FROM tallies t WHERE votes <> (SELECT count(*) FROM votes v WHERE v.poll = t.poll AND v.choice = t.choice)
"""
VOTES = "SELECT voter, choice, entry_ms, entry_seq FROM votes WHERE poll = 'default'"
Row = tuple[str, EntryId]

POLL = b"default"


class Auditor(threading.Thread):
    """Checks repeatedly that tallies and votes agree, each time in one snapshot (promise 3)."""

    def __init__(self, system: SystemUnderTest) -> None:
        super().__init__(daemon=True)
        self._system = system
        self._stop_now = threading.Event()
        self.checks = 0
        self.violations: list[str] = []

    def run(self) -> None:
        """Check until stopped; skip a check when the database is away."""
        while not self._stop_now.wait(0.3):
            try:
                self.violations += check_tallies(self._system)
                self.checks += 1
            except psycopg.Error:
                continue

    def stop(self) -> None:
        """Stop, and wait for the last check."""
        self._stop_now.set()
        self.join(10)


def check_tallies(system: SystemUnderTest) -> list[str]:
    """Check promise 3."""
    return [
        f"3: the tally of {choice} is {tally}, its votes are {votes}" for choice, tally, votes in system.rows(TALLIES)
    ]


def check(history: History, system: SystemUnderTest, *, attempts: int, dead_letters: int, slowest: float) -> list[str]:
    """Check all seven promises when the fault is over and the stream is drained; return the violations.

    Args:
        history: of the votes.
        system: that took them.
        attempts: accepted votes that the history needs.
        dead_letters: expected number.
        slowest: seconds that an answer may take.
    """
    accepted = history.count("ok")
    if accepted < attempts:
        return [f"0: the history has {accepted} accepted votes, and {attempts} are needed to prove anything"]
    violations = check_rows(history, system) + check_tallies(system)
    length, pending = system.backlog()
    if length or pending:
        violations.append(f"5: {length} entries are left on the stream, {pending} of them pending")
    dead = system.rows("SELECT count(*) FROM dead_letters")[0][0]
    if dead != dead_letters:
        violations.append(f"5: {dead} dead letters, not {dead_letters}")
    return violations + check_answers(history.attempts, slowest)


def check_removed(system: SystemUnderTest, removed: int) -> list[str]:
    """Check for promise 5 that workers reported exactly the entries that others removed."""
    with system.broker() as broker:
        reported = int(broker.get(REMOVED) or 0)
    return [f"5: {reported} entries reported as removed, not {removed}"] if reported != removed else []


def check_rows(history: History, system: SystemUnderTest) -> list[str]:
    """Check promises 1, 2, 4 and, as far as rows show it, 7."""
    voters = Voters(system.secret_key, (), https=False)
    rows: dict[bytes, Row] = {bytes(voter): (choice, EntryId(ms, seq)) for voter, choice, ms, seq in system.rows(VOTES)}
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
        return [f"1: voter {number} has the receipt {receipt} and no row"] if last >= 0 else []
    if last >= 0 and row == (attempts[last].choice, receipt):
        return []
    later = [attempt for attempt in attempts[last + 1 :] if attempt.choice == row[0] and row[1] > receipt]
    if any(attempt.counted != "no" for attempt in later):
        return []
    if later:
        return [f"7: voter {number} has {row[0]} {row[1]}, and the answer was that it is not counted"]
    if last < 0:
        return [f"4: voter {number} has {row}, and never voted so"]
    earlier = [attempt.choice for attempt in attempts[:last] if attempt.outcome != "ok"]
    last_receipt = f"{attempts[last].choice} {receipt}"
    return [
        f"2: voter {number} has {row[0]} {row[1]}, acknowledged was {last_receipt}; unclear before that: {earlier[-3:]}"
    ]


def check_answers(attempts: list[Attempt], slowest: float) -> list[str]:
    """Check promise 6 and, as far as answers show it, 7."""
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
