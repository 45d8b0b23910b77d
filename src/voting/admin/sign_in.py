"""Signing in: the link with the admin key, the link of a host, and pages that need one of them.

`signed_in` wraps the endpoint of each page. Both links set a cookie that is not sent when a page of another site leads
here (SameSite=Strict); such a visitor first gets a tiny page of ours that loads the same address again.
"""

from collections.abc import Awaitable, Callable
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from voting.admin.access import COOKIE_SECONDS, require_this_site
from voting.admin.identity import Identity
from voting.admin.services import Services
from voting.web import language
from voting.web.language import translatable
from voting.web.problems import Problem

PageEndpoint = Callable[[Request, Identity], Awaitable[Response]]


def signed_in(services: Services, endpoint: PageEndpoint) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint of Starlette that calls `endpoint` with who makes the request."""

    async def respond(request: Request) -> Response:
        if request.method in {"GET", "HEAD"} and (key := request.query_params.get("key")):
            return await _use_key(services, request, key)
        try:
            identity = await services.identify(request)
        except Problem as problem:
            if problem.status == 401 and _comes_from_another_site(request):
                return _load_again(request)
            raise
        return await endpoint(request, identity)

    return respond


def host_route(services: Services) -> Route:
    """Return the route of host links, which lead on to the control page of their session."""

    async def use_link(request: Request) -> Response:
        return await _use_key(services, request, request.path_params["token"])

    return Route("/host/{token}", use_link)


async def sign_in_form(services: Services, request: Request, key: str) -> Response:
    """Return the answer to a key that was typed into the form of our own page, or raise the 401, 403 or 429."""
    require_this_site(dict(request.scope["headers"]), services.settings.allowed_origins)
    return await _use_key(services, request, key)


async def _use_key(services: Services, request: Request, key: str) -> Response:
    identity = await services.access.check_key(key)
    if identity is None:
        services.access.refuse_key(services.address(request))
    if identity.role == "admin":
        name, value, path = "admin", services.access.admin_cookie(), "/"
    else:
        name, value, path = "host", key, f"/sessions/{identity.session}/control"
    response = RedirectResponse(path, 303)
    secure = services.is_secure(request)
    response.set_cookie(name, value, COOKIE_SECONDS, path="/", secure=secure, httponly=True, samesite="strict")
    return response


def _comes_from_another_site(request: Request) -> bool:
    headers = request.headers
    is_navigation = headers.get("sec-fetch-mode") == "navigate" and request.method == "GET"
    return is_navigation and headers.get("sec-fetch-site") in {"cross-site", "same-site"}


def _load_again(request: Request) -> Response:
    reader = language.negotiate(dict(request.scope["headers"]), request.scope["query_string"])
    text = escape(reader.text(translatable("Continue")))
    return HTMLResponse(
        f'<!doctype html><html lang="{reader.code}"><meta charset="utf-8"><meta http-equiv="refresh" content="0">'
        f'<title>{text}</title><p><a href="">{text}</a></p></html>'
    )
