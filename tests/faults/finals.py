"""Check promise 8: the final result of a round is exactly its accepted votes, and nothing changes it."""

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import httpx

from tests.faults.ballots import Ballot
from tests.faults.history import Attempt, History
from tests.faults.system import SystemUnderTest
from tests.waiting import PLAIN, eventually
from voting.operate.verify import count_ballots, faults
from voting.polls.closing import counts
from voting.polls.record import parse_record
from voting.polls.tracker import tracker, tracker_text
from voting.polls.vote import EntryId
from voting.vote.voter import Voters

UNFINISHED = "SELECT poll_box(poll, round) FROM closings WHERE final IS NULL"
FINALS = """
    WITH counted AS (SELECT poll, choice, count(*) AS n FROM votes GROUP BY poll, choice),
         listed AS (SELECT poll, choice, count(*) AS n FROM ballots GROUP BY poll, choice)
    SELECT box, cut_ms, cut_seq, final, record,
           (SELECT jsonb_object_agg(choice, votes) FROM tallies WHERE poll = box AND votes > 0),
           (SELECT jsonb_object_agg(choice, n) FROM counted WHERE poll = box),
           (SELECT jsonb_object_agg(choice, n) FROM listed WHERE poll = box),
           (SELECT count(*) FROM audit
            WHERE action = 'final' AND audit.poll = closings.poll AND (detail ->> 'round')::int = closings.round),
           (SELECT md5(string_agg(v::text, ' ' ORDER BY voter)) FROM votes AS v WHERE poll = box),
           (SELECT md5(string_agg(b::text, ' ' ORDER BY tracker, choice)) FROM ballots AS b WHERE poll = box)
    FROM closings, poll_box(closings.poll, closings.round) AS box WHERE final IS NOT NULL
"""
VOTES = "SELECT voter, choice, entry_ms, entry_seq FROM votes WHERE poll = '{box}'"
SHOWN = 3  # examples of one kind of violation


class Final(NamedTuple):
    """All that belongs to a final round. Votes and ballots are a hash of their rows."""

    cut: EntryId
    time: object
    record: str
    tallies: Mapping[str, int]
    voted: Mapping[str, int]
    listed: Mapping[str, int]
    announced: int  # rows of the audit log
    votes: str | None
    ballots: str | None


def read_finals(system: SystemUnderTest) -> dict[str, Final]:
    """Return the final rounds, by box."""
    return {
        box: Final(EntryId(ms, seq), time, record, tallies or {}, voted or {}, listed or {}, *more)
        for box, ms, seq, time, record, tallies, voted, listed, *more in system.rows(FINALS)
    }


def check_finals(system: SystemUnderTest, within: float) -> list[str]:
    """Check that each closed round is final, or soon will be, and that its record is what its votes add up to."""
    try:
        eventually(lambda: not system.rows(UNFINISHED), within=within)
    except AssertionError:
        boxes = [box for (box,) in system.rows(UNFINISHED)]
        return [f"8: {len(boxes)} rounds that are closed are not final after {within:g} s: {boxes[:SHOWN]}"]
    return [f"8: {box}: {fault}" for box, final in read_finals(system).items() for fault in _faults_of_final(final)]


def _faults_of_final(final: Final) -> Iterator[str]:
    record = parse_record(final.record)
    if not record.tally == final.tallies == final.voted:
        yield f"the record has {record.tally}, the tallies are {final.tallies}, the votes {final.voted}"
    if record.ballots is not None and record.tally != final.listed:
        yield f"the record has {record.tally}, the list of ballots {final.listed}"
    if final.announced != 1:
        yield f"the audit log has {final.announced} rows that say that it is final"


def check_changes(before: Mapping[str, Final], now: Mapping[str, Final]) -> list[str]:
    """Check that final rounds are what they were."""
    changed = [box for box, final in before.items() if now.get(box) != final]
    return [f"8: {box} was {before[box]} when it was final, and is {now.get(box)}" for box in changed]


