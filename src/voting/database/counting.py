"""TODO voting.database.counting."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls import EntryId, Vote

MAX_FIELDS_TEXT = 1000  # characters of a dead letter's content that are kept


class DeadLetter(NamedTuple):
    """A stream entry that can never become a vote, and why."""

    entry: EntryId
    reason: str
    fields: list[bytes]


async def count(
    connection: Connection, votes: Sequence[Vote], dead: Sequence[DeadLetter], traceparent: str = ""
) -> int:
    """Count a batch, in one statement and so in one transaction; return how many votes changed a tally or a row.

    Args:
        connection: in autocommit mode.
        votes: at most one for each voter of a poll, sorted, as `ballot.latest` gives them. Votes that are not newer
            than the voter's own in the database change nothing, so a batch may be counted again and again.
        dead: entries to put aside for good, in the same transaction.
        traceparent: goes out with the notification, so that the snapshot which follows belongs to a trace.

    Inside an array literal slugs and keys are quoted, since one may be `null`, and need no escapes. Joining them costs
    a fraction of what psycopg's adaptation of lists does.
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
        "dead_fields": [_legible(letter.fields) for letter in dead],
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


def _legible(fields: list[bytes]) -> str:
    """The fields of an entry as text that PostgreSQL can hold, whatever the bytes were."""
    shown = [repr(part[:MAX_FIELDS_TEXT])[2:-1] for part in fields[:20]]
    return ", ".join(f"{name}={value}" for name, value in zip(shown[::2], shown[1::2], strict=False))[:MAX_FIELDS_TEXT]


async def newest_entry(connection: Connection, latest: int) -> EntryId:
    """Return the newest stream entry that was ever counted or put aside; 0-0 when there was none.

    Args:
        connection: in autocommit mode.
        latest: milliseconds since the epoch; an entry id above it is nobody's but a forger's, and is not looked at.
    """
    cursor = await connection.execute(QUERIES["newest_entry"], {"latest": latest})
    row = await cursor.fetchone()
    return EntryId(int(row[0]), int(row[1])) if row else EntryId(0, 0)
