"""The page with the result of a poll, to print or to keep."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from voting.admin import reads
from voting.admin.control_pages import bars
from voting.admin.identity import Identity
from voting.admin.pages import PageMaker

ROUNDS_SHOWN = 20


def routes(maker: PageMaker) -> list[BaseRoute]:
    """Return the route of the page."""

    async def show(request: Request, who: Identity) -> Response:
        slug = request.path_params["slug"]
        async with maker.services.database.read() as connection:
            poll = await reads.poll(connection, who, slug)
            numbers = [each["round"] for each in poll["rounds"][:ROUNDS_SHOWN]]
            exports = [await reads.export(connection, who, slug, number) for number in (poll["round"], *numbers)]
        links = maker.services.links(request).of_poll(slug)
        rounds = [_round(export) for export in exports]
        return maker.show(request, who, "print.html", poll=poll, rounds=rounds, links=links, shown=ROUNDS_SHOWN)

    return [maker.route("/polls/{slug}/print", show)]


def _round(export: dict[str, Any]) -> dict[str, Any]:
    """Return a round with its bars; the options of a ranking come by points, the best first."""
    rows = bars(export)
    if export["kind"] == "ranking":
        rows = sorted(rows, key=lambda row: -row["points"])
    return export | {"rows": rows, "labels": {option["key"]: option["label"] for option in export["options"]}}
