"""What the pages of both web services share: templates, assets, headers, and how a request is refused.

A refusal is one sentence and the way on, in the reader's language: as a page, or for programs as problem details.
https://www.rfc-editor.org/rfc/rfc9457
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from importlib import resources
from typing import Any, Literal

import jinja2
from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from voting.core import language
from voting.core.language import Language, mark

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
    409: mark("The poll has changed"),
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
PROBLEM = "application/problem+json"
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Problem(Exception):
    """A request that is answered with a no.

    Args:
        status: of HTTP.
        reason: a word for the metrics.
        message: a sentence for the reader, in English, with {names} for `values`, or a function that returns it in
            the reader's language; by default the status's own.
        title: of the page; by default the status's own.
        counted: of a vote, whether it may be counted nevertheless.
        again: the form fields of a vote that is worth sending once more.
        cookie: makes the voter known, so that sending again is the same voter.
        retry_after: seconds; None where waiting would not help.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str | Callable[[Language], str] = "",
        *,
        title: str = "",
        counted: Literal["no", "unknown"] = "no",
        again: Mapping[str, str] | None = None,
        cookie: bytes | None = None,
        retry_after: int | None = None,
        **values: object,
    ) -> None:
        super().__init__(reason)
        self.status, self.reason, self.counted, self.again, self.cookie = status, reason, counted, again, cookie
        self.retry_after = 1 if status == 503 else retry_after
        self.title = title or TITLES[status]
        self._message, self._values = message or _MESSAGES[status], values

    def detail(self, reader: Language) -> str:
        """Return the sentence for a reader."""
        if isinstance(self._message, str):
            return reader.text(self._message).format(**self._values)
        return self._message(reader)

    def document(self, reader: Language, method: str) -> bytes:
        """Return the problem details for a program; those of a POST, which is a vote, say whether it is counted."""
        told = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        told |= {"detail": self.detail(reader), "reason": self.reason}
        if method == "POST":
            told["counted"] = self.counted
        return json.dumps(told, ensure_ascii=False).encode()


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
        if prefers_json(headers):
            kind, body = PROBLEM, problem.document(reader, scope["method"])
        else:
            kind = "text/html; charset=utf-8"
            body = self.render("error.html", reader, problem=problem, back_href=back)
        answer = Response(body, problem.status, HEADERS | {"content-type": kind, "content-language": reader.code})
        if problem.retry_after:
            answer.headers["retry-after"] = str(problem.retry_after)
        if problem.cookie:
            answer.headers.append("set-cookie", problem.cookie.decode())
        if asked := language.asked(query):
            answer.headers.append("set-cookie", language.cookie(asked).decode())
        return answer


def fill(text: str, **values: object) -> Markup:
    """Put values into the {places} of a text, each set apart so that its direction of writing stays its own."""
    isolated = {name: Markup("<bdi>{}</bdi>").format(value) for name, value in values.items()}
    return Markup(escape(text)).format(**isolated)  # noqa: S704 - escaped on the spot


def prefers_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a program asks, by Accept: browsers name text/html, and curl's */* gets the page."""
    accept = headers.get(b"accept", b"")
    return (b"application/json" in accept or b"application/problem+json" in accept) and b"text/html" not in accept


def _answer_at_once(send: Send, head: bytes, body: bytes) -> bool:
    """Answer in one write if `send` is Uvicorn's own and nothing has to be waited for; else do nothing, and say False.

    Uvicorn's `send` writes head and body apart, and looks for line ends in each header: a fifth of the work for a vote.

    Args:
        send: as an ASGI application gets it.
        head: status line and headers in their wire form, with no value that comes from the request.
        body: all of it.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.flow.write_paused or cycle.disconnected:
        return False
    ours = [b"%b: %b\r\n" % header for header in cycle.default_headers]
    ours.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
    cycle.transport.write(b"".join([head, *ours, body]))
    cycle.response_started = cycle.response_complete = True
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


async def answer(scope: Scope, send: Send, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Answer 200 with our usual headers and these, of which no value comes from the request."""
    if scope["method"] == "HEAD":
        body = b""
    if not _answer_at_once(send, _OK + _wire(headers), body):
        await send({"type": "http.response.start", "status": 200, "headers": RAW_HEADERS + headers})
        await send({"type": "http.response.body", "body": body})


def application(pages: Pages, routes: list[Any]) -> Starlette:
    """A Starlette application whose refusals look like the rest of the site."""

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # Starlette's own: no such route, not that method
            reason = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
            refusal = pages.refusal(Problem(error.status_code, reason), request.scope)
            refusal.headers.update(error.headers or {})
            return refusal
        assert isinstance(error, Problem)  # noqa: S101 - registered for nothing else
        return pages.refusal(error, request.scope)

    app = Starlette(routes=routes, exception_handlers={HTTPException: refuse, Problem: refuse})
    app.router.redirect_slashes = False  # it would build addresses from whatever Host says
    return app
