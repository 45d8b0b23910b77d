"""Counts votes and stores dead letters."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.vote import EntryId, Vote

MAX_FIELDS_TEXT = 1000  # characters of a dead letter's fields that are stored


class DeadLetter(NamedTuple):
    """A stream entry that can never become a vote, and why."""

    entry: EntryId
    reason: str
    fields: list[bytes]


async def count(
    connection: Connection, votes: Sequence[Vote], dead: Sequence[DeadLetter], traceparent: str = ""
) -> int:
    """Count a batch in one statement, and so in one transaction; return the number of rows in `votes` that changed.

    Args:
        connection: a connection in autocommit mode.
        votes: at most one for each voter of a poll, sorted as by `newest_per_voter`. A vote that is not newer than
            the stored one changes nothing, so a batch may be counted any number of times.
        dead: dead letters to store in the same transaction.
        traceparent: sent with the notification, so that the next snapshot belongs to the trace.

    Array literals are built as text, because psycopg's list adaptation is slower. Slugs and keys are quoted, because
    PostgreSQL reads an unquoted null as NULL; they contain no character that needs escaping.
    """
    parameters = {
        "polls": _quoted(vote.poll for vote in votes),
        "voters": _array(vote.voter.hex() for vote in votes),
        "choices": _quoted(vote.choice for vote in votes),
        "ms": _array(str(vote.entry.ms) for vote in votes),
        "seqs": _array(str(vote.entry.seq) for vote in votes),
        "dead_ms": [letter.entry.ms for letter in dead],
        "dead_seqs": [letter.entry.seq for letter in dead],
        "dead_reasons": [letter.reason for letter in dead],
        "dead_fields": [_printable(letter.fields) for letter in dead],
        "trace": f" {traceparent}" if traceparent else "",
    }
    cursor = await connection.execute(QUERIES["count"], parameters, prepare=True)
    row = await cursor.fetchone()
    return row[1] if row else 0


def _array(values: Iterable[str]) -> str:
    return "{" + ",".join(values) + "}"


def _quoted(values: Iterable[str]) -> str:
    joined = '","'.join(values)
    return f'{{"{joined}"}}' if joined else "{}"


def _printable(fields: list[bytes]) -> str:
    """Return the fields of an entry as text that PostgreSQL can store, whatever the bytes are."""
    parts = [repr(part[:MAX_FIELDS_TEXT])[2:-1] for part in fields[:20]]
    return ", ".join(f"{name}={value}" for name, value in zip(parts[::2], parts[1::2], strict=False))[:MAX_FIELDS_TEXT]


async def newest_entry(connection: Connection, max_ms: int) -> EntryId:
    """Return the newest id up to `max_ms` that was counted or became a dead letter; 0-0 if there is none."""
    cursor = await connection.execute(QUERIES["newest_entry"], {"max_ms": max_ms})
    row = await cursor.fetchone()
    return EntryId(int(row[0]), int(row[1])) if row else EntryId(0, 0)
