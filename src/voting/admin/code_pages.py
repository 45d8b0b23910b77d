"""The pages about the voting codes of a poll or a session: make, hand out, revoke, replace, renew.

They show no code: cards (`code_cards`) and the CSV do. A form has the `version` of the
list that its page showed, so that it does no harm to send it twice.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voting.admin import codes, reads
from voting.admin.change import Change
from voting.admin.code_lists import Owner, owner_of, ranges, version
from voting.admin.codes import Codes
from voting.admin.forms import Form, read_form
from voting.admin.identity import Identity
from voting.admin.inputs import NewCodes, SomeCodes
from voting.admin.pages import PageMaker, see
from voting.admin.problems import Invalid, parse
from voting.database.connection import Connection
from voting.polls.codes import MAX_CHANGES, MAX_SERIAL, CodeList
from voting.web.language import translatable
from voting.web.problems import Problem

_PARTS = re.compile(r"[,;\n]")
_RANGE = re.compile(r"([0-9]{1,6})(?:\s*[-–]\s*([0-9]{1,6}))?", re.ASCII)  # noqa: RUF001 - an en dash
_ACTIONS = {"make", "revoke", "replace", "renew"}

Fields = dict[str, Any]


class CodePages:
    """The endpoints."""

    def __init__(self, maker: PageMaker) -> None:
        self._maker, self._services, self._database = maker, maker.services, maker.services.database

    def routes(self) -> list[BaseRoute]:
        route = self._maker.route
        return [
            each
            for path in ("/polls/{slug}/codes", "/sessions/{code}/codes")
            for each in (route(path, self.overview), route(path, self.change, "POST"))
        ]

    async def overview(self, request: Request, who: Identity) -> Response:
        return await self._show(request, who)

    async def _show(
        self, request: Request, who: Identity, problem: Problem | None = None, form: Form | None = None
    ) -> Response:
        async with self._database.read() as connection:
            found = await codes.read(connection, who, owner_of(request))
            about = await about_owner(connection, who, found)
        done = request.query_params.get("done", "")
        numbers = _parse_ranges(request.query_params.get("numbers", ""))
        return self._maker.show(
            request,
            who,
            "codes.html",
            problem.status if problem else 200,
            codes=found.fields,
            seen=version(found.codes),
            revoked=ranges(number for number, change in _changes(found.codes) if change < 0),
            left=MAX_SERIAL - found.fields["made"],
            path=path_of(found.owner),
            is_own=owner_of(request).session or found.owner.poll,
            done=done if done in _ACTIONS and not problem else "",
            done_ranges=numbers[:20],
            problem=problem,
            error=problem.errors[0] if isinstance(problem, Invalid) else None,
            count=form.get("count") if form else "",
            which=form.get("which") if form else "",
            **about,
        )

    async def change(self, request: Request, who: Identity) -> Response:
        """Do what a button asks for; what makes codes invalid is asked back first."""
        form, owner = await read_form(request), owner_of(request)
        action = form.get("do")
        if action not in _ACTIONS:
            raise Problem(422, "action", translatable("This page does not know this button. Load it again."))
        try:
            async with self._database.write(who) as change:
                found = await codes.read(change.connection, who, owner)
                if action == "make":
                    numbers = await _make(change, owner, found, form)
                else:
                    numbers = await _named(change, owner, found, form)
                    if not form.get("sure"):
                        about = await about_owner(change.connection, who, found)
                        return self._ask(request, who, found, numbers, about | {"action": action})
                    await _apply(change, owner, action, numbers, form.get("seen"))
        except Problem as problem:
            if problem.status in {403, 404}:
                raise
            return await self._show(request, who, problem, form)
        query = {"done": action, "numbers": ranges(numbers)[:500]}
        return see(f"{path_of(owner)}?{urlencode(query)}")

    def _ask(self, request: Request, who: Identity, found: Codes, numbers: Sequence[int], context: Fields) -> Response:
        more = {"numbers": ranges(numbers), "number": len(numbers), "path": path_of(found.owner)}
        context = context | more | {"seen": version(found.codes)}
        return self._maker.show(request, who, "confirm_codes.html", 200, **context)


def path_of(owner: Owner) -> str:
    """Return the path of the page about the codes of a poll or session."""
    return f"/sessions/{owner.session}/codes" if owner.session else f"/polls/{owner.poll}/codes"


async def about_owner(connection: Connection, who: Identity, found: Codes) -> Fields:
    """Return what the pages say of the owner of a list and of the polls that use it."""
    polls = await reads.some_polls(connection, found.polls)
    if found.owner.session:
        session = await reads.session(connection, who, found.owner.session)
        back, title = f"/sessions/{session['code']}", session["title"]
    else:
        poll = await reads.poll(connection, who, found.owner.poll or "")
        back, title = f"/polls/{poll['slug']}", poll["question"]
    without = [poll for poll in polls if poll["access"] != "code"]
    return {"title": title, "back": back, "without_codes": without, "session": found.owner.session}


def _changes(held: CodeList | None) -> Iterable[tuple[int, int]]:
    return held.changes.items() if held else ()


async def _make(change: Change, owner: Owner, found: Codes, form: Form) -> Sequence[int]:
    wanted = parse(NewCodes, {"count": form.number("count") or form.get("count")})
    made = found.fields["made"]
    if form.number("made") == made - wanted.count:  # the same form was sent twice
        return range(made - wanted.count + 1, made + 1)
    return await codes.make(change, owner, wanted.count, expected=form.get("seen"))


async def _named(change: Change, owner: Owner, found: Codes, form: Form) -> Sequence[int]:
    """Return the numbers that a button concerns."""
    if form.get("do") == "renew":
        return range(1, found.fields["made"] + 1)
    return await codes.numbers_of(change, owner, _which(form))


async def _apply(change: Change, owner: Owner, action: str, numbers: Sequence[int], seen: str) -> None:
    if action == "revoke":
        await codes.revoke(change, owner, numbers, expected=seen)
    elif action == "replace":
        await codes.replace(change, owner, numbers, expected=seen)
    else:
        await codes.renew(change, owner, expected=seen)


def _which(form: Form) -> SomeCodes:
    """Return the codes that a field names: numbers, ranges of them such as 3-7, or codes, with commas between."""
    named: dict[str, list[Any]] = {"numbers": [], "codes": []}
    for part in _PARTS.split(form.get("which")):
        if found := _RANGE.fullmatch(part.strip()):
            first, last = int(found[1]), int(found[2] or found[1])
            named["numbers"] += range(first, min(last, first + MAX_CHANGES) + 1)
            if len(named["numbers"]) > MAX_CHANGES:
                break  # `parse` says that these are too many
        elif part.strip():
            named["codes"].append(part.strip())
    return parse(SomeCodes, named)


def _parse_ranges(text: str) -> list[tuple[int, int]]:
    """Return the ranges in an address of ours; anything else is left out."""
    found = [_RANGE.fullmatch(part.strip()) for part in text.split(",")]
    return [(int(each[1]), int(each[2] or each[1])) for each in found if each]
