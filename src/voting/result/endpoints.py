"""The HTTP endpoints of each poll: the page, the big screen, the JSON snapshot, and the redirect to the ballot."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from voting.polls.poll import DEFAULT_POLL
from voting.polls.tally import shares
from voting.result.hub import Channel, Hub
from voting.web.qr import QrCodes
from voting.settings.services import ResultSettings
from voting.web import language
from voting.web.origin import other_service_url, redirect_to_other_service
from voting.web.problems import Problem
from voting.web.rendering import Pages
from voting.web.responses import HEADERS

MAX_PAGES = 32  # rendered pages kept for a poll; each Host header needs another one


class ResultEndpoints:
    """The endpoints of the result service."""

    def __init__(self, settings: ResultSettings, pages: Pages, hub: Hub) -> None:
        self._settings = settings
        self._pages = pages
        self._hub = hub
        self._qr_codes = QrCodes()

    def routes(self, prefix: str) -> list[Route]:
        """Return the routes below a prefix: "" for the default poll, `/p/{poll}` for the others."""
        return [
            Route(prefix or "/", self.page),
            Route(f"{prefix}/present", self.present),
            Route(f"{prefix}/api/results", self.results),
            Route(f"{prefix}/vote", self.ballot),
        ]

    async def page(self, request: Request) -> Response:
        return self._render("result.html", request)

    async def present(self, request: Request) -> Response:
        """Return the page for a big screen, with the URL of the ballot, also as a QR code."""
        self._find(request)  # an unknown poll's name could be longer than a QR code can be
        url = other_service_url(request, self._settings.vote_url, self._settings.vote_port)
        return self._render("present.html", request, vote_url=url, qr=self._qr_codes.get(url) or "")

    async def results(self, request: Request) -> Response:
        return JSONResponse(self._find(request).snapshot, headers=HEADERS)

    async def ballot(self, request: Request) -> Response:
        return redirect_to_other_service(request, self._settings.vote_url, self._settings.vote_port)

    def _find(self, request: Request) -> Channel:
        channel = self._hub.find_channel(request.path_params.get("poll", DEFAULT_POLL))
        if channel is None:
            raise Problem(404, "unknown_poll") if self._hub.loaded else Problem(503, "no_polls")
        return channel

    def _render(self, template: str, request: Request, **more: str) -> Response:
        """Return a page; it is rendered once for each language, and kept until the poll's numbers change."""
        channel = self._find(request)
        query = request.scope["query_string"]
        reader = language.negotiate(dict(request.scope["headers"]), query)
        key = (template, request.scope["path"], reader.code, *more.values())
        page = channel.pages.get(key)
        if page is None:
            page = self._pages.render(template, reader, **_context(channel, request), **more)
            if len(channel.pages) < MAX_PAGES:
                channel.pages[key] = page
        headers = HEADERS | {"content-type": "text/html; charset=utf-8"}
        if code := language.from_query(query):
            headers["set-cookie"] = language.cookie(code).decode()
        return Response(page, headers=headers)


def _context(channel: Channel, request: Request) -> dict[str, Any]:
    slug = request.path_params.get("poll")
    prefix = f"/p/{slug}" if slug else ""
    return {
        "snapshot": channel.snapshot,
        "shares": shares([option["votes"] for option in channel.snapshot["options"]]),
        "rates": list(channel.rates),
        "ws_path": f"{prefix}/ws",
        "vote_href": f"{prefix}/vote",
        "present_href": f"{prefix}/present",
    }
