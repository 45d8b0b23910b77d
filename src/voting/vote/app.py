"""The vote service: takes votes on port 8080 and puts them on the stream. It talks to Redis alone.

It says yes only to a vote that Redis has on disk. While Redis is away it answers 503 at once, and takes
votes again by itself within a second of Redis coming back.
"""

import asyncio
import time
from socket import socket
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from voting.service import health, logs, metrics, tracing
from voting.service.lifecycle import Stop, pause
from voting.settings.services import VoteSettings
from voting.vote.endpoint import VoteEndpoint
from voting.vote.metrics import VoteMetrics
from voting.vote.prefork import Processes, available_cores
from voting.web.origin import redirect_to_other_service
from voting.web.rate_limit import with_rate_limit
from voting.web.rendering import Pages, application
from voting.web.server import connection_limit, listen, serve

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder

OPENING_SECONDS = 1.0  # that the first voters may wait for the first answer of Redis

log = logs.get()


def create_app(
    settings: VoteSettings, pages: Pages, booth: VoteEndpoint, stop: Stop, spans: "SpanRecorder | None" = None
) -> ASGIApp:
    """The public application; `booth.box.run()` must run beside it."""
    ballot = spans.ballot(booth) if spans else booth

    async def results(request: Request) -> Response:
        return redirect_to_other_service(request, settings.result_url, settings.result_port)

    others = application(
        pages,
        [
            Route("/", ballot, methods=["GET", "POST"]),  # for the answer to other methods
            Route("/p/{poll}", ballot, methods=["GET", "POST"]),
            Route("/results", results),
            Route("/p/{poll}/results", results),
            pages.route(),
            *health.probes(lambda: booth.box.ready and not stop.is_set()),
        ],
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The ballot goes the short way: routing would be a seventh of the work for a vote.
        is_ballot = scope["path"] == "/" and scope["method"] in {"POST", "GET"}
        await (ballot if is_ballot else others)(scope, receive, send)

    return app


def run(settings: VoteSettings) -> None:
    """Serve votes in as many processes as WEB_CONCURRENCY says, all on the same sockets, until told to stop."""
    public, private = listen(f"{settings.host}:{settings.vote_port}"), listen(settings.metrics_listen)
    number = available_cores() if settings.web_concurrency == "auto" else settings.web_concurrency
    Processes(lambda stop: main(settings, stop, public, private), metrics.process_ended).run(number)


async def main(settings: VoteSettings, stop: Stop, public: socket, private: socket) -> None:
    """Serve votes until told to stop; then finish those in flight."""
    registry = metrics.registry("vote")
    pages = Pages("voting.vote")
    measures = VoteMetrics(registry)
    spans = tracing.start(settings, "vote")
    booth = VoteEndpoint(settings, pages, measures, spans)
    app = create_app(settings, pages, booth, stop, spans)
    ops = health.ops_app(lambda: booth.box.ready and not stop.is_set(), registry)
    log.info("vote.starting", host=settings.host, port=settings.vote_port)
    async with asyncio.TaskGroup() as tasks:
        carrying = tasks.create_task(booth.box.run())
        async with asyncio.TaskGroup() as servers:
            servers.create_task(serve(ops, private, stop))
            await _opening(booth, stop)
            front = with_rate_limit(app, settings, pages, measures.limited.inc)
            limit = connection_limit(settings.max_connections, shared=bool(settings.trusted_proxies))
            servers.create_task(serve(front, public, stop, limit=limit, on_rejection=measures.reject))
        carrying.cancel()  # only now: what was in flight has its answer
    if spans:
        spans.close()
    log.info("vote.stopped")


async def _opening(booth: VoteEndpoint, stop: Stop) -> None:
    """Wait until votes would be accepted, but not long; who comes meanwhile has to wait, and is not refused."""
    latest = time.monotonic() + OPENING_SECONDS
    while not booth.box.ready and not stop.is_set() and time.monotonic() < latest:
        await pause(stop, 0.02)
