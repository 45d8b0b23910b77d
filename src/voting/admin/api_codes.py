"""The API of voting codes: of a poll, and in the same way of a session."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from voting.admin import codes
from voting.admin.api_polls import CSV
from voting.admin.api_route import ApiRoute, Uses, Who
from voting.admin.code_lists import Owner, owner_of
from voting.admin.csv_export import csv_of_codes
from voting.admin.inputs import NewCodes, SomeCodes
from voting.admin.links import Links
from voting.admin.outputs import CodesOut, NewCodesOut, ReplacedOut
from voting.polls.codes import MAX_SERIAL, CodeList

router = APIRouter(prefix="/api", route_class=ApiRoute, tags=["Voting codes"])

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
First = Annotated[int, Query(ge=1, le=MAX_SERIAL, description="The number of the first code.")]
Last = Annotated[int, Query(ge=1, le=MAX_SERIAL, description="The number of the last code.")]


def _slug(slug: str) -> None:
    """Name the parameter of the path of a poll."""


def _code(code: str) -> None:
    """Name the parameter of the path of a session."""


OwnerOf = Annotated[Owner, Depends(owner_of)]
_OWNERS = (("/polls/{slug}/codes", "poll", _slug), ("/sessions/{code}/codes", "session", _code))


def _route(method: str, suffix: str, name: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator that adds an endpoint for polls and for sessions; `{}` in the name is which."""

    def add(endpoint: Endpoint) -> Endpoint:
        for path, owner, parameter in _OWNERS:
            router.add_api_route(
                path + suffix,
                endpoint,
                methods=[method],
                name=name.format(owner),
                dependencies=[Depends(parameter)],
                **options,
            )
        return endpoint

    return add


@_route("GET", "", "get_{}_codes", response_model=CodesOut)
async def get_codes(uses: Uses, who: Who, owner: OwnerOf) -> Any:
    """Say how many voting codes there are. A poll has its own, or uses those of a session that it is in.

    One code of a session is valid in all its polls.
    """
    async with uses.database.read() as connection:
        return (await codes.read(connection, who, owner)).fields


@_route("POST", "", "make_{}_codes", status_code=201, response_model=NewCodesOut)
async def make_codes(uses: Uses, who: Who, owner: OwnerOf, new: NewCodes) -> Any:
    """Make voting codes, in addition to those that there are."""
    async with uses.database.write(who) as change:
        numbers = await codes.make(change, owner, new.count)
        held, _ = await codes.show(change, owner, numbers)
        found = await codes.read(change.connection, who, owner)
    return found.fields | {"first": numbers[0], "codes": await texts(held, numbers)}


@_route("GET", ".csv", "get_{}_codes_csv", response_class=Response, responses=CSV)
async def get_csv(
    request: Request, uses: Uses, who: Who, owner: OwnerOf, first: First = 1, last: Last = MAX_SERIAL
) -> Response:
    """Return the valid codes and their links as a file for spreadsheets. The audit log notes it."""
    async with uses.database.write(who) as change:
        held, numbers = await codes.show(change, owner, range(first, last + 1))
        found = await codes.read(change.connection, who, owner)
    body = await asyncio.to_thread(_csv_of, uses.links(request), found.owner, held, numbers)
    headers = {"content-disposition": f'attachment; filename="{found.owner.name}-codes.csv"'}
    return Response(body, headers=headers, media_type="text/csv; charset=utf-8")


@_route("POST", "/revoke", "revoke_{}_codes", response_model=CodesOut)
async def revoke_codes(uses: Uses, who: Who, owner: OwnerOf, which: SomeCodes) -> Any:
    """Revoke codes: they are refused from now on. Votes that were cast with them stay."""
    async with uses.database.write(who) as change:
        numbers = await codes.numbers_of(change, owner, which)
        await codes.revoke(change, owner, numbers)
        return (await codes.read(change.connection, who, owner)).fields


@_route("POST", "/replace", "replace_{}_codes", response_model=ReplacedOut)
async def replace_codes(uses: Uses, who: Who, owner: OwnerOf, which: SomeCodes) -> Any:
    """Replace codes: the old ones are refused from now on. A new code changes the vote that was cast with the old."""
    async with uses.database.write(who) as change:
        numbers = await codes.numbers_of(change, owner, which)
        await codes.replace(change, owner, numbers)
        held, _ = await codes.show(change, owner, numbers)
        found = await codes.read(change.connection, who, owner)
    return found.fields | {"numbers": numbers, "codes": await texts(held, numbers)}


@_route("POST", "/renew", "renew_{}_codes", response_model=CodesOut)
async def renew_codes(uses: Uses, who: Who, owner: OwnerOf) -> Any:
    """Replace all codes at once, by a new key. Refused while a poll that uses them is open (`codes_in_use`)."""
    async with uses.database.write(who) as change:
        await codes.renew(change, owner)
        return (await codes.read(change.connection, who, owner)).fields


def _csv_of(links: Links, owner: Owner, held: CodeList, numbers: Iterable[int]) -> bytes:
    made = ((number, held.code(number) or "") for number in numbers)
    return csv_of_codes((number, code, links.with_code(owner, code)) for number, code in made)


async def texts(held: CodeList, numbers: Iterable[int]) -> list[str]:
    """Return the codes with these numbers, which are valid; in a thread, since there can be 32,767."""
    return await asyncio.to_thread(lambda: [held.code(number) or "" for number in numbers])
