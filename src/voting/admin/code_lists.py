"""The lists of voting codes as the admin service reads them, and the rule which list a poll uses.

A poll in a session that has a list uses that one, else its own. So that this is one list, a poll with a list of its own
is in no session with a list, and a poll is in one such session at most. The operations are in `codes`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row
from starlette.requests import Request

from voting.database.connection import Connection
from voting.database.queries import QUERIES
from voting.polls.codes import BadCodeList, CodeList
from voting.polls.session import parse_code
from voting.web.language import translatable
from voting.web.problems import Problem


@dataclass(frozen=True, slots=True)
class Owner:
    """The poll or the session to which a list belongs: exactly one of them is given."""

    poll: str | None = None  # slug
    session: str | None = None  # join code

    @property
    def name(self) -> str:
        return self.session or self.poll or ""


def owner_of(request: Request) -> Owner:
    """Return the poll (`slug`) or the session (`code`) that the path of a request names."""
    params = request.path_params
    if "slug" in params:
        return Owner(poll=params["slug"])
    return Owner(session=parse_code(params["code"]) or params["code"])


async def read_list(connection: Connection, owner: Owner) -> CodeList | None:
    """Return the list that belongs to a poll or session; None if it has none. Raise the 409 if it cannot be read."""
    rows = await _rows(connection, "admin_codes", owner=owner.name)
    return _parse(rows[0]) if rows else None


async def list_of_poll(connection: Connection, slug: str) -> tuple[Owner, CodeList | None]:
    """Return the list whose codes a poll accepts and its owner; without any, the poll itself and None."""
    rows = await _rows(connection, "admin_codes_of_poll", slug=slug)
    if not rows:
        return Owner(poll=slug), None
    row = rows[0]
    return Owner(session=row["owner"]) if row["of_session"] else Owner(poll=row["owner"]), _parse(row)


def _parse(row: Mapping[str, Any]) -> CodeList:
    try:
        return CodeList.from_dict(row)
    except BadCodeList as error:
        message = translatable("The row of these codes in the database is not valid: {fault}")
        raise Problem(409, "bad_codes", message, fault=error) from None


async def require_codes(connection: Connection, slug: str) -> None:
    """Raise the 409 if no code was made with which people could vote in a poll."""
    _, found = await list_of_poll(connection, slug)
    if found is None or not found.issued:
        raise no_codes()


async def require_one_list(connection: Connection, session: str, slugs: Iterable[str]) -> None:
    """Raise the 409 if one of these polls would have a second list in a session that has one."""
    rows = await _rows(connection, "admin_other_codes", session=session, slugs=[*slugs])
    if not rows:
        return
    poll, owner = rows[0]["slug"], rows[0]["owner"]
    if owner == poll:
        message = translatable(
            "The poll {poll} has voting codes of its own, and a poll uses one list. Copy it: the copy has no codes."
        )
        raise Problem(409, "poll_codes", message, poll=poll)
    message = translatable(
        "The poll {poll} uses the voting codes of the session {session}. Take it out of that session first, or copy it."
    )
    raise Problem(409, "session_codes", message, poll=poll, session=owner)


async def require_closed(connection: Connection, slugs: Iterable[str]) -> None:
    """Raise the 409 if one of these polls is open for voting with codes."""
    rows = await _rows(connection, "admin_open_with_codes", slugs=[*slugs])
    if rows:
        message = translatable("People vote in the poll {poll} with these voting codes now. Close it first.")
        raise Problem(409, "codes_in_use", message, poll=rows[0]["slug"])


def no_codes() -> Problem:
    """Return the 409 for a poll without codes."""
    message = translatable("There are no voting codes yet. Make some on the page Voting codes, or with POST …/codes.")
    return Problem(409, "no_codes", message)


def version(codes: CodeList | None) -> str:
    """Return a text that differs when the list has changed, and tells nothing of it."""
    if codes is None:
        return "none"
    state = json.dumps([codes.issued, sorted(codes.changes.items())]).encode()
    return hashlib.blake2s(state, key=codes.key, digest_size=8, person=b"version").hexdigest()


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as text, such as `1-5, 9`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


async def _rows(connection: Connection, query: str, **values: Any) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES[query], values)
        return await cursor.fetchall()
