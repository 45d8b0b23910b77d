"""How the API receives a request: who makes it, then its content type, then its fields; and what endpoints get."""

import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Query
from fastapi.routing import APIRoute
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from voting.admin.identity import Identity
from voting.admin.services import Services
from voting.web.language import translatable
from voting.web.problems import Problem

sys.modules.setdefault("pydantic.v1", None)  # type: ignore[arg-type] # FastAPI looks for its models: 1.5 MiB
_NOT_JSON = translatable("Send the body as application/json.")


class ApiRoute(APIRoute):
    """A route that refuses callers without a key before it reads what they have sent."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def respond(request: Request) -> Response:
            services: Services = request.app.state.services
            request.state.identity = await services.identify(request)
            if self.body_field and not _is_json(request.headers.get("content-type", "")):
                raise Problem(415, "content_type", _NOT_JSON)
            return await handle(request)

        return respond


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _identity(request: Request) -> Identity:
    found: Identity = request.state.identity
    return found


def _services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Who = Annotated[Identity, Depends(_identity)]
Uses = Annotated[Services, Depends(_services)]
After = Annotated[str | None, Query(description="Where the page begins: from `next` of the page before.")]
Limit = Annotated[int, Field(ge=1, le=100, description="How many at most.")]


def next_page(path: str, limit: int, cursor: object) -> str | None:
    """Return the address of the next page of a list; None without a cursor."""
    return None if cursor is None else f"{path}?limit={limit}&after={cursor}"
