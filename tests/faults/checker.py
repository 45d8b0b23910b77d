"""Check promises 1 to 7 against a history and the database. Each violation is a sentence."""

import threading
from collections import defaultdict
from collections.abc import Container

import psycopg

from tests.faults.history import Attempt, History
from tests.faults.system import SystemUnderTest
from voting.broker.removals import REMOVED
from voting.polls.poll import DEFAULT_POLL
from voting.polls.vote import EntryId
from voting.vote.voter import Voter, Voters

TALLIES = """
    SELECT poll, choice, coalesce(tally.votes, 0), coalesce(counted.votes, 0)
    FROM tallies AS tally
    FULL JOIN (SELECT poll, choice, count(*) AS votes FROM votes GROUP BY poll, choice) AS counted USING (poll, choice)
    WHERE coalesce(tally.votes, 0) <> coalesce(counted.votes, 0)
"""
VOTES = "SELECT poll, voter, choice, entry_ms, entry_seq FROM votes"
Row = tuple[str, EntryId]


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
        f"3: the tally of {choice} in {box} is {tally}, its votes are {votes}"
        for box, choice, tally, votes in system.rows(TALLIES)
    ]


def check(
    history: History,
    system: SystemUnderTest,
    *,
    attempts: int,
    dead_letters: int,
    slowest: float,
    deleted: Container[str] = (),
) -> list[str]:
    """Check promises 1 to 7 when the fault is over and the stream is drained; return the violations.

    Args:
        history: of the votes.
        system: that took them.
        attempts: accepted votes that the history needs.
        dead_letters: expected number.
        slowest: seconds that an answer may take.
        deleted: slugs of polls that were deleted, whose votes are not checked.
    """
    accepted = history.count("ok")
    if accepted < attempts:
        return [f"0: the history has {accepted} accepted votes, and {attempts} are needed to prove anything"]
    violations = check_rows(history, system, deleted) + check_tallies(system)
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


def check_rows(history: History, system: SystemUnderTest, deleted: Container[str] = ()) -> list[str]:
    """Check promises 1, 2, 4 and, as far as rows show it, 7, in each round of each poll."""
    attempts: dict[tuple[int, str], list[Attempt]] = defaultdict(list)
    for attempt in history.attempts:
        if _slug(attempt.box) not in deleted:
            attempts[attempt.voter, attempt.box].append(attempt)
    polls = {_slug(box) for _, box in attempts}
    rows: dict[tuple[str, bytes], Row] = {
        (box, bytes(voter)): (choice, EntryId(ms, seq))
        for box, voter, choice, ms, seq in system.rows(VOTES)
        if _slug(box) in polls
    }
    known = Voters(system.secret_key, (), https=False)
    violations = []
    voters: dict[int, Voter] = {}
    for number in sorted(history.cookies.keys() | history.keys.keys()):
        cookie, key = history.cookies.get(number), history.keys.get(number)
        named = known.recognise(cookie.encode()) if cookie else None
        derived = known.derive(key.encode()) if key else None
        if named and derived and named.pseudonym(DEFAULT_POLL.encode()) != derived.pseudonym(DEFAULT_POLL.encode()):
            violations.append(f"7: voter {number} got the cookie of another voter than its idempotency key's")
        if voter := named or derived:
            voters[number] = voter
    for (number, box), tried in sorted(attempts.items()):
        row = rows.pop((box, voters[number].pseudonym(box.encode())), None) if number in voters else None
        violations += _check_voter(f"voter {number} in {box}", tried, row)
    return violations + [f"4: a row in {box} for {voter.hex()}, who never voted" for box, voter in rows]


def _slug(box: str) -> str:
    return box.partition("#")[0]


def _check_voter(who: str, attempts: list[Attempt], row: Row | None) -> list[str]:
    last = max((n for n, attempt in enumerate(attempts) if attempt.outcome == "ok"), default=-1)
    receipt = EntryId.parse(attempts[last].receipt.encode()) if last >= 0 else EntryId(0, 0)
    if row is None:
        return [f"1: {who} has the receipt {receipt} and no row"] if last >= 0 else []
    if last >= 0 and row == (attempts[last].choice, receipt):
        return []
    later = [attempt for attempt in attempts[last + 1 :] if attempt.choice == row[0] and row[1] > receipt]
    if any(attempt.counted != "no" for attempt in later):
        return []
    if later:
        return [f"7: {who} has {row[0]} {row[1]}, and the answer was that it is not counted"]
    if last < 0:
        return [f"4: {who} has {row}, and never voted so"]
    earlier = [attempt.choice for attempt in attempts[:last] if attempt.outcome != "ok"]
    last_receipt = f"{attempts[last].choice} {receipt}"
    return [f"2: {who} has {row[0]} {row[1]}, acknowledged was {last_receipt}; unclear before that: {earlier[-3:]}"]


def check_answers(attempts: list[Attempt], slowest: float) -> list[str]:
    """Check promise 6 and, as far as answers show it, 7."""
    violations = []
    for attempt in attempts:
        if attempt.outcome != "unknown" and attempt.status not in {200, 503, 429} and not _is_not_open(attempt):
            violations.append(f"6: status {attempt.status} {attempt.reason}")
        if attempt.status == 503 and not attempt.retry_after:
            violations.append("6: 503 without Retry-After")
        if attempt.outcome == "refused" and attempt.counted not in {"no", "unknown"}:
            violations.append(f"7: a refusal with status {attempt.status} does not say whether the vote is counted")
        if attempt.counted == "unknown" and not (attempt.sent_cookie or attempt.got_cookie):
            violations.append("7: a new voter whose vote may be counted got no cookie")
        if attempt.ended - attempt.began > slowest:
            violations.append(f"6: an answer took {attempt.ended - attempt.began:.1f} s")
    return violations


def _is_not_open(attempt: Attempt) -> bool:
    """Whether the vote was refused because a poll that rows open and close was not open."""
    return attempt.status == 409 and attempt.reason in {"not_open", "closed"} and attempt.box != DEFAULT_POLL
