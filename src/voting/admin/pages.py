"""How pages are made, and the pages that belong to no poll or session: the list, the log, and signing in."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from babel.dates import format_datetime
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from voting.admin import reads
from voting.admin.forms import read_form
from voting.admin.identity import ADMIN, Identity
from voting.admin.services import Services
from voting.admin.sign_in import PageEndpoint, sign_in_form, signed_in
from voting.database.audit import Head, fingerprint, read_head
from voting.polls.poll import DEFAULT_POLL
from voting.web import language
from voting.web.addresses import is_loopback
from voting.web.problems import Problem
from voting.web.qr import QrCodes

POLLS_SHOWN, SESSIONS_SHOWN, CHANGES_SHOWN = 20, 10, 50


class PageMaker:
    """Makes pages and their routes."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._codes = QrCodes()

    def route(self, path: str, endpoint: PageEndpoint, *methods: str) -> Route:
        """Return the route of a page for those who are signed in, by default for GET."""
        return Route(path, signed_in(self.services, endpoint), methods=[*methods] or ["GET"])

    def show(
        self, request: Request, who: Identity | None, template: str, status: int = 200, **context: Any
    ) -> Response:
        """Return a page in the reader's language; `?lang=` stores the choice."""
        query = request.scope["query_string"]
        reader = language.negotiate(dict(request.scope["headers"]), query)

        def moment(at: datetime) -> str:
            return f"{format_datetime(at.astimezone(UTC), 'd MMM y, HH:mm', locale=reader.code)} UTC"

        common = {"who": who, "here": request.url.path, "moment": moment, "default_poll": DEFAULT_POLL}
        body = self.services.pages.render(template, reader, **common, **context)
        response = Response(body, status, {"content-language": reader.code}, "text/html; charset=utf-8")
        if code := language.from_query(query):
            response.headers.append("set-cookie", language.cookie(code).decode())
        return response

    def invitation(self, url: str) -> dict[str, Any]:
        """Return what a page shows to let others come to an address: the address, its QR code, a warning."""
        return {
            "url": url,
            "text": url.partition("://")[2].rstrip("/"),
            "qr": self._codes.get(url),
            "is_local": is_loopback(urlsplit(url).hostname or ""),
        }


def see(path: str) -> Response:
    """Return the answer to a form that was accepted: see this page."""
    return RedirectResponse(path, 303)


def routes(maker: PageMaker) -> list[BaseRoute]:
    """Return the routes of these pages."""
    services = maker.services

    async def home(request: Request, who: Identity) -> Response:
        if who.role == "host":
            return see(f"/sessions/{who.session}/control")
        after, sessions_after = request.query_params.get("after"), request.query_params.get("sessions")
        async with services.database.read() as connection:
            sessions, more_sessions = await reads.session_list(
                connection, who, limit=SESSIONS_SHOWN, after=sessions_after or None
            )
            polls, more = await reads.poll_list(connection, who, limit=POLLS_SHOWN, after=after or None)
            is_first = not (after or sessions_after)
            running = await reads.open_polls(connection, who) if is_first else []
        shown = {poll["slug"] for poll in running}
        links = services.links(request)
        return maker.show(
            request,
            who,
            "home.html",
            running=_with_links(running, links),
            polls=_with_links([poll for poll in polls if poll["slug"] not in shown], links),
            is_empty=is_first and not more and all(poll["slug"] == DEFAULT_POLL for poll in polls),
            sessions=[session | links.of_session(session["code"]) for session in sessions],
            is_first=is_first,
            more=more,
            more_sessions=more_sessions,
        )

    async def audit(request: Request, who: Identity) -> Response:
        after = request.query_params.get("after", "")
        number = int(after) if after.isdecimal() and after.isascii() and len(after) < 19 else None
        async with services.database.read() as connection:
            entries, more = await reads.audit_list(connection, who, limit=CHANGES_SHOWN, after=number)
            known = await reads.some_polls(connection, list(_slugs(entries)))
            head = await read_head(connection)
        questions = {poll["slug"]: poll["question"] for poll in known}
        return maker.show(request, who, "audit.html", entries=entries, questions=questions, more=more, **_shown(head))

    async def ask_for_key(request: Request) -> Response:
        try:
            who = await services.identify(request)
        except Problem:
            return maker.show(request, None, "sign_in.html", problem=None)
        return see("/") if who == ADMIN else see(f"/sessions/{who.session}/control")

    async def take_key(request: Request) -> Response:
        key = (await read_form(request)).get("key").strip()
        try:
            return await sign_in_form(services, request, key)
        except Problem as problem:
            if problem.status != 401:
                raise
            return maker.show(request, None, "sign_in.html", 401, problem=problem)

    return [
        maker.route("/", home),
        maker.route("/audit", audit),
        Route("/sign-in", ask_for_key),
        Route("/sign-in", take_key, methods=["POST"]),
    ]


def _shown(head: Head) -> dict[str, Any]:
    return {"newest": head.id, "fingerprint": fingerprint(head.hash)}


def _slugs(entries: list[dict[str, Any]]) -> set[str]:
    """Return the slugs that some entries of the audit log name."""
    named = {entry["poll"] for entry in entries}
    for detail in (entry["detail"] for entry in entries):
        named |= {detail.get("current"), detail.get("of"), *detail.get("polls", [])}
    return {slug for slug in named if slug}


def _with_links(polls: list[dict[str, Any]], links: Any) -> list[Mapping[str, Any]]:
    return [poll | links.of_poll(poll["slug"]) for poll in polls]
