"""A poll as the admin service reads and writes it: the domain's poll, with its schedule and its tallies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from psycopg.rows import dict_row

from voting.admin.identity import Identity
from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.poll import BadPoll, Poll
from voting.polls.slug import SLUG
from voting.web.language import translatable
from voting.web.problems import Problem


@dataclass(frozen=True, slots=True)
class StoredPoll:
    """One row of `polls`. Use the times here: a change does not update those in `poll`."""

    poll: Poll
    created: datetime
    timer: int | None = None  # seconds
    opens_at: datetime | None = None
    closes_at: datetime | None = None
    opened: datetime | None = None
    closed: datetime | None = None
    erase_days: int | None = None  # after which a final round keeps no pseudonyms; None: never
    tallies: Mapping[str, int] = field(default_factory=dict)  # choice -> votes, of this round
    sessions: tuple[str, ...] = ()  # the codes of those that it is in
    waiting: int = 0  # votes of all polls that are accepted and not counted yet
    final: datetime | None = None
    fingerprint: str | None = None  # of the record

    @property
    def has_votes(self) -> bool:
        return any(self.tallies.values())

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the poll of a row, or raise `BadPoll`."""
        poll = Poll.from_parts(row["slug"], row["question"], row["options"], row["more"])
        names = ("created", "timer", "opens_at", "closes_at", "opened", "closed", "erase_days")
        more = {name: row[name] for name in ("tallies", "waiting", "final", "fingerprint") if name in row}
        sessions = tuple(row.get("sessions", ()))
        return cls(poll, sessions=sessions, **{name: row[name] for name in names}, **more)

    def columns(self) -> dict[str, Any]:
        """Return the values of the columns that the admin service writes."""
        poll = self.poll
        meaning: dict[str, Any] = {"question": poll.question, "options": poll.options_json(), "kind": poll.kind}
        meaning |= {"max_choices": poll.max_choices, "scale": poll.scale}
        times = {"opens_at": self.opens_at, "closes_at": self.closes_at, "timer": self.timer}
        state = {
            "state": poll.state,
            "results": poll.results,
            "access": poll.access,
            "publish": poll.publish,
            "opened": self.opened,
            "closed": self.closed,
            "erase_days": self.erase_days,
        }
        return {"slug": poll.slug} | meaning | times | state


def unknown_poll() -> Problem:
    """Return the refusal of a slug that no poll has."""
    return Problem(404, "unknown_poll", translatable("There is no such poll."))


async def read_poll(connection: Connection, slug: str, *, lock: bool = False) -> StoredPoll:
    """Return a poll, or raise the 404. With `lock` no worker counts a vote of it until the transaction ends."""
    if not SLUG.fullmatch(slug):
        raise unknown_poll()
    if lock:
        await connection.execute(QUERIES["admin_lock_poll"], {"slug": slug})
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["admin_poll"], {"slug": slug})
        row = await cursor.fetchone()
    if row is None:
        raise unknown_poll()
    try:
        return StoredPoll.from_row(row)
    except BadPoll as error:
        message = translatable("The row of this poll in the database is not valid: {fault}")
        raise Problem(409, "bad_poll", message, fault=error) from None


async def require_poll(connection: Connection, who: Identity, slug: str) -> None:
    """Raise the 403 if a host asks for a poll that is not in the session, whether it exists or not."""
    if who.role == "host":
        found = SLUG.fullmatch(slug) and await connection.execute(
            QUERIES["admin_in_session"], {"slug": slug, "code": who.session}
        )
        if not found or not await found.fetchone():
            who.require_admin()


def changed_columns(before: StoredPoll, after: StoredPoll) -> dict[str, Any]:
    """Return the columns that differ, as the audit log has them."""
    old, new = before.columns(), after.columns()
    changes = {name: value for name, value in new.items() if value != old[name]}
    if "options" in changes:
        changes["options"] = json.loads(changes["options"])
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in changes.items()}
