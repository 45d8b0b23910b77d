"""What the web services share: listening and draining, page rendering, assets, errors, and the same-site check."""

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from voting.core.lifecycle import Stop

DRAIN_SECONDS = 8

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

MESSAGES = {
    400: ("Not understood", "The address in this request cannot be right. Open the poll's page instead."),
    404: ("Not here", "There is no such page or poll. Check the address, or go back to the poll."),
    405: ("Not like this", "This address does not take that kind of request. Open the poll's page instead."),
    503: ("Not yet", "There is nothing to show yet. Please try again in a moment."),
}
_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Server(uvicorn.Server):
    """Uvicorn, with its signals left to `lifecycle`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield


def listen(address: str) -> socket.socket:
    """Open a listening socket at `host:port`, or at `unix:/path` for this user alone.

    Raises:
        OSError: the address is taken or not ours.
    """
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(64)
        return sock
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    return sock


async def serve(app: ASGIApp, sock: socket.socket, stop: Stop, **options: Any) -> None:
    """Serve on a listening socket until told to stop; then take no more connections, and finish what is in flight."""
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        workers=1,  # or uvicorn would read WEB_CONCURRENCY, which is our own setting
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        **({"ws": "none"} | options),
    )
    server = Server(config)

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        await server.serve(sockets=[sock])
    finally:
        ending.cancel()


class Pages:
    """The pages of one service: its own templates and assets, over those of `core`.

    Assets have their fingerprint in their name, so browsers may keep them for a year.
    """

    def __init__(self, package: str) -> None:
        self._assets: dict[str, Response] = {}
        self._urls: dict[str, str] = {}
        for folder in ("voting.core", package):
            for file in (resources.files(folder) / "pages").iterdir():
                stem, _, suffix = file.name.rpartition(".")
                if suffix in _TYPES:
                    body = file.read_bytes()
                    name = f"{stem}-{hashlib.sha256(body).hexdigest()[:8]}.{suffix}"
                    headers = {"cache-control": "public, max-age=31536000, immutable", "content-type": _TYPES[suffix]}
                    self._assets[name] = Response(body, headers=HEADERS | headers)
                    self._urls[file.name] = f"/static/{name}"
        loader = jinja2.ChoiceLoader([jinja2.PackageLoader(folder, "pages") for folder in (package, "voting.core")])
        self._templates = jinja2.Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        self._templates.globals["asset"] = self._urls.__getitem__

    def render(self, template: str, **context: Any) -> bytes:
        """The bytes of a page."""
        return self._templates.get_template(template).render(context).encode()

    def route(self) -> Route:
        """Where the assets are."""

        async def static(request: Request) -> Response:
            asset = self._assets.get(request.path_params["name"])
            if asset is None:
                raise HTTPException(404)
            return asset

        return Route("/static/{name}", static)

    def problem(self, accept: str, status: int, title: str, message: str, back: str) -> tuple[bytes, str]:
        """An error as (body, content type), in JSON for those who ask for it, else as a page."""
        if prefers_json(accept):
            return json.dumps({"error": {"code": status, "message": message}}).encode(), "application/json"
        page = self.render(
            "error.html", status=status, title=title, message=message, back_href=back, back_text="Back to the poll"
        )
        return page, "text/html; charset=utf-8"


def prefers_json(accept: str) -> bool:
    """Whether an Accept header asks for JSON; browsers name text/html, and curl's */* gets the page."""
    return "application/json" in accept and "text/html" not in accept


def application(pages: Pages, routes: list[Any]) -> Starlette:
    """A Starlette application whose own refusals (404, 405) look like the rest of the site."""

    async def refuse(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title, message = MESSAGES.get(status, ("Something went wrong", "Please try again."))
        body, kind = pages.problem(request.headers.get("accept", ""), status, title, message, "/")
        headers = HEADERS | {"content-type": kind} | dict(getattr(error, "headers", None) or {})
        return Response(body, status, headers)

    app = Starlette(routes=routes, exception_handlers={HTTPException: refuse})
    app.router.redirect_slashes = False  # it would build addresses from whatever Host says
    return app


def same_site(headers: Mapping[bytes, bytes], allowed_origins: tuple[str, ...]) -> bool:
    """Whether a request can be one that our own page, or no page at all, has sent.

    Browsers say where a request comes from in Sec-Fetch-Site and Origin; a program without them is no browser and
    carries nobody's cookie. Behind a proxy that changes Host, ALLOWED_ORIGINS names the public address.
    https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
    """
    origin = headers.get(b"origin")
    if origin is not None:
        if origin.decode("latin-1") in allowed_origins:
            return True
        if origin.partition(b"://")[2] != headers.get(b"host"):
            return False
    return headers.get(b"sec-fetch-site", b"none") in {b"same-origin", b"none"}


def neighbour_url(request: Request, url: str, port: int) -> str:
    """Where the other web service is: at its public address if that is set, else on the same host at its port."""
    if not url:
        try:
            host = request.url.hostname or "localhost"
        except ValueError:  # Host can be anything
            raise HTTPException(400) from None
        url = f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    slug = request.path_params.get("poll")
    return url.rstrip("/") + (f"/p/{slug}" if slug else "/")


def neighbour(request: Request, url: str, port: int) -> RedirectResponse:
    """Lead to the other web service."""
    return RedirectResponse(neighbour_url(request, url, port), 302, headers={"cache-control": "no-store"})
