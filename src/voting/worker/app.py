"""The worker: moves votes from the stream into the database. It is stateless; any number of workers may run.

After any failure it drops its connections, backs off, and resumes with its own pending entries. Entries stay pending in
Redis until they are counted, so none is lost if a worker dies.
"""

import asyncio
import time

from redis.exceptions import NoPermissionError, RedisError

from voting.broker import stream
from voting.broker.connection import RIGHTS_FIX, redis_client
from voting.broker.stream import Backlog
from voting.database.connection import OUTAGES, Connection, connect, deadline
from voting.database.status import report_backlog, report_stopped
from voting.polls.vote_parser import VoteParser
from voting.service import health, lifecycle, logs, metrics, tracing
from voting.service.lifecycle import Backoff, Stop, pause
from voting.service.tracing import OFF, Recorder
from voting.settings.services import WorkerSettings
from voting.settings.urls import redacted
from voting.web.server import listen, serve
from voting.worker import definitions
from voting.worker.closer import RoundCloser
from voting.worker.counter import DATABASE_TIMEOUT, VoteCounter
from voting.worker.definitions import DefinitionPublisher
from voting.worker.installation import wait_for_match
from voting.worker.metrics import WorkerMetrics

REPORT_SECONDS = 1.0
REPORT_TIMEOUT = 2.0  # seconds; time limit of each store for a report
READY_SECONDS = 3.0  # maximum age of the last batch and the last report of a worker that is ready
MIN_BATCH_SIZE = 50  # entries; after a timeout, counting begins again with half the batch size, but at least this
STORE_OUTAGES = (RedisError, *OUTAGES)

log = logs.get()


