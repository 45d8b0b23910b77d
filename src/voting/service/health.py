"""Probes: is the process alive, can it do its work, and what does it measure.

`/livez` answers while the process's event loop turns. `/readyz` is 200 while the service's own check holds and
it is not stopping, else 503. `/metrics` is for Prometheus and never on a public port.
"""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from voting.service.metrics import exposition


def probes(is_ready: Callable[[], bool]) -> list[Route]:
    """The routes `/livez` and `/readyz`."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ready\n") if is_ready() else PlainTextResponse("not ready\n", 503)

    return [Route("/livez", livez), Route("/readyz", readyz)]


def ops_app(is_ready: Callable[[], bool], registry: CollectorRegistry) -> Starlette:
    """What a service answers on its private port, METRICS_LISTEN."""

    async def metrics(_: Request) -> Response:
        return Response(exposition(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[*probes(is_ready), Route("/metrics", metrics)])
