"""What the pages of both web services share: templates, assets, headers, and how a request is refused.

A refusal is one sentence and the way on, in the reader's language: as a page, or for programs as problem details.
https://www.rfc-editor.org/rfc/rfc9457
"""

import hashlib
from http import HTTPStatus
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from voting.web import language
from voting.web.answers import HEADERS, prefers_json
from voting.web.language import Language
from voting.web.problems import PROBLEM, Problem

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Pages:
    """The pages of one service: its own templates and assets, over those of `core`.

    Assets have their fingerprint in their name, so browsers may keep them for a year.
    """

    def __init__(self, package: str) -> None:
        self._assets: dict[str, Response] = {}
        urls: dict[str, str] = {}
        for folder in ("voting.web", package):
            for file in (resources.files(folder) / "pages").iterdir():
                stem, _, suffix = file.name.rpartition(".")
                if suffix in _TYPES:
                    body = file.read_bytes()
                    name = f"{stem}-{hashlib.sha256(body).hexdigest()[:8]}.{suffix}"
                    headers = {"cache-control": "public, max-age=31536000, immutable", "content-type": _TYPES[suffix]}
                    self._assets[name] = Response(body, headers=HEADERS | headers)
                    urls[file.name] = f"/static/{name}"
        loader = jinja2.ChoiceLoader([jinja2.PackageLoader(folder, "pages") for folder in (package, "voting.web")])
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
        reader = language.negotiate(headers, query)
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
        if asked := language.from_query(query):
            answer.headers.append("set-cookie", language.cookie(asked).decode())
        return answer


def fill(text: str, **values: object) -> Markup:
    """Put values into the {places} of a text, each set apart so that its direction of writing stays its own."""
    isolated = {name: Markup("<bdi>{}</bdi>").format(value) for name, value in values.items()}
    return Markup(escape(text)).format(**isolated)  # noqa: S704 - escaped on the spot


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
