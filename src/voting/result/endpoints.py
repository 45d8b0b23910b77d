"""The HTTP endpoints of each poll and session: pages, the JSON snapshot, and the redirect to the ballot."""

import asyncio
import time
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from voting.polls.poll import DEFAULT_POLL, Poll
from voting.polls.session import parse_code
from voting.result.channel import Audience, Channel
from voting.result.demand import Key
from voting.result.feed import Feed
from voting.result.hub import Hub
from voting.result.page_context import due, page_context
from voting.result.session_channel import SessionChannel
from voting.result.visibility import audience, is_ticket, ticket_cookie
from voting.settings.services import ResultSettings
from voting.web import language
from voting.web.origin import other_service_url, redirect_to_other_service
from voting.web.qr import QrCodes
from voting.web.rendering import Pages
from voting.web.responses import HEADERS

MAX_PAGES = 256  # rendered pages kept; each Host header needs another one


class Found(NamedTuple):
    """What a request asks for."""

    channel: Channel | None  # of the poll, or of the current poll of the session
    session: SessionChannel | None
    audience: Audience  # that the request belongs to
    feed: Feed  # of this audience


class ResultEndpoints:
    """The endpoints of the result service."""

    def __init__(self, settings: ResultSettings, pages: Pages, hub: Hub) -> None:
        self._settings = settings
        self._pages = pages
        self._hub = hub
        self._qr_codes = QrCodes()
        self._rendered: dict[tuple[str, ...], tuple[tuple[int, int], bytes]] = {}  # -> what it shows, page
        self._secure = settings.https or settings.result_url.startswith("https://")
        ancestors = " ".join(settings.embed_origins) or "'none'"
        policy = HEADERS["content-security-policy"].replace("frame-ancestors 'none'", f"frame-ancestors {ancestors}")
        self._embed_headers = {"content-security-policy": policy}

    def routes(self) -> list[Route]:
        """Return the routes of the default poll, the others, and sessions."""
        routes = [Route("/embed/{poll}", self.embed)]
        for prefix in ("", "/p/{poll}", "/s/{code}"):
            routes += [
                Route(prefix or "/", self.page),
                Route(f"{prefix}/present", self.present),
                Route(f"{prefix}/api/results", self.results),
                Route(f"{prefix}/vote", self.ballot),
            ]
        return routes

    async def page(self, request: Request) -> Response:
        """Return the page; with `?ticket=`, set the poll's cookie and redirect to the address without it."""
        found = await self._find(request)
        if ticket := request.query_params.get("ticket"):
            return self._accept_ticket(request, found.channel.poll if found.channel else None, ticket)
        return self._render("result.html", request, found)

    async def present(self, request: Request) -> Response:
        """Return the page for a big screen, with the URL of the ballot, also as a QR code."""
        found = await self._find(request, "view=public")
        url = self._vote_url(request)
        return self._render("present.html", request, found, vote_url=url, qr=self._qr_codes.get(url) or "")

    async def embed(self, request: Request) -> Response:
        """Return the page for an iframe of EMBED_ORIGINS."""
        response = self._render("embed.html", request, await self._find(request, "view=public"))
        response.headers.update(self._embed_headers)
        return response

    async def results(self, request: Request) -> Response:
        found = await self._find(request)
        return JSONResponse(found.feed.snapshot, headers=HEADERS)

    async def ballot(self, request: Request) -> Response:
        return redirect_to_other_service(
            request, self._settings.vote_url, self._settings.vote_port, _session_path(request)
        )

    def _vote_url(self, request: Request) -> str:
        return other_service_url(request, self._settings.vote_url, self._settings.vote_port, _session_path(request))

    async def _find(self, request: Request, query: str | None = None) -> Found:
        """Return what the path names, and read it first if it is not held; or raise a `Problem`.

        Args:
            request: the request.
            query: decides on the audience, in place of the request's own query.
        """
        code = request.path_params.get("code")
        key = Key("session", _code(code)) if code else Key("poll", request.path_params.get("poll", DEFAULT_POLL))
        if loading := self._hub.load(key):
            await asyncio.shield(loading)
        held = self._hub.find(key)
        session = held if isinstance(held, SessionChannel) else None
        poll = held.poll if isinstance(held, Channel) else None
        who = audience(poll, request.url.query if query is None else query, request.headers.getlist("cookie"))
        return Found(session.channel if session else held, session, who, held.feeds[who])  # type: ignore[arg-type]

    def _accept_ticket(self, request: Request, poll: Poll | None, ticket: str) -> Response:
        """Redirect to the page without the ticket; a voter of a session's current poll to the page of that poll."""
        if poll is None or not is_ticket(ticket, poll):
            return RedirectResponse(request.url.path, 303, headers=HEADERS)
        path = (poll.path or "/") if "code" in request.path_params else request.url.path
        return RedirectResponse(path, 303, HEADERS | {"set-cookie": ticket_cookie(poll, secure=self._secure)})

    def _render(self, template: str, request: Request, found: Found, **more: str) -> Response:
        """Return a page; it is rendered once for each language, and kept until what it shows has changed."""
        query = request.scope["query_string"]
        reader = language.negotiate(dict(request.scope["headers"]), query)
        key = (template, request.scope["path"], reader.code, found.audience, *more.values())
        kept, page = self._rendered.pop(key, (None, b""))
        snapshot = found.feed.snapshot
        stamp = found.feed.stamp, int(time.time()) if due(snapshot) else 0  # which is shown as a countdown
        if kept != stamp:
            view = "" if template == "result.html" else "?view=public"
            context = page_context(snapshot, found.channel, request.path_params, view)
            page = self._pages.render(template, reader, **context, **more)
        self._rendered[key] = (stamp, page)  # now the most recently used
        if len(self._rendered) > MAX_PAGES:
            del self._rendered[next(iter(self._rendered))]
        headers = HEADERS | {"content-type": "text/html; charset=utf-8"}
        if code := language.from_query(query):
            headers["set-cookie"] = language.cookie(code).decode()
        return Response(page, headers=headers)


def _session_path(request: Request) -> str:
    """Return the path of a session's ballot; "" if the request is for a poll."""
    code = request.path_params.get("code")
    return f"/{_code(code)}" if code else ""


def _code(text: str) -> str:
    return parse_code(text) or text
