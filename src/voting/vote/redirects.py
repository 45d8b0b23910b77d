"""Where a join code, and a link to the result, lead to."""

import re

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from voting.polls.session import parse_code
from voting.polls.tracker import parse_tracker, tracker_text
from voting.settings.services import VoteSettings
from voting.web import language
from voting.web.language import translatable
from voting.web.origin import redirect_to_other_service
from voting.web.problems import Problem
from voting.web.rendering import Pages
from voting.web.responses import HEADERS

_TICKET = re.compile("[0-9a-f]{8,64}")


def join_route(pages: Pages) -> Route:
    """Return the route of the form that asks for a code, and leads to the session's ballot."""

    async def join(request: Request) -> Response:
        typed = request.query_params.get("code", "")
        if code := parse_code(typed):
            return RedirectResponse(f"/{code}", 303, headers=HEADERS)
        if typed:
            message = translatable("A code has six letters and digits. Check it and type it again.")
            raise Problem(404, "unknown_session", message, title=translatable("Unknown code"))
        query = request.scope["query_string"]
        reader = language.negotiate(dict(request.scope["headers"]), query)
        headers = HEADERS | {"content-type": "text/html; charset=utf-8"}
        if chosen := language.from_query(query):
            headers["set-cookie"] = language.cookie(chosen).decode()
        return Response(pages.render("join.html", reader), headers=headers)

    return Route("/join", join)


def result_routes(settings: VoteSettings) -> list[Route]:
    """Return the routes that lead to the result of a poll or a session, and to the ballots of a poll."""

    async def results(request: Request) -> Response:
        path = ""
        if typed := request.path_params.get("code"):
            code = parse_code(typed)
            if code is None:
                raise Problem(404, "not_found")
            path = f"/s/{code}"
        response = redirect_to_other_service(request, settings.result_url, settings.result_port, path)
        ticket = request.query_params.get("ticket", "")
        if _TICKET.fullmatch(ticket):  # of somebody who has voted in a poll with results `after_vote`
            response.headers["location"] += f"?ticket={ticket}"
        return response

    async def ballots(request: Request) -> Response:
        slug = request.path_params.get("poll")
        path = f"/p/{slug}/ballots" if slug else "/ballots"
        response = redirect_to_other_service(request, settings.result_url, settings.result_port, path)
        if tracker := parse_tracker(request.query_params.get("tracker", "")):
            response.headers["location"] += f"?tracker={tracker_text(tracker)}"
        return response

    lists = [Route(path, ballots) for path in ("/ballots", "/p/{poll}/ballots")]
    return [*lists, *(Route(path, results) for path in ("/results", "/p/{poll}/results", "/{code}/results"))]
