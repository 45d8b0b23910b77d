"""The worker: moves votes from the stream into the database. Stateless; run as many as you like.

It talks to both stores and to nothing else. Through an outage of either it keeps trying, with backoff; its
entries stay pending in Redis meanwhile, so nothing is lost if it dies.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.exceptions import RedisError

from voting.broker import stream
from voting.broker.connection import redis_client
from voting.database.connection import OUTAGES, Connection, connect, deadline
from voting.database.status import report_backlog, report_stopped
from voting.service import health, lifecycle, logs, metrics, tracing
from voting.service.lifecycle import Backoff, Stop, pause
from voting.settings.services import WorkerSettings
from voting.settings.urls import redacted
from voting.web.server import listen, serve
from voting.worker.counter import LEAST_BATCH, PATIENCE, Counter
from voting.worker.installation import wait_for_match
from voting.worker.metrics import WorkerMetrics

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder

REPORT_SECONDS = 1.0
READY_SECONDS = 3.0
STORE_OUTAGES = (RedisError, *OUTAGES)

log = logs.get()


class Worker:
    """The two loops of a worker, counting and reporting, and what its probe asks."""

    def __init__(self, settings: WorkerSettings, measures: WorkerMetrics, spans: "SpanRecorder | None" = None) -> None:
        self._settings = settings
        self._metrics = measures
        self._spans = spans
        self._processed = 0
        self._turned = self._reported = float("-inf")

    @property
    def works(self) -> bool:
        """Whether the counting loop came round a moment ago: a batch was counted, or there was none."""
        return time.monotonic() - self._turned < READY_SECONDS

    @property
    def ready(self) -> bool:
        """Whether this worker counts, and has reported to both stores a moment ago."""
        return self.works and time.monotonic() - self._reported < READY_SECONDS

    async def count(self, stop: Stop) -> None:
        """Count, through any outage, until told to stop."""
        settings = self._settings
        backoff = Backoff(0.1, 2)
        batch_size = settings.batch_size
        while not stop.is_set():
            client = redis_client(await settings.reread("redis_url"), timeout=5)
            began = time.monotonic()
            try:
                async with connect(
                    await settings.reread("database_url"), name=settings.worker_name, patience=PATIENCE
                ) as database:
                    if not await wait_for_match(stop, database, client):
                        return
                    log.info("worker.counting", redis=redacted(settings.redis_url))
                    counter = Counter(
                        database, client, settings.worker_name, self._metrics, self._note, spans=self._spans
                    )
                    await counter.run(
                        stop, batch_size=batch_size, most=settings.batch_size, reclaim=settings.reclaim_seconds
                    )
            except STORE_OUTAGES as error:
                too_long = time.monotonic() - max(began, self._turned) > PATIENCE
                least = min(LEAST_BATCH, settings.batch_size)
                batch_size = max(batch_size // 2, least) if too_long else settings.batch_size
                if time.monotonic() - began > READY_SECONDS:
                    backoff.reset()
                wait = backoff.next()
                self._metrics.interruptions.inc()
                log.warning("worker.interrupted", error=f"{type(error).__name__}: {error}", retry_in=round(wait, 2))
                await pause(stop, wait)
            finally:
                await client.aclose()

    async def report(self, stop: Stop) -> None:
        """Tell the database once a second that this worker lives and what waits, on connections of its own."""
        settings = self._settings
        name = settings.worker_name
        while not stop.is_set():
            client = redis_client(await settings.reread("redis_url"), timeout=2)
            url = await settings.reread("database_url")
            try:
                async with connect(url, name=f"{name} report", patience=2) as database:
                    await self._report_each_second(stop, database, client)
            except STORE_OUTAGES as error:
                log.debug("report.interrupted", error=f"{type(error).__name__}: {error}")
                await pause(stop, REPORT_SECONDS)
            finally:
                await client.aclose()

    async def _report_each_second(self, stop: Stop, database: Connection, client: Redis) -> None:
        reported = self._processed
        while not stop.is_set():
            backlog = await stream.backlog(client)
            if backlog:
                processed = self._processed
                async with deadline(database, 2):
                    counted = processed > reported
                    name = self._settings.worker_name
                    await report_backlog(
                        database,
                        name,
                        lag=backlog.lag,
                        pending=backlog.pending,
                        oldest=backlog.oldest,
                        works=self.works,
                        counted=counted,
                    )
                reported = processed
                self._metrics.length.set(backlog.waiting)
                self._metrics.lag.set(backlog.lag)
                self._metrics.pending.set(backlog.pending)
                self._metrics.oldest.set(backlog.oldest)
                self._metrics.missing.set(backlog.missing)
                self._reported = time.monotonic()
            await pause(stop, REPORT_SECONDS)
        async with deadline(database, 2):
            await report_stopped(database, self._settings.worker_name)

    def _note(self, entries: int) -> None:
        self._processed += entries
        self._turned = time.monotonic()


def run(settings: WorkerSettings) -> None:
    """Count until told to stop."""
    lifecycle.run(lambda stop: main(settings, stop))


async def main(settings: WorkerSettings, stop: Stop) -> None:
    """Count and report until told to stop; the batch in hand is finished first."""
    registry = metrics.registry("worker")
    spans = tracing.start(settings, "worker")
    worker = Worker(settings, WorkerMetrics(registry), spans)
    ops = health.private_app(lambda: worker.ready and not stop.is_set(), registry)
    log.info("worker.starting", name=settings.worker_name)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.count(stop))
        tasks.create_task(worker.report(stop))
        tasks.create_task(serve(ops, listen(settings.metrics_listen), stop))
    if spans:
        spans.close()
    log.info("worker.stopped")