class Worker:
    """The loops of a worker, which count, report, and publish definitions; and its readiness."""

    def __init__(self, settings: WorkerSettings, worker_metrics: WorkerMetrics, recorder: Recorder = OFF) -> None:
        self._settings, self._metrics, self._recorder = settings, worker_metrics, recorder
        self._parser = VoteParser()
        self._closer = RoundCloser(settings)
        self._processed = 0
        self._last_batch = self._last_report = float("-inf")

    @property
    def is_counting(self) -> bool:
        """Whether the counting loop has finished a batch, which may be empty, within `READY_SECONDS`."""
        return time.monotonic() - self._last_batch < READY_SECONDS

    @property
    def ready(self) -> bool:
        """Whether this worker counts, and has reported within `READY_SECONDS`."""
        return self.is_counting and time.monotonic() - self._last_report < READY_SECONDS

    async def count(self, stop: Stop) -> None:
        """Count until `stop` is set; after an outage connect again, with backoff."""
        backoff = Backoff(0.1, 2)
        batch_size = max_batch_size = self._settings.batch_size
        while not stop.is_set():
            started = time.monotonic()
            try:
                await self._count_until_outage(stop, batch_size)
            except STORE_OUTAGES as error:
                timed_out = time.monotonic() - max(started, self._last_batch) > DATABASE_TIMEOUT  # without a batch
                smaller = max(batch_size // 2, min(MIN_BATCH_SIZE, max_batch_size))
                batch_size = smaller if timed_out else max_batch_size  # perhaps the batch was too large
                if time.monotonic() - started > READY_SECONDS:  # an attempt as long as this may be repeated soon
                    backoff.reset()
                wait = backoff.next()
                self._metrics.interruptions.inc()
                log.warning("worker.interrupted", error=f"{type(error).__name__}: {error}", retry_in=round(wait, 2))
                await pause(stop, wait)

    async def _count_until_outage(self, stop: Stop, batch_size: int) -> None:
        settings, name = self._settings, self._settings.worker_name
        async with redis_client(await settings.reread("redis_url"), timeout=5) as client:
            url = await settings.reread("database_url")
            async with connect(url, name=name, timeout=DATABASE_TIMEOUT) as database:
                if not await wait_for_match(stop, database, client):
                    return
                log.info("worker.counting", redis=redacted(settings.redis_url))
                counter = VoteCounter(
                    database,
                    client,
                    name,
                    self._metrics,
                    self._on_batch_done,
                    parser=self._parser,
                    recorder=self._recorder,
                )
                await counter.run(stop, batch_size, settings.batch_size, settings.reclaim_seconds)

    def _on_batch_done(self, entries: int) -> None:
        self._processed += entries
        self._last_batch = time.monotonic()

    async def report(self, stop: Stop) -> None:
        """Report once a second, on separate connections, until `stop` is set; after an outage connect again."""
        while not stop.is_set():
            try:
                await self._report_until_outage(stop)
            except STORE_OUTAGES as error:
                log.debug("report.interrupted", error=f"{type(error).__name__}: {error}")
                await pause(stop, REPORT_SECONDS)

    async def _report_until_outage(self, stop: Stop) -> None:
        settings, name = self._settings, self._settings.worker_name
        async with redis_client(await settings.reread("redis_url"), timeout=REPORT_TIMEOUT) as client:
            url = await settings.reread("database_url")
            async with connect(url, name=f"{name} report", timeout=REPORT_TIMEOUT) as database:
                reported = self._processed
                while not stop.is_set():
                    backlog = await stream.backlog(client)
                    if backlog:
                        processed = self._processed
                        await self._write_report(database, backlog, has_counted=processed > reported)
                        reported = processed
                    await pause(stop, REPORT_SECONDS)
                async with deadline(database, REPORT_TIMEOUT):
                    await report_stopped(database, name)

    async def _write_report(self, database: Connection, backlog: Backlog, *, has_counted: bool) -> None:
        name, lag, pending, oldest = self._settings.worker_name, backlog.lag, backlog.pending, backlog.oldest
        state = {"is_counting": self.is_counting, "has_counted": has_counted}
        async with deadline(database, REPORT_TIMEOUT):
            await report_backlog(database, name, lag=lag, pending=pending, oldest=oldest, **state)
        self._metrics.length.set(backlog.waiting)
        self._metrics.lag.set(lag)
        self._metrics.pending.set(pending)
        self._metrics.oldest.set(oldest)
        self._metrics.removed.set(backlog.removed)
        self._last_report = time.monotonic()

    async def publish(self, stop: Stop) -> None:
        """Publish definitions and keep the schedule, on separate connections; after an outage connect again."""
        backoff = Backoff(0.1, 2)
        while not stop.is_set():
            started = time.monotonic()
            try:
                await self._publish_until_outage(stop)
            except STORE_OUTAGES as error:
                if time.monotonic() - started > READY_SECONDS:
                    backoff.reset()
                wait = backoff.next()
                fix = {"fix": RIGHTS_FIX} if isinstance(error, NoPermissionError) else {}
                cause = f"{type(error).__name__}: {error}"
                log.warning("definitions.interrupted", error=cause, retry_in=round(wait, 2), **fix)
                await pause(stop, wait)

    async def _publish_until_outage(self, stop: Stop) -> None:
        settings, name = self._settings, self._settings.worker_name
        async with redis_client(await settings.reread("redis_url"), timeout=definitions.TIMEOUT) as client:
            url = await settings.reread("database_url")
            async with connect(url, name=f"{name} definitions", timeout=definitions.TIMEOUT) as database:
                if await wait_for_match(stop, database, client):
                    await DefinitionPublisher(database, client, self._parser, self._closer.wake).run(stop)

    async def close_rounds(self, stop: Stop) -> None:
        """Seal rounds that have closed, and make them final."""
        await self._closer.run(stop)


def run(settings: WorkerSettings) -> None:
    """Run the worker until SIGTERM or SIGINT."""
    lifecycle.run(lambda stop: main(settings, stop))


async def main(settings: WorkerSettings, stop: Stop) -> None:
    """Count, report and publish until `stop` is set; then finish the current batches."""
    registry = metrics.registry("worker")
    recorder = tracing.start(settings, "worker")
    worker = Worker(settings, WorkerMetrics(registry), recorder)
    private_app = health.private_app(lambda: worker.ready and not stop.is_set(), registry)
    log.info("worker.starting", name=settings.worker_name)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.count(stop))
        tasks.create_task(worker.report(stop))
        tasks.create_task(worker.publish(stop))
        tasks.create_task(worker.close_rounds(stop))
        tasks.create_task(serve(private_app, listen(settings.metrics_listen), stop))
    recorder.close()
    log.info("worker.stopped")
