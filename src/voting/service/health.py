"""Liveness, readiness and metrics over HTTP.

`/livez` responds while the event loop runs. `/readyz` is 200 while the service can do its work and is not stopping,
else 503. `/metrics` is for Prometheus and never on a public port.
"""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from voting.service.metrics import exposition


def probes(is_ready: Callable[[], bool]) -> list[Route]:
    """Return the routes `/livez` and `/readyz`."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ready\n") if is_ready() else PlainTextResponse("not ready\n", 503)

    return [Route("/livez", livez), Route("/readyz", readyz)]


def private_app(is_ready: Callable[[], bool], registry: CollectorRegistry) -> Starlette:
    """Return the application of a service's private address, METRICS_LISTEN."""

    async def metrics(_: Request) -> Response:
        return Response(exposition(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[*probes(is_ready), Route("/metrics", metrics)])
