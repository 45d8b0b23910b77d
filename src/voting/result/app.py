"""The result service: shows the tallies of the database, live on every open page, on port 8081.

It uses PostgreSQL only. During an outage of the database it shows the last numbers, and since when they are stale.
"""

import asyncio

from starlette.applications import Starlette

from voting.result.endpoints import ResultEndpoints
from voting.result.hub import Hub
from voting.result.metrics import ResultMetrics
from voting.result.record_endpoints import RecordEndpoints
from voting.result.viewer_server import ViewerServer
from voting.result.watcher import Watcher
from voting.service import health, lifecycle, logs, metrics, tracing
from voting.service.lifecycle import Stop
from voting.settings.services import ResultSettings
from voting.web.rate_limit import with_rate_limit
from voting.web.rendering import Pages, application
from voting.web.server import connection_limit, listen, serve

log = logs.get()


def create_app(settings: ResultSettings, pages: Pages, hub: Hub, records: RecordEndpoints, stop: Stop) -> Starlette:
    """Return the public application; a `Watcher` updates the hub, and the caller closes the records at the end."""
    endpoints = ResultEndpoints(settings, pages, hub)
    probes = health.probes(lambda: hub.loaded and not stop.is_set())
    return application(pages, [*endpoints.routes(), *records.routes(), pages.route(), *probes])


def run(settings: ResultSettings) -> None:
    """Run the service until SIGTERM or SIGINT."""
    lifecycle.run(lambda stop: main(settings, stop))


async def main(settings: ResultSettings, stop: Stop) -> None:
    """Serve until `stop` is set; viewers' connections are then closed with 1012, and result.js connects again."""
    registry = metrics.registry("result")
    result_metrics = ResultMetrics(registry)
    hub = Hub(result_metrics)
    pages = Pages("voting.result")
    records = RecordEndpoints(settings, pages, hub)
    app = create_app(settings, pages, hub, records, stop)
    recorder = tracing.start(settings, "result")
    private_app = health.private_app(lambda: hub.loaded and not stop.is_set(), registry)
    log.info("result.starting", host=settings.host, port=settings.result_port)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Watcher(settings, hub, result_metrics, recorder).run(stop))
        tasks.create_task(serve(private_app, listen(settings.metrics_listen), stop))
        public = listen(f"{settings.host}:{settings.result_port}")
        tasks.create_task(hub.run(stop))
        limited = with_rate_limit(app, settings, pages, result_metrics.limited.inc)
        limit = connection_limit(settings.max_connections, shared=bool(settings.trusted_proxies))
        viewers = ViewerServer(settings, hub, result_metrics).viewer
        tasks.create_task(serve(limited, public, stop, limit=limit, on_rejection=result_metrics.reject, ws=viewers))
    await records.close()
    recorder.close()
    log.info("result.stopped")
