"""Templates and assets of the pages, and the responses to refused requests.

Such a response is one sentence and a link in the reader's language, or problem details for a program (RFC 9457).
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

from voting.polls.state import is_over
from voting.web import language
from voting.web.language import Language
from voting.web.problems import PROBLEM_JSON, Problem
from voting.web.responses import HEADERS, prefers_json

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Pages:
    """Templates and assets in the folder `pages` of a service's package, else in that of `voting.web`.

    The name of an asset has a hash of its content, so browsers may cache it for a year.
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
        self._templates.globals |= {"asset": urls.__getitem__, "names": language.NAMES, "is_over": is_over}
        self._templates.filters["fill"] = fill

    def render(self, template: str, reader: Language, **context: Any) -> bytes:
        texts = {"language": reader, "_": reader.text, "count": reader.count, "forms": reader.forms}
        return self._templates.get_template(template).render(texts | context).encode()

    def route(self) -> Route:

        async def static(request: Request) -> Response:
            asset = self._assets.get(request.path_params["name"])
            if asset is None:
                raise HTTPException(404)
            return asset

        return Route("/static/{name}", static)

    def refusal(self, problem: Problem, scope: Scope, back: str = "/") -> Response:
        """Return the response to a refused request: JSON for programs, else a page with a link to `back`."""
        headers, query = dict(scope["headers"]), scope["query_string"]
        reader = language.negotiate(headers, query)
        if prefers_json(headers):
            content_type, body = PROBLEM_JSON, problem.document(reader, scope["method"])
        else:
            content_type = "text/html; charset=utf-8"
            body = self.render("error.html", reader, problem=problem, back_href=back)
        response_headers = HEADERS | {"content-type": content_type, "content-language": reader.code}
        response = Response(body, problem.status, response_headers)
        if problem.retry_after:
            response.headers["retry-after"] = str(problem.retry_after)
        if problem.cookie:
            response.headers.append("set-cookie", problem.cookie.decode())
        if code := language.from_query(query):
            response.headers.append("set-cookie", language.cookie(code).decode())
        return response


def fill(text: str, **values: object) -> Markup:
    """Replace each {name} in a text by its value in a bdi element, which isolates its writing direction."""
    isolated = {name: Markup("<bdi>{}</bdi>").format(value) for name, value in values.items()}
    return Markup(escape(text)).format(**isolated)  # noqa: S704 - escaped here


def application(pages: Pages, routes: list[Any]) -> Starlette:
    """Return a Starlette application that responds to its own errors, and to each `Problem`, with `Pages.refusal`."""

    async def refuse(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):  # no such route or method
            reason = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
            refusal = pages.refusal(Problem(error.status_code, reason), request.scope)
            refusal.headers.update(error.headers or {})
            return refusal
        assert isinstance(error, Problem)  # noqa: S101 - the only other exception that is registered
        return pages.refusal(error, request.scope)

    app = Starlette(routes=routes, exception_handlers={HTTPException: refuse, Problem: refuse})
    app.router.redirect_slashes = False  # the redirect would go to the host in Host
    return app
