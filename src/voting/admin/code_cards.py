"""Cards with voting codes to print, eight to a sheet. The audit log notes each time which numbers were shown."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voting.admin import codes
from voting.admin.code_lists import Owner, owner_of
from voting.admin.code_pages import about_owner, path_of
from voting.admin.identity import Identity
from voting.admin.links import Links
from voting.admin.pages import PageMaker
from voting.admin.problems import invalid
from voting.polls.codes import MAX_SERIAL, CodeList
from voting.web.language import translatable
from voting.web.qr import qr_code

CARDS = 200  # on one page: their QR codes take one to two seconds of one processor
A_SHEET = 8


def routes(maker: PageMaker) -> list[BaseRoute]:
    """Return the routes of the page."""
    services = maker.services
    turn = asyncio.Lock()  # one page of cards at a time, or they would take all threads

    async def show(request: Request, who: Identity) -> Response:
        first = _number(request, "first") or 1
        last = min(_number(request, "last") or MAX_SERIAL, first + CARDS - 1)
        async with services.database.write(who) as change:
            found = await codes.read(change.connection, who, owner_of(request))
            held, numbers = await codes.show(change, owner_of(request), range(first, last + 1))
            about = await about_owner(change.connection, who, found)
        links = services.links(request)
        async with turn:
            cards = await asyncio.to_thread(_cards, links, found.owner, held, numbers)
        context: dict[str, Any] = {
            "sheets": [cards[start : start + A_SHEET] for start in range(0, len(cards), A_SHEET)],
            "first": first,
            "last": min(last, held.issued),
            "made": held.issued,
            "before": (max(1, first - CARDS), first - 1) if first > 1 else None,
            "after": (last + 1, min(last + CARDS, held.issued)) if last < held.issued else None,
            "path": path_of(found.owner),
            "address": links.of_codes(found.owner).partition("://")[2].rstrip("/"),
        }
        return maker.show(request, who, "cards.html", 200, **context, **about)

    return [maker.route(f"{path}/codes/cards", show) for path in ("/polls/{slug}", "/sessions/{code}")]


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name, "")
    if text and not re.fullmatch(r"[1-9][0-9]{0,5}", text, re.ASCII):
        raise invalid(name, translatable("This is not a number."))
    return int(text) if text else None


def _cards(links: Links, owner: Owner, held: CodeList, numbers: Iterable[int]) -> list[dict[str, Any]]:
    made = ((number, held.code(number) or "") for number in numbers)
    return [{"number": number, "code": code, "qr": qr_code(links.with_code(owner, code))} for number, code in made]
