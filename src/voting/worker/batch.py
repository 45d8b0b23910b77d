"""A batch: entries of the stream, parsed into votes and dead letters."""

import time
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from voting.broker.stream import Entry
from voting.database.counting import DeadLetter
from voting.polls.vote import MAX_SEQ, Vote, max_entry_ms
from voting.polls.vote_parser import Deleted, Late, Malformed, Undefined, VoteParser


class Batch(NamedTuple):
    """Stream entries and what they contain."""

    entries: list[Entry]
    parsed_ns: int  # when they were parsed, in nanoseconds since the epoch
    votes: list[Vote]  # the newest vote of each voter, in the order in which rows are locked
    dead: list[DeadLetter]
    vanished: int  # number of pending entries that other clients removed, a part of those in `removals`
    dropped: int  # number of votes for deleted polls
    late: int  # number of votes that were added after their round was sealed
    undefined: set[bytes]  # boxes of votes that are dead or dropped by the definitions that are known


def parse_entries(parser: VoteParser, entries: list[Entry]) -> Batch:
    """Parse stream entries into votes and dead letters."""
    parsed_ns = time.time_ns()
    limit = max_entry_ms()
    votes: list[Vote] = []
    dead: list[DeadLetter] = []
    vanished = dropped = late = 0
    undefined: set[bytes] = set()
    for entry, fields in entries:
        if not fields:
            vanished += 1
        elif entry.ms > limit or entry.seq > MAX_SEQ:  # it would be newer than all later votes, or too large to store
            dead.append(DeadLetter(entry, "the id is more than a day ahead, or too large", fields))
        else:
            try:
                votes.append(parser.read(entry, fields))
            except Late:
                late += 1
            except Malformed as malformed:
                if isinstance(malformed, Undefined):
                    undefined.add(malformed.box)
                if isinstance(malformed, Deleted):
                    dropped += 1
                else:
                    dead.append(DeadLetter(entry, str(malformed), fields))
    return Batch(entries, parsed_ns, newest_per_voter(votes), dead, vanished, dropped, late, undefined)


def newest_per_voter(votes: Iterable[Vote]) -> list[Vote]:
    """Return the newest vote of each voter, sorted by poll and voter: the order in which all workers lock rows."""
    newest = {vote[:2]: vote for vote in sorted(votes, key=attrgetter("entry"))}
    return sorted(newest.values())
