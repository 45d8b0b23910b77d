"""The API of voting codes: of a poll, and in the same way of a session."""

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from voting.admin import codes
from voting.admin.api_polls import CSV
from voting.admin.api_route import ApiRoute, Uses, Who
from voting.admin.code_lists import Owner
from voting.admin.csv_export import csv_of_codes
from voting.admin.identity import Identity
from voting.admin.inputs import NewCodes, SomeCodes
from voting.admin.links import Links
from voting.admin.outputs import CodesOut, NewCodesOut, ReplacedOut
from voting.admin.services import Services
from voting.polls.codes import MAX_SERIAL, CodeList

router = APIRouter(prefix="/api", route_class=ApiRoute, tags=["Voting codes"])

First = Annotated[int, Query(ge=1, le=MAX_SERIAL, description="The number of the first code.")]
Last = Annotated[int, Query(ge=1, le=MAX_SERIAL, description="The number of the last code.")]


@router.get("/polls/{slug}/codes", response_model=CodesOut)
async def get_poll_codes(uses: Uses, who: Who, slug: str) -> Any:
    """Say how many voting codes there are for a poll: its own, or those of a session that it is in."""
    return await _read(uses, who, Owner(poll=slug))


@router.post("/polls/{slug}/codes", status_code=201, response_model=NewCodesOut)
async def make_poll_codes(uses: Uses, who: Who, slug: str, new: NewCodes) -> Any:
    """Make voting codes for a poll, in addition to those that it has."""
    return await _make(uses, who, Owner(poll=slug), new)


@router.get("/polls/{slug}/codes.csv", response_class=Response, responses=CSV)  # type: ignore[arg-type]
async def get_poll_codes_csv(
    request: Request, uses: Uses, who: Who, slug: str, first: First = 1, last: Last = MAX_SERIAL
) -> Response:
    """Return the valid codes of a poll and their links as a file for spreadsheets. The audit log notes it."""
    return await _csv(request, uses, who, Owner(poll=slug), range(first, last + 1))


@router.post("/polls/{slug}/codes/revoke", response_model=CodesOut)
async def revoke_poll_codes(uses: Uses, who: Who, slug: str, which: SomeCodes) -> Any:
    """Revoke codes: they are refused from now on. Votes that were cast with them stay."""
    return await _revoke(uses, who, Owner(poll=slug), which)


@router.post("/polls/{slug}/codes/replace", response_model=ReplacedOut)
async def replace_poll_codes(uses: Uses, who: Who, slug: str, which: SomeCodes) -> Any:
    """Replace codes: the old ones are refused from now on. A new code changes the vote that was cast with the old."""
    return await _replace(uses, who, Owner(poll=slug), which)


@router.post("/polls/{slug}/codes/renew", response_model=CodesOut)
async def renew_poll_codes(uses: Uses, who: Who, slug: str) -> Any:
    """Replace all codes at once, by a new key. Refused while the poll is open (`codes_in_use`)."""
    return await _renew(uses, who, Owner(poll=slug))


@router.get("/sessions/{code}/codes", response_model=CodesOut)
async def get_session_codes(uses: Uses, who: Who, code: str) -> Any:
    """Say how many voting codes a session has. One code is valid in all its polls."""
    return await _read(uses, who, Owner(session=code))


@router.post("/sessions/{code}/codes", status_code=201, response_model=NewCodesOut)
async def make_session_codes(uses: Uses, who: Who, code: str, new: NewCodes) -> Any:
    """Make voting codes for all polls of a session, in addition to those that it has."""
    return await _make(uses, who, Owner(session=code), new)


@router.get("/sessions/{code}/codes.csv", response_class=Response, responses=CSV)  # type: ignore[arg-type]
async def get_session_codes_csv(
    request: Request, uses: Uses, who: Who, code: str, first: First = 1, last: Last = MAX_SERIAL
) -> Response:
    """Return the valid codes of a session and their links as a file for spreadsheets. The audit log notes it."""
    return await _csv(request, uses, who, Owner(session=code), range(first, last + 1))


@router.post("/sessions/{code}/codes/revoke", response_model=CodesOut)
async def revoke_session_codes(uses: Uses, who: Who, code: str, which: SomeCodes) -> Any:
    """Revoke codes: they are refused from now on. Votes that were cast with them stay."""
    return await _revoke(uses, who, Owner(session=code), which)


@router.post("/sessions/{code}/codes/replace", response_model=ReplacedOut)
async def replace_session_codes(uses: Uses, who: Who, code: str, which: SomeCodes) -> Any:
    """Replace codes: the old ones are refused from now on. A new code changes the vote that was cast with the old."""
    return await _replace(uses, who, Owner(session=code), which)


@router.post("/sessions/{code}/codes/renew", response_model=CodesOut)
async def renew_session_codes(uses: Uses, who: Who, code: str) -> Any:
    """Replace all codes at once, by a new key. Refused while a poll that uses them is open (`codes_in_use`)."""
    return await _renew(uses, who, Owner(session=code))


async def _read(uses: Services, who: Identity, owner: Owner) -> dict[str, Any]:
    async with uses.database.read() as connection:
        return (await codes.read(connection, who, owner)).fields


async def _make(uses: Services, who: Identity, owner: Owner, new: NewCodes) -> dict[str, Any]:
    async with uses.database.write(who) as change:
        numbers = await codes.make(change, owner, new.count)
        held, _ = await codes.show(change, owner, numbers)
        found = await codes.read(change.connection, who, owner)
    return found.fields | {"first": numbers[0], "codes": await texts(held, numbers)}


async def _csv(request: Request, uses: Services, who: Identity, owner: Owner, wanted: range) -> Response:
    async with uses.database.write(who) as change:
        held, numbers = await codes.show(change, owner, wanted)
        found = await codes.read(change.connection, who, owner)
    body = await asyncio.to_thread(_csv_of, uses.links(request), found.owner, held, numbers)
    headers = {"content-disposition": f'attachment; filename="{found.owner.name}-codes.csv"'}
    return Response(body, headers=headers, media_type="text/csv; charset=utf-8")


def _csv_of(links: Links, owner: Owner, held: CodeList, numbers: Iterable[int]) -> bytes:
    made = ((number, held.code(number) or "") for number in numbers)
    return csv_of_codes((number, code, links.with_code(owner, code)) for number, code in made)


async def _revoke(uses: Services, who: Identity, owner: Owner, which: SomeCodes) -> dict[str, Any]:
    async with uses.database.write(who) as change:
        numbers = await codes.numbers_of(change, owner, which)
        await codes.revoke(change, owner, numbers)
        return (await codes.read(change.connection, who, owner)).fields


async def _replace(uses: Services, who: Identity, owner: Owner, which: SomeCodes) -> dict[str, Any]:
    async with uses.database.write(who) as change:
        numbers = await codes.numbers_of(change, owner, which)
        await codes.replace(change, owner, numbers)
        held, _ = await codes.show(change, owner, numbers)
        found = await codes.read(change.connection, who, owner)
    return found.fields | {"numbers": numbers, "codes": await texts(held, numbers)}


async def _renew(uses: Services, who: Identity, owner: Owner) -> dict[str, Any]:
    async with uses.database.write(who) as change:
        await codes.renew(change, owner)
        return (await codes.read(change.connection, who, owner)).fields


async def texts(held: CodeList, numbers: Iterable[int]) -> list[str]:
    """Return the codes with these numbers, which are valid; in a thread, since there can be 32,767."""
    return await asyncio.to_thread(lambda: [held.code(number) or "" for number in numbers])
