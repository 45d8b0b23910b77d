"""The result service: shows on port 8081 what the database says, live on every open page. It talks to PostgreSQL alone.

While the database is away it keeps showing the last numbers, and says since when they are old.
"""

import asyncio

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from voting.core import health, lifecycle, logs, metrics
from voting.core.ballot import DEFAULT_POLL
from voting.core.config import ResultSettings
from voting.core.lifecycle import Stop
from voting.core.web import HEADERS, Pages, application, listen, neighbour, same_site, serve
from voting.result.hub import Channel, Hub, shares, viewer_protocol
from voting.result.watcher import Watcher

PING_SECONDS = 10

log = logs.get()


def create_app(settings: ResultSettings, pages: Pages, hub: Hub, stop: Stop) -> Starlette:
    """The public application; a `Watcher` must run beside it."""

    def find(connection: Request | WebSocket) -> Channel:
        channel = hub.channel(connection.path_params.get("poll", DEFAULT_POLL))
        if channel is None:
            raise HTTPException(404 if hub.loaded else 503, headers={} if hub.loaded else {"retry-after": "1"})
        return channel

    async def page(request: Request) -> Response:
        channel = find(request)
        snapshot = channel.snapshot
        prefix = request.url.path.rstrip("/")
        context = {
            "snapshot": snapshot,
            "shares": shares([option["votes"] for option in snapshot["options"]]),
            "rates": list(channel.rates),
            "ws_path": f"{prefix}/ws",
            "vote_href": f"{prefix}/vote",
        }
        body = pages.render("result.html", **context)
        return Response(body, headers=HEADERS | {"content-type": "text/html; charset=utf-8"})

    async def results(request: Request) -> Response:
        return JSONResponse(find(request).snapshot, headers=HEADERS)

    async def ballot(request: Request) -> Response:
        return neighbour(request, settings.vote_url, settings.vote_port)

    async def follow(socket: WebSocket) -> None:
        channel = hub.channel(socket.path_params.get("poll", DEFAULT_POLL))
        if channel is None or not same_site(dict(socket.scope["headers"]), settings.allowed_origins):
            await socket.close()  # before accept: the client gets 403
            return
        await hub.attend(socket, channel)

    def routes(prefix: str) -> list[Route | WebSocketRoute]:
        return [
            Route(prefix or "/", page),
            Route(f"{prefix}/api/results", results),
            WebSocketRoute(f"{prefix}/ws", follow),
            Route(f"{prefix}/vote", ballot),
        ]

    probes = health.probes(lambda: hub.loaded and not stop.is_set())
    return application(pages, [*routes(""), *routes("/p/{poll}"), pages.route(), *probes])


def run(settings: ResultSettings) -> None:
    """Show results until told to stop."""
    lifecycle.run(lambda stop: main(settings, stop))


async def main(settings: ResultSettings, stop: Stop) -> None:
    """Show results until told to stop; viewers are told to come back (1012)."""
    registry = metrics.registry("result")
    measures = metrics.ResultMetrics(registry)
    hub = Hub(measures)
    app = create_app(settings, Pages("voting.result"), hub, stop)
    ops = health.ops_app(lambda: hub.loaded and not stop.is_set(), registry)
    log.info("result.starting", host=settings.host, port=settings.result_port)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Watcher(settings, hub, measures).run(stop))
        tasks.create_task(serve(ops, listen(settings.metrics_listen), stop))
        tasks.create_task(
            serve(
                app,
                listen(f"{settings.host}:{settings.result_port}"),
                stop,
                ws=viewer_protocol(measures),
                ws_max_size=1024,
                ws_ping_interval=PING_SECONDS,
                ws_ping_timeout=PING_SECONDS - 2,
                ws_per_message_deflate=False,
            )
        )
    log.info("result.stopped")
