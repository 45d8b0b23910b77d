"""The tables and columns that a backup has."""

from collections.abc import Sequence

from psycopg import sql

# The columns of each table, which backup.json lists; others get their defaults, or are set by triggers.
COLUMNS = {
    "tracker_keys": ("poll", "round", "key"),  # before polls, for which a trigger makes the keys that are not there
    "polls": (
        *("slug", "question", "options", "revision", "entry_ms", "entry_seq", "created"),
        *("kind", "max_choices", "scale", "state", "round", "results", "access", "opens_at", "closes_at"),
        *("timer", "opened", "closed", "ticket", "publish", "erase_days"),
    ),
    "rounds": ("poll", "round", "question", "options", "kind", "max_choices", "scale", "opened", "closed"),
    "votes": ("poll", "voter", "choice", "entry_ms", "entry_seq"),
    "tallies": ("poll", "choice", "votes"),
    "dead_letters": ("entry_ms", "entry_seq", "reason", "fields", "arrived"),
    # After tallies, which cannot be inserted in a final round.
    "closings": (
        *("poll", "round", "closed", "publish", "erase_days", "cut_ms", "cut_seq", "final", "record"),
        "erased",
    ),
    "ballots": ("poll", "tracker", "choice"),
    "sessions": ("code", "title", "polls", "current", "host_hash", "created", "keep_days", "kept_from"),
    "code_lists": ("owner", "key", "issued", "changes", "created"),
    "deletions": ("kind", "name", "rounds", "changed", "entry_ms", "entry_seq", "deleted"),
    "audit": ("id", "at", "actor", "action", "poll", "session", "detail", "hash"),
}
# Those of a file that does not list them: before the migration 0005_admin.sql.
FIRST_COLUMNS = {"polls": COLUMNS["polls"][:7]} | {name: COLUMNS[name] for name in ("votes", "tallies", "dead_letters")}
CLEARED = ("webhook_events",)  # a restore also deletes these: they announce changes of the polls that it replaces


def copy_statement(form: str, table: str, columns: Sequence[str]) -> sql.Composed:
    """Return a COPY statement; `form` has fields for the table and its columns."""
    return sql.SQL(form).format(sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns)))
