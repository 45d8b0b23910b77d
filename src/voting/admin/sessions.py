"""Operations on sessions: make, change, step on, replace the host link, delete, also after the days that it is kept.

Like those on polls, each works in the transaction that it is given and raises `Problem` if it is refused.
"""

from collections.abc import Mapping
from typing import Any

from psycopg.rows import dict_row

from voting.admin import polls
from voting.admin.change import Change
from voting.admin.checks import utc_now
from voting.admin.code_lists import Owner, read_list, require_closed, require_one_list
from voting.admin.identity import new_token, token_hash
from voting.admin.inputs import NewSession, SessionChange
from voting.admin.problems import invalid
from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.poll import DEFAULT_POLL
from voting.polls.session import new_code, parse_code
from voting.web.language import translatable
from voting.web.problems import Problem

Row = Mapping[str, Any]


def unknown_session() -> Problem:
    """Return the refusal of a code that no session has."""
    return Problem(404, "unknown_session", translatable("There is no such session."))


async def read_session(connection: Connection, code: str) -> Row:
    """Return the row of a session with the number of people here, or raise the 404."""
    parsed = parse_code(code)
    if parsed is None:
        raise unknown_session()
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["admin_session"], {"code": parsed})
        row = await cursor.fetchone()
    if row is None:
        raise unknown_session()
    return row


async def create(change: Change, new: NewSession, code: str | None = None) -> tuple[str, str]:
    """Make a session; return its join code and the secret of its host link, which is stored only as a hash.

    Args:
        change: the transaction.
        new: the session.
        code: the join code, if it is not taken.
    """
    change.who.require_admin()
    await polls.require_polls(change, new.polls, "polls")
    code = code or new_code()
    while await polls.is_taken(change, code):
        code = new_code()
    token = new_token()
    row = {"code": code, "title": new.title, "polls": new.polls, "host_hash": token_hash(token)}
    await change.execute("admin_insert_session", **row, keep_days=new.keep_days)
    await change.record("create_session", session=code, title=new.title)
    return code, token


async def edit(change: Change, code: str, wanted: SessionChange) -> None:
    """Change the title, the list of polls, or the current poll of a session; a host may change only the last."""
    before = await _read(change, code)
    values = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    values = {name: value for name, value in values.items() if value is not None or name in {"current", "keep_days"}}
    if values.keys() - {"current"}:
        change.who.require_admin()
    if "polls" in values:
        await polls.require_polls(change, values["polls"], "polls")
        await _check_codes(change, before, values["polls"])
    after = {name: before[name] for name in ("code", "title", "polls", "current", "keep_days")} | values
    if after["current"] is not None and after["current"] not in after["polls"]:
        if "current" in values:
            raise invalid("current", translatable("This poll is not in the list of the session."))
        after["current"] = None
    await _update(change, before, after, "edit_session")


async def step_on(change: Change, code: str) -> None:
    """Close the current poll if it is open, and make the next one in the list the current one."""
    before = await _read(change, code)
    slugs, current = before["polls"], before["current"]
    position = slugs.index(current) + 1 if current in slugs else 0
    if position >= len(slugs):
        raise Problem(409, "last_poll", translatable("This was the last poll of the session."))
    await show(change, code, slugs[position])


async def show(change: Change, code: str, slug: str) -> None:
    """Close the current poll if it is open and another one, and make this one of the list the current one."""
    before = await _read(change, code)
    if slug not in before["polls"]:
        raise invalid("current", translatable("This poll is not in the list of the session."))
    if before["current"] not in {None, slug}:
        await polls.close(change, before["current"])
    after = {name: before[name] for name in ("code", "title", "polls")} | {"current": slug}
    await _update(change, before, after, "next")


async def replace_host_link(change: Change, code: str) -> str:
    """Return the secret of a new host link; the one before is not valid any more."""
    change.who.require_admin()
    row = await _read(change, code)
    token = new_token()
    await change.execute("admin_replace_host", code=row["code"], host_hash=token_hash(token))
    await change.record("replace_host_link", session=row["code"])
    return token


async def delete(change: Change, code: str) -> None:
    """Delete a session with its voting codes; its polls stay."""
    change.who.require_admin()
    row = await _read(change, code)
    await _check_codes(change, row, [])
    await change.execute("admin_delete_session", code=row["code"])
    await change.record("delete_session", session=row["code"])


async def delete_ended(change: Change, code: str) -> None:
    """Delete a session whose days are over with its polls, except the default poll and those of other sessions."""
    try:
        row = await read_session(change.connection, code)
    except Problem:
        return  # it was deleted
    if row["deletes_at"] is None or row["deletes_at"] > utc_now():
        return  # it was changed, or one of its polls was opened
    wanted = {"polls": row["polls"], "code": row["code"]}
    cursor = await change.connection.execute(QUERIES["admin_polls_of_session"], wanted)
    for (slug,) in await cursor.fetchall():
        if slug != DEFAULT_POLL:
            await polls.remove(change, slug, session=row["code"])
    await change.execute("admin_delete_session", code=row["code"])
    await change.record("delete_session", session=row["code"], title=row["title"], keep_days=row["keep_days"])


async def _read(change: Change, code: str) -> Row:
    change.who.require_session(parse_code(code) or "")
    return await read_session(change.connection, code)


async def _check_codes(change: Change, before: Row, slugs: list[str]) -> None:
    """Raise the 409 if a new list of polls does not agree with the voting codes of the session."""
    if await read_list(change.connection, Owner(session=before["code"])):
        await require_one_list(change.connection, before["code"], slugs)
        await require_closed(change.connection, set(before["polls"]) - set(slugs))


async def _update(change: Change, before: Row, after: Row, action: str) -> None:
    changes = {name: value for name, value in after.items() if value != before[name]}
    if changes:
        await change.execute("admin_update_session", **after)
        if "keep_days" in changes:
            await change.execute("admin_keep_session", code=before["code"], keep_days=after["keep_days"])
        await change.record(action, session=before["code"], **changes)
