"""Keeps the hub up to date with the database, on two connections: one listens to notifications, the other reads.

Only what is held and was notified is read, at most once in `FRAME_SECONDS`: a single vote is on screen in milliseconds,
and a burst of any size costs the database some sixty small reads a second. A NOTIFY may be lost, so revisions are
compared once a second. During an outage of the database, the hub keeps its last snapshots, marked as stale.
"""

import asyncio
import time
from collections.abc import Awaitable

from voting.database.connection import (
    DEFINITIONS_CHANNEL,
    NOTIFY_CHANNEL,
    OUTAGES,
    Connection,
    connect,
    deadline,
)
from voting.result.audience import AudienceWriter
from voting.result.demand import Key
from voting.result.hub import Hub
from voting.result.metrics import ResultMetrics
from voting.result.reader import Reader
from voting.service import logs
from voting.service.lifecycle import Backoff, Stop, pause
from voting.service.tracing import OFF, Recorder
from voting.settings.services import ResultSettings
from voting.settings.urls import redacted

FRAME_SECONDS = 0.016  # between two frames of a display
POLL_SECONDS = 1.0  # between two comparisons of revisions
LISTEN_SECONDS = 5.0  # between two checks that the connection that listens is alive
DATABASE_TIMEOUT = 2.0  # seconds; viewers learn within three that the numbers are stale

log = logs.get()


class Watcher:
    """Updates a hub from the database."""

    def __init__(self, settings: ResultSettings, hub: Hub, metrics: ResultMetrics, recorder: Recorder = OFF) -> None:
        self._settings, self._hub, self._metrics, self._recorder = settings, hub, metrics, recorder
        self._reader, self._audience = Reader(hub), AudienceWriter(hub)
        self._hints: dict[str, None] = {}  # payloads of NOTIFY since the last read, for the traces that they name
        self._read_at = float("-inf")
        metrics.age.set_function(lambda: time.monotonic() - self._read_at)

    async def run(self, stop: Stop) -> None:
        """Read until `stop` is set; after an outage, connect again with backoff."""
        backoff = Backoff(0.1, 1)
        while not stop.is_set():
            url = await self._settings.reread("database_url")
            try:
                async with (
                    connect(url, name="result", timeout=DATABASE_TIMEOUT) as database,
                    connect(url, name="result listener", timeout=DATABASE_TIMEOUT) as listener,
                ):
                    log.info("database.connected", database=redacted(url))
                    backoff.reset()
                    await self._watch(database, listener, stop)
            except* OUTAGES as group:
                error = group.exceptions[0]
                self._hub.mark_stale()
                self._metrics.interruptions.inc()
                log.warning("database.lost", error=f"{type(error).__name__}: {error}")
                await pause(stop, backoff.next())
        self._hub.close()

    async def _watch(self, database: Connection, listener: Connection, stop: Stop) -> None:
        async with deadline(listener, DATABASE_TIMEOUT):
            await listener.execute(f"LISTEN {NOTIFY_CHANNEL}")
            await listener.execute(f"LISTEN {DEFINITIONS_CHANNEL}")
        self._hub.refresh()
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(self._mark_outage(self._listen(listener)))
            await self._mark_outage(self._read(database, stop))
            listening.cancel()
        async with deadline(database, DATABASE_TIMEOUT):
            await self._audience.delete(database)

    async def _mark_outage(self, work: Awaitable[None]) -> None:
        """Mark the snapshots as stale as soon as an outage ends the work.

        The task group then cancels its other task, and psycopg may wait five seconds for the silent server to cancel
        the statement in it.
        """
        try:
            await work
        except OUTAGES:
            self._hub.mark_stale()
            raise

    async def _listen(self, listener: Connection) -> None:
        """Add what is notified to the demand."""
        checked_at = time.monotonic()  # when the server was last heard from
        while True:
            async for notify in listener.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                if notify.channel == NOTIFY_CHANNEL:
                    slugs, is_traced, _ = notify.payload.partition(" ")
                    for slug in slugs.split(","):
                        self._hub.hint(Key("poll", slug), urgent=False)
                    if is_traced:
                        self._hints[notify.payload] = None
                elif key := Key.parse(notify.payload):
                    self._hub.hint(key, urgent=True)
                checked_at = time.monotonic()
            if time.monotonic() - checked_at > LISTEN_SECONDS:
                async with deadline(listener, DATABASE_TIMEOUT):
                    await listener.execute("SELECT 1")
                checked_at = time.monotonic()
            await asyncio.sleep(FRAME_SECONDS)  # further notifications are taken together

    async def _read(self, database: Connection, stop: Stop) -> None:
        next_check = rates_at = time.monotonic()
        while not stop.is_set():
            began, began_ns = time.monotonic(), time.time_ns()
            hints, self._hints = list(self._hints), {}
            async with deadline(database, DATABASE_TIMEOUT):
                if began >= next_check:
                    await self._reader.check(database)
                    await self._audience.write(database, began)
                    next_check = began + POLL_SECONDS
                await self._reader.read(database)
            self._recorder.record_snapshot(hints, began_ns)
            self._read_at = time.monotonic()
            while rates_at + 1 <= self._read_at:
                rates_at += 1
                self._hub.record_rates()
            await asyncio.sleep(max(0.0, began + FRAME_SECONDS - time.monotonic()))
            await self._hub.demand.wait(next_check - time.monotonic())