def check_votes(history: History, system: SystemUnderTest, ballot: Ballot, since: float) -> list[str]:
    """Check that the votes of a final round are those that were accepted, and that none was refused.

    A vote without an answer may be counted, if it is not older than one that was accepted.

    Args:
        history: of the votes.
        system: that took them.
        ballot: of the round, in which each voter made no choice twice while it was open.
        since: when its first vote was sent.
    """
    cut = read_finals(system)[ballot.box].cut
    known = Voters(system.secret_key, (), https=False)
    attempts: dict[bytes, list[Attempt]] = defaultdict(list)
    for attempt in reversed(history.latest(since, ballot.box)):
        voter = known.recognise(history.cookies.get(attempt.voter, "").encode())
        if voter:
            attempts[voter.pseudonym(ballot.box.encode())].append(attempt)
    found = system.rows(VOTES.format(box=ballot.box))
    rows = {bytes(voter): (EntryId(ms, seq), choice) for voter, choice, ms, seq in found}
    faults: list[str] = [f"a vote has no attempt: {rows[each]}" for each in rows.keys() - attempts.keys()]
    for pseudonym, tried in attempts.items():
        faults += _faults_of_voter(tried, rows.get(pseudonym), cut)
    kinds = Counter(fault.partition(":")[0] for fault in faults)
    shown = [next(each for each in faults if each.startswith(kind)) + f" ({n} such)" for kind, n in kinds.items()]
    return [f"8: {ballot.box}, cut {cut}: {each}" for each in shown]


def _faults_of_voter(attempts: Sequence[Attempt], row: tuple[EntryId, str] | None, cut: EntryId) -> Iterator[str]:
    accepted = {EntryId.parse(each.receipt.encode()): each.choice for each in attempts if each.outcome == "ok"}
    if late := [entry for entry in accepted if not counts(entry, cut)]:
        yield f"a vote beyond the cut was accepted: {late[0]}"
    last = max(accepted, default=EntryId(0, 0))
    if row is None:
        if accepted:
            yield f"an accepted vote is not counted: {last} for {accepted[last]}"
        return
    entry, choice = row
    if not counts(entry, cut):
        yield f"a vote beyond the cut is counted: {entry} for {choice}"
    if entry < last:
        yield f"an older vote is counted: {entry} for {choice}, and the last accepted one is {last}"
    elif entry == last:
        if choice != accepted[last]:
            yield f"another choice is counted: {entry} for {choice}, and {accepted[last]} was accepted"
    elif not any(each.choice == choice and each.outcome != "ok" and each.counted != "no" for each in attempts):
        refused = any(each.choice == choice and each.counted == "no" for each in attempts)
        yield f"a vote that {'was refused' if refused else 'nobody sent'} is counted: {entry} for {choice}"


def check_published(system: SystemUnderTest, ballot: Ballot, key: str) -> list[str]:
    """Check that what the result service publishes of a final round is its votes, each under its tracker.

    `key` is that of the round's trackers, read while it was open.
    """
    url = f"{system.result_url}{ballot.path.decode()}"
    round_ = {"round": ballot.round}

    def read(name: str) -> bytes:
        answer = httpx.get(f"{url}/{name}", params=round_, timeout=5, verify=PLAIN)
        assert answer.status_code == 200, f"{name} is answered with {answer.status_code}: {answer.text[:200]}"
        return answer.content

    record, file = eventually(lambda: read("final.json"), within=15), eventually(lambda: read("ballots.csv"), within=15)
    found = faults(parse_record(record), count_ballots(io.BytesIO(file)))
    stored = read_finals(system)[ballot.box].record
    if record.decode() != stored:
        found.append(f"result publishes {record.decode()}, and the record is {stored}")
    lines = set(file.decode().split("\r\n"))
    for _, choice, ms, seq in system.rows(VOTES.format(box=ballot.box)):
        line = f"{tracker_text(tracker(key, EntryId(ms, seq)))},{choice}"
        if line not in lines:
            found.append(f"the list has not {line}")
    return [f"8: {ballot.box}: {each}" for each in found[:SHOWN]]
