"""The API of polls."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from voting.admin import polls, reads
from voting.admin.api_route import After, ApiRoute, Limit, Uses, Who, next_page
from voting.admin.csv_export import csv_of
from voting.admin.inputs import NewPoll, PollChange
from voting.admin.outputs import Export, PollOut, PollPage
from voting.admin.services import Services

router = APIRouter(prefix="/api/polls", route_class=ApiRoute, tags=["Polls"])

IfMatch = Annotated[str | None, Header(description="The `ETag` of what you have seen; 412 if it has changed since.")]
Round = Annotated[int | None, Query(ge=1, le=100_000_000, description="By default the current one.")]
CSV = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


@router.get("", response_model=PollPage)
async def list_polls(request: Request, uses: Uses, who: Who, limit: Limit = 50, after: After = None) -> Any:
    """List polls, newest first."""
    async with uses.database.read() as connection:
        found, cursor = await reads.poll_list(connection, who, limit=limit, after=after)
    links = uses.links(request)
    shown = [poll | links.of_poll(poll["slug"]) for poll in found]
    return {"polls": shown, "next": next_page("/api/polls", limit, cursor)}


@router.post("", status_code=201, response_model=PollOut)
async def create_poll(request: Request, response: Response, uses: Uses, who: Who, new: NewPoll) -> Any:
    """Make a poll. It is a draft: nobody can vote until it is opened."""
    async with uses.database.write(who) as change:
        slug = await polls.create(change, new)
        created = await reads.poll(change.connection, who, slug)
    return _created(request, response, uses, created)


@router.get("/{slug}", response_model=PollOut)
async def get_poll(request: Request, response: Response, uses: Uses, who: Who, slug: str) -> Any:
    """Return a poll with its numbers, whoever else may see them."""
    async with uses.database.read() as connection:
        found = await reads.poll(connection, who, slug)
    return _shown(request, response, uses, found)


@router.patch("/{slug}", response_model=PollOut)
async def change_poll(
    request: Request, response: Response, uses: Uses, who: Who, slug: str, wanted: PollChange, if_match: IfMatch = None
) -> Any:
    """Change a poll, open it, or close it.

    In a draft everything can be changed. Where there are votes, the meaning stays: 409 with the reason `has_votes`. The
    host of a session may change `state`, `results`, `closes_at` and `closes_in`.
    """
    async with uses.database.write(who) as change:
        await polls.edit(change, slug, wanted, expected=_expected(if_match))
        found = await reads.poll(change.connection, who, slug)
    return _shown(request, response, uses, found)


@router.delete("/{slug}", status_code=204)
async def delete_poll(uses: Uses, who: Who, slug: str) -> None:
    """Delete a poll with all its rounds and votes."""
    async with uses.database.write(who) as change:
        await polls.delete(change, slug)


@router.post("/{slug}/reset", response_model=PollOut)
async def reset_poll(request: Request, response: Response, uses: Uses, who: Who, slug: str) -> Any:
    """Begin the next round: a draft without votes, at the same address. The round before is kept."""
    async with uses.database.write(who) as change:
        await polls.reset(change, slug)
        found = await reads.poll(change.connection, who, slug)
    return _shown(request, response, uses, found)


@router.post("/{slug}/copy", status_code=201, response_model=PollOut)
async def copy_poll(request: Request, response: Response, uses: Uses, who: Who, slug: str) -> Any:
    """Make a draft with the same question and options, at another address."""
    async with uses.database.write(who) as change:
        copied = await reads.poll(change.connection, who, await polls.copy(change, slug))
    return _created(request, response, uses, copied)


@router.get("/{slug}/results.json", response_model=Export)
async def get_results(response: Response, uses: Uses, who: Who, slug: str, round: Round = None) -> Any:  # noqa: A002
    """Return the numbers of a round as a file."""
    async with uses.database.read() as connection:
        found = await reads.export(connection, who, slug, round)
    response.headers["content-disposition"] = _attachment(found, "json")
    return found


@router.get("/{slug}/results.csv", response_class=Response, responses=CSV)  # type: ignore[arg-type]
async def get_csv(uses: Uses, who: Who, slug: str, round: Round = None) -> Response:  # noqa: A002
    """Return the numbers of a round as a file for spreadsheets."""
    async with uses.database.read() as connection:
        found = await reads.export(connection, who, slug, round)
    headers = {"content-disposition": _attachment(found, "csv")}
    return Response(csv_of(found), headers=headers, media_type="text/csv; charset=utf-8")


def _attachment(export: dict[str, Any], suffix: str) -> str:
    return f'attachment; filename="{export["poll"]}-round-{export["round"]}.{suffix}"'


def _expected(if_match: str | None) -> int | None:
    """Return the number in If-Match, -1 if it has none that could match, and None if any is accepted."""
    if if_match is None or if_match.strip() == "*":
        return None
    number = re.fullmatch(r'\s*"([0-9]{1,18})"\s*', if_match, re.ASCII)
    return int(number[1]) if number else -1


def _shown(request: Request, response: Response, uses: Services, found: dict[str, Any]) -> dict[str, Any]:
    response.headers["etag"] = f'"{found["changed"]}"'
    return found | uses.links(request).of_poll(found["slug"])


def _created(request: Request, response: Response, uses: Services, found: dict[str, Any]) -> dict[str, Any]:
    response.headers["location"] = f"/api/polls/{found['slug']}"
    return _shown(request, response, uses, found)
