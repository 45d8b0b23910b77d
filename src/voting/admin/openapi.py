"""The OpenAPI document, made from the code, and the page that shows it."""

import re
from functools import cached_property
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route, compile_path

from voting import __version__
from voting.admin.docs import sections
from voting.settings.services import AdminSettings
from voting.web import language
from voting.web.origin import service_url
from voting.web.rendering import Pages

DESCRIPTION = """Everything that the pages of the admin service do, for programs.

Send the key as `Authorization: Bearer KEY`. The secret in the link of a host is a key for one session.
A refusal is a problem as RFC 9457 defines it, with a `reason` for programs; 422 names each wrong field in `errors`.
503 with the reason `database_away` changed nothing; with `unknown`, look whether the change was made."""

PROBLEM_SCHEMA = {
    "title": "Problem",
    "description": "A refusal: RFC 9457.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "reason"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for people."},
        "reason": {"type": "string", "description": "An identifier for programs."},
        "errors": {
            "type": "array",
            "description": "With 422: each field that is wrong, such as `options.3`.",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
REFUSALS = {
    400: "The request is not valid HTTP (`malformed`), its Host is not valid (`host`), or its body cannot be read "
    "(`bad_request`).",
    401: "The key is missing (`no_key`) or wrong (`wrong_key`).",
    403: "The link of a host does not allow this (`host`), or the request comes from another site (`cross_site`).",
    404: "There is no such poll (`unknown_poll`), round (`unknown_round`) or session (`unknown_session`).",
    408: "The request was not complete in time (`request_timeout`).",
    409: "The poll cannot go to this state (`transition`), was opened (`not_draft`), is closed (`closed`), has votes "
    "(`has_votes`), is the default poll (`default_poll`), cannot be read (`bad_poll`), is the last of the session "
    "(`last_poll`) or not in it (`not_in_session`), or its address is taken (`slug_taken`). "
    "Voting codes: there are none (`no_codes`), the poll does not ask for any (`not_with_codes`), they are those of "
    "another session or poll (`session_codes`, `poll_codes`), an open poll uses them (`codes_in_use`), they would be "
    "too many (`too_many_codes`, `too_many_changes`), or they cannot be read (`bad_codes`).",
    412: "It has changed since you loaded it (`changed`).",
    413: "The body is too large (`too_large`).",
    415: "The body is not application/json (`content_type`).",
    422: "A field is missing or wrong (`invalid`): `errors` names it.",
    429: "Too many requests or wrong keys from your address (`rate_limit`).",
    431: "The head of the request is too large (`header_fields`).",
    503: "Not now: nothing was changed (`database_away`, `connections`), or it is not known (`unknown`).",
}
ALWAYS = (400, 401, 403, 408, 413, 422, 429, 431, 503)
_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    429: {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
    503: {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}},
}
SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "The admin key, or the secret in a host link."},
    "cookie": {"type": "apiKey", "in": "cookie", "name": "admin", "description": "Set by the link with the key."},
}


class OpenApi:
    """The document of an application, and its routes: `/openapi.json` and `/docs`."""

    def __init__(self, app: FastAPI, settings: AdminSettings, pages: Pages) -> None:
        self._app, self._settings, self._pages = app, settings, pages

    @cached_property
    def document(self) -> dict[str, Any]:
        document = get_openapi(
            title="Voting: admin", version=__version__, description=DESCRIPTION, routes=self._app.routes
        )
        components = document.setdefault("components", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["schemas"]["Problem"] = PROBLEM_SCHEMA
        components["securitySchemes"] = SCHEMES
        components["responses"] = {str(status): _refusal(status) for status in REFUSALS}
        document["security"] = [{name: []} for name in SCHEMES]
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                operation.setdefault("parameters", [])
                answers = operation["responses"]
                answers |= {
                    str(each): {"$ref": f"#/components/responses/{each}"} for each in _statuses(path, method, operation)
                }
                operation["responses"] = dict(sorted(answers.items()))
        return document

    @cached_property
    def _paths(self) -> list[tuple[re.Pattern[str], str]]:
        paths: dict[str, dict[str, Any]] = self.document["paths"]
        return [(compile_path(path)[0], ", ".join(methods).upper()) for path, methods in paths.items()]

    def methods(self, path: str) -> str | None:
        """Return the methods of a path, as in `Allow`; None if it is none of the API."""
        return next((methods for pattern, methods in self._paths if pattern.match(path)), None)

    def routes(self) -> list[BaseRoute]:
        return [Route("/openapi.json", self._send_document), Route("/docs", self._send_page)]

    async def _send_document(self, _: Request) -> Response:
        return JSONResponse(self.document)

    async def _send_page(self, request: Request) -> Response:
        reader = language.negotiate(dict(request.scope["headers"]), request.scope["query_string"])
        host = request.scope["scheme"], request.headers.get("host", "")
        url = service_url(*host, self._settings.admin_url, self._settings.admin_port)
        shown = sections(self.document, url)
        return HTMLResponse(self._pages.render("docs.html", reader, api=self.document, sections=shown))


def _refusal(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    headers = {"headers": _HEADERS[status]} if status in _HEADERS else {}
    return {"description": REFUSALS[status], "content": content} | headers


def _statuses(path: str, method: str, operation: dict[str, Any]) -> list[int]:
    """Return the statuses with which an operation can be refused."""
    found = list(ALWAYS)
    found += [404] * ("{" in path)
    found += [409] * (method != "get" or "{slug}" in path or "/codes" in path)
    found += [415] * ("requestBody" in operation)
    found += [412] * any(each["name"] == "if-match" for each in operation.get("parameters", []))
    return found
