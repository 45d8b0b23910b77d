"""What the pages of both web services share: templates, assets, headers, and how a request is refused.

A refusal is one sentence and the way on, in the reader's language, as a page or for programs as JSON.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope, Send

from voting.core import language
from voting.core.language import Language, mark
from voting.core.protocol import answer_at_once

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


def _wire(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


_OK = b"HTTP/1.1 200 OK\r\n" + _wire(RAW_HEADERS)

TITLES = {
    400: mark("Not understood"),
    403: mark("Not allowed"),
    404: mark("Not here"),
    405: mark("Not like this"),
    413: mark("Too large"),
    415: mark("Not a form"),
    429: mark("Too many requests"),
    503: mark("Not just now"),
}
_MESSAGES = {
    400: mark("The address in this request cannot be right. Open the poll's page instead."),
    404: mark("There is no such page or poll. Check the address, or go back to the poll."),
    405: mark("This address does not take that kind of request. Open the poll's page instead."),
    429: mark("Too much has come from your address. Wait a moment, then try again."),
    503: mark("There is nothing to show yet. Please try again in a moment."),
}
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Problem(Exception):
    """A request that is answered with a no.

    Args:
        status: of HTTP.
        reason: a word for the metrics.
        message: a sentence for the reader, in English, with {names} for `values`; by default the status's own.
        again: the choice whose vote is worth sending once more.
        retry_after: seconds; None where waiting would not help.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str = "",
        *,
        again: str = "",
        retry_after: int | None = None,
        **values: object,
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.again = status, reason, again
        self.retry_after = 1 if status == 503 else retry_after
        self.message, self.values = message or _MESSAGES[status], values


class Pages:
    """The pages of one service: its own templates and assets, over those of `core`.

    Assets have their fingerprint in their name, so browsers may keep them for a year.
    """

    def __init__(self, package: str) -> None:
        self._assets: dict[str, Response] = {}
        urls: dict[str, str] = {}
        for folder in ("voting.core", package):
            for file in (resources.files(folder) / "pages").iterdir():
                stem, _, suffix = file.name.rpartition(".")
                if suffix in _TYPES:
                    body = file.read_bytes()
                    name = f"{stem}-{hashlib.sha256(body).hexdigest()[:8]}.{suffix}"
                    headers = {"cache-control": "public, max-age=31536000, immutable", "content-type": _TYPES[suffix]}
                    self._assets[name] = Response(body, headers=HEADERS | headers)
                    urls[file.name] = f"/static/{name}"
        loader = jinja2.ChoiceLoader([jinja2.PackageLoader(folder, "pages") for folder in (package, "voting.core")])
        self._templates = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        self._templates.globals |= {"asset": urls.__getitem__, "names": language.NAMES}
        self._templates.filters["fill"] = fill

    def render(self, template: str, reader: Language, **context: Any) -> bytes:
        """The bytes of a page for a reader of that language."""
        words = {"language": reader, "_": reader.text, "count": reader.count, "forms": reader.forms}
        return self._templates.get_template(template).render(words | context).encode()

    def route(self) -> Route:
        """Where the assets are."""

        async def static(request: Request) -> Response:
            asset = self._assets.get(request.path_params["name"])
            if asset is None:
                raise HTTPException(404)
            return asset

        return Route("/static/{name}", static)

    def refusal(self, problem: Problem, scope: Scope, back: str = "/") -> Response:
        """The answer to a request that has a problem: JSON for programs, else a page that leads `back`."""
        headers, query = dict(scope["headers"]), scope["query_string"]
        reader = language.choose(headers, query)
        message = reader.text(problem.message).format(**problem.values)
        extra = {"retry-after": str(problem.retry_after)} if problem.retry_after else {}
        if prefers_json(headers):
            error = {"code": problem.status, "message": message}
            return Response(
                json.dumps({"error": error}, ensure_ascii=False),
                problem.status,
                HEADERS | extra | {"content-type": "application/json"},
            )
        if asked := language.asked(query):
            extra["set-cookie"] = language.cookie(asked).decode()
        context = {"status": problem.status, "title": reader.text(TITLES[problem.status]), "message": message}
        page = self.render("error.html", reader, back_href=back, again=problem.again, **context)
        return Response(page, problem.status, HEADERS | extra | {"content-type": "text/html; charset=utf-8"})


def fill(text: str, **values: object) -> Markup:
    """Put values into the {places} of a text, each set apart so that its direction of writing stays its own."""
    isolated = {name: Markup("<bdi>{}</bdi>").format(value) for name, value in values.items()}
    return Markup(escape(text)).format(**isolated)  # noqa: S704 - escaped on the spot


def prefers_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a program asks, by Accept: browsers name text/html, and curl's */* gets the page."""
    accept = headers.get(b"accept", b"")
    return b"application/json" in accept and b"text/html" not in accept


async def answer(scope: Scope, send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Answer 200 with our usual headers and these, of which no value comes from the request."""
    if scope["method"] == "HEAD":
        body = b""
    if not answer_at_once(send, _OK + _wire(headers), body):
        await send({"type": "http.response.start", "status": 200, "headers": RAW_HEADERS + headers})
        await send({"type": "http.response.body", "body": body})


def application(pages: Pages, routes: list[Any]) -> Starlette:
    """A Starlette application whose refusals look like the rest of the site."""

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # Starlette's own: no such route, not that method
            refusal = pages.refusal(Problem(error.status_code, "http"), request.scope)
            refusal.headers.update(error.headers or {})
            return refusal
        assert isinstance(error, Problem)  # noqa: S101 - registered for nothing else
        return pages.refusal(error, request.scope)

    app = Starlette(routes=routes, exception_handlers={HTTPException: refuse, Problem: refuse})
    app.router.redirect_slashes = False  # it would build addresses from whatever Host says
    return app
