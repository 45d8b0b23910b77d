"""The vote service: accepts votes on port 8080 and publishes them on the Redis stream. It connects to Redis only.

A vote is accepted only when Redis has it on disk. While Redis is unreachable, the service responds with 503 at once; it
accepts votes again within a second after Redis is back.
"""

import asyncio
import time
from socket import socket

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from voting.polls.session import parse_code
from voting.service import health, logs, metrics, tracing
from voting.service.lifecycle import Stop, pause
from voting.service.tracing import OFF, Recorder
from voting.settings.services import VoteSettings
from voting.vote.endpoint import VoteEndpoint
from voting.vote.metrics import VoteMetrics
from voting.vote.prefork import ProcessManager, available_cores
from voting.vote.redirects import join_route, result_routes
from voting.web.rate_limit import with_rate_limit
from voting.web.rendering import Pages, application
from voting.web.server import connection_limit, listen, serve

STARTUP_SECONDS = 1.0  # longest wait of the first requests for the first reply of Redis

log = logs.get()


def create_app(
    settings: VoteSettings, pages: Pages, endpoint: VoteEndpoint, stop: Stop, recorder: Recorder = OFF
) -> ASGIApp:
    """Return the application of the public port; run `endpoint.run()` as a task while it serves."""
    ballot = recorder.trace_posts(endpoint)

    router = application(
        pages,
        [
            Route("/", ballot, methods=["GET", "POST"]),  # responds to other methods with 405
            Route("/p/{poll}", ballot, methods=["GET", "POST"]),
            join_route(pages),
            pages.route(),
            *health.probes(lambda: endpoint.ready and not stop.is_set()),
            *result_routes(settings),
        ],
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # The default poll bypasses the router, which would be a seventh of the work for a vote.
        is_ballot = scope["path"] == "/" and scope["method"] in {"POST", "GET"}
        if not is_ballot and (code := parse_code(scope["path"][1:])):  # of a session
            scope["path_params"] = {"code": code}
            is_ballot = True
        await (ballot if is_ballot else router)(scope, receive, send)

    return app


def run(settings: VoteSettings) -> None:
    """Serve votes in WEB_CONCURRENCY processes that share their sockets, until SIGTERM or SIGINT."""
    public, private = listen(f"{settings.host}:{settings.vote_port}"), listen(settings.metrics_listen)
    number = available_cores() if settings.web_concurrency == "auto" else settings.web_concurrency
    ProcessManager(lambda stop: main(settings, stop, public, private), metrics.process_ended).run(number)


async def main(settings: VoteSettings, stop: Stop, public: socket, private: socket) -> None:
    """Serve votes until `stop` is set; then finish the requests in flight."""
    registry = metrics.registry("vote")
    pages = Pages("voting.vote")
    vote_metrics = VoteMetrics(registry)
    recorder = tracing.start(settings, "vote")
    endpoint = VoteEndpoint(settings, pages, vote_metrics, recorder)
    app = create_app(settings, pages, endpoint, stop, recorder)
    private_app = health.private_app(lambda: endpoint.ready and not stop.is_set(), registry)
    log.info("vote.starting", host=settings.host, port=settings.vote_port)
    async with asyncio.TaskGroup() as tasks:
        endpoint_task = tasks.create_task(endpoint.run())
        async with asyncio.TaskGroup() as servers:
            servers.create_task(serve(private_app, private, stop))
            await _wait_until_ready(endpoint, stop)
            limited_app = with_rate_limit(app, settings, pages, vote_metrics.limited.inc)
            limit = connection_limit(settings.max_connections, shared=bool(settings.trusted_proxies))
            servers.create_task(serve(limited_app, public, stop, limit=limit, on_rejection=vote_metrics.reject))
        endpoint_task.cancel()  # last, when every request in flight has its response
    recorder.close()
    log.info("vote.stopped")


async def _wait_until_ready(endpoint: VoteEndpoint, stop: Stop) -> None:
    """Wait until votes would be accepted, at most `STARTUP_SECONDS`; until then connections wait in the backlog."""
    deadline = time.monotonic() + STARTUP_SECONDS
    while not endpoint.ready and not stop.is_set() and time.monotonic() < deadline:
        await pause(stop, 0.02)
