"""What is shown of polls, sessions and the audit log, read in one transaction (`Database.read`).

The results are plain dictionaries with the fields of `outputs`, but for the addresses, which depend on the request.
"""

import asyncio
import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg.rows import dict_row

from voting.admin.identity import Identity
from voting.admin.problems import invalid
from voting.admin.sessions import read_session
from voting.admin.stored_poll import StoredPoll, read_poll, require_poll
from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.poll import BadPoll, Poll
from voting.polls.session import parse_code
from voting.polls.tally import evaluate, option_rows
from voting.web.language import translatable
from voting.web.problems import Problem

Fields = dict[str, Any]


async def numbers(poll: Poll, tallies: Mapping[str, int]) -> Fields:
    """Return the result of a round. A ranking can have as many choices as voters, so it is evaluated in a thread."""
    result = await asyncio.to_thread(evaluate, poll, tallies)
    runoff = None if result.runoff is None else [each._asdict() for each in result.runoff]
    more = {"mean": result.mean, "runoff": runoff, "winner": result.winner}
    return {"options": option_rows(poll, result), "total": result.total} | more


def _summary(stored: StoredPoll, total: int) -> Fields:
    poll = stored.poll
    shown = "slug question kind state round results access publish max_choices scale changed"
    times = ("opens_at", "closes_at", "timer", "opened", "closed", "created", "erase_days")
    fields = {name: getattr(poll, name) for name in shown.split()} | {name: getattr(stored, name) for name in times}
    return fields | {"total": total}


async def poll(connection: Connection, who: Identity, slug: str) -> Fields:
    """Return the fields of `PollOut`."""
    await require_poll(connection, who, slug)
    stored = await read_poll(connection, slug)
    result = await numbers(stored.poll, stored.tallies)
    rounds = await _rows(connection, "admin_rounds", slug=slug)
    shown = stored.sessions if who.role == "admin" else [who.session]
    more = {name: getattr(stored, name) for name in ("waiting", "final", "fingerprint")} | {"sessions": list(shown)}
    return _summary(stored, result["total"]) | result | more | {"rounds": rounds}


async def poll_list(
    connection: Connection, who: Identity, *, limit: int = 50, after: str | None = None
) -> tuple[list[Fields], str | None]:
    """Return the fields of `PollSummary` for some polls, newest first, and the cursor of the next page."""
    who.require_admin()
    rows = await _rows(connection, "admin_polls", limit=limit + 1, **_parse_cursor(after))
    return _summaries(rows[:limit]), _cursor(rows[limit - 1], "slug") if len(rows) > limit else None


async def open_polls(connection: Connection, who: Identity) -> list[Fields]:
    """Return the fields of `PollSummary` for the polls that are open, the last opened first, 20 at most."""
    who.require_admin()
    return _summaries(await _rows(connection, "admin_open_polls"))


async def some_polls(connection: Connection, slugs: Sequence[str]) -> list[Fields]:
    """Return the fields of `PollSummary` for these polls, in this order, without those that do not exist."""
    found = {poll["slug"]: poll for poll in _summaries(await _rows(connection, "admin_some_polls", slugs=[*slugs]))}
    return [found[slug] for slug in slugs if slug in found]


def _summaries(rows: Iterable[Mapping[str, Any]]) -> list[Fields]:
    found = []
    for row in rows:
        try:
            found.append(_summary(StoredPoll.from_row(row), row["total"]))
        except BadPoll:
            continue  # a row that somebody has written with SQL; `voting doctor` reports it
    return found


async def export(connection: Connection, who: Identity, slug: str, round_: int | None = None) -> Fields:
    """Return the fields of `Export` for a round, by default the current one."""
    await require_poll(connection, who, slug)
    stored = await read_poll(connection, slug)
    poll, tallies, opened, closed = stored.poll, stored.tallies, stored.opened, stored.closed
    end = {"final": stored.final, "fingerprint": stored.fingerprint}
    if round_ is not None and round_ != poll.round:
        rows = await _rows(connection, "admin_round", slug=slug, round=round_)
        if not rows:
            raise Problem(404, "unknown_round", translatable("This poll has no such round."))
        row = rows[0]
        end = {name: row[name] for name in end}
        state = "final" if row["final"] else "closed"
        more = {name: row[name] for name in ("kind", "max_choices", "scale")} | {"round": round_, "state": state}
        poll = Poll.from_parts(slug, row["question"], row["options"], more)
        tallies, opened, closed = row["tallies"], row["opened"], row["closed"]
    fields = {"poll": slug, "round": poll.round, "question": poll.question, "kind": poll.kind, "state": poll.state}
    choices = {choice: votes for choice, votes in sorted(tallies.items()) if votes}
    return fields | {"opened": opened, "closed": closed, "choices": choices} | end | await numbers(poll, tallies)


async def session(connection: Connection, who: Identity, code: str) -> Fields:
    """Return the fields of `SessionOut`."""
    who.require_session(parse_code(code) or "")
    return _session(await read_session(connection, code))


async def session_list(
    connection: Connection, who: Identity, *, limit: int = 50, after: str | None = None
) -> tuple[list[Fields], str | None]:
    """Return the fields of `SessionOut` for some sessions, newest first, and the cursor of the next page."""
    who.require_admin()
    rows = await _rows(connection, "admin_sessions", limit=limit + 1, **_parse_cursor(after))
    return [_session(row) for row in rows[:limit]], _cursor(rows[limit - 1], "code") if len(rows) > limit else None


def _session(row: Mapping[str, Any]) -> Fields:
    slugs, current = row["polls"], row["current"]
    return dict(row) | {"position": slugs.index(current) + 1 if current in slugs else None}


async def audit_list(
    connection: Connection, who: Identity, *, limit: int = 50, after: int | None = None
) -> tuple[list[Fields], int | None]:
    """Return the fields of `AuditEntry` for some changes, newest first, and the cursor of the next page."""
    who.require_admin()
    rows = await _rows(connection, "admin_audit", limit=limit + 1, after=after)
    return rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None


async def _rows(connection: Connection, query: str, **values: Any) -> list[Fields]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES[query], values)
        return await cursor.fetchall()


def _cursor(row: Mapping[str, Any], name: str) -> str:
    """Return a cursor that points behind a row, also if the row is deleted meanwhile."""
    text = f"{row['created'].astimezone(UTC).isoformat()} {row[name]}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _parse_cursor(cursor: str | None) -> Fields:
    if cursor is None:
        return {"created": None, "slug": None}
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        created, _, name = text.partition(" ")
        time: datetime | None = datetime.fromisoformat(created)
    except (ValueError, binascii.Error):
        time, name = None, ""
    if time is None or time.tzinfo != UTC or not name.isprintable():
        raise invalid("after", translatable("This is not a cursor that this service has given."))
    return {"created": time, "slug": name}
