"""Reads the tallies from the database into the hub: after each NOTIFY, and at least once a second.

A NOTIFY may be lost, so only the reads are relied on. There is at most one in `FRAME_SECONDS`: a single vote is on
screen in milliseconds, and a burst of any size costs the database some sixty small reads a second. During an outage of
the database, the hub keeps its last snapshots, marked as stale.
"""

import asyncio
import time

from voting.database.connection import NOTIFY_CHANNEL, OUTAGES, Connection, connect, deadline
from voting.database.poll_state import poll_states
from voting.result.hub import Hub
from voting.result.metrics import ResultMetrics
from voting.service import logs
from voting.service.lifecycle import Backoff, Stop, pause
from voting.service.tracing import OFF, Recorder
from voting.settings.services import ResultSettings
from voting.settings.urls import redacted

FRAME_SECONDS = 0.016  # between two frames of a display
POLL_SECONDS = 1.0  # between two reads without a NOTIFY
DATABASE_TIMEOUT = 2.0  # seconds; viewers learn within three that the numbers are stale

log = logs.get()


class Watcher:
    """Updates a hub from the database."""

    def __init__(self, settings: ResultSettings, hub: Hub, metrics: ResultMetrics, recorder: Recorder = OFF) -> None:
        self._settings, self._hub, self._metrics, self._recorder = settings, hub, metrics, recorder
        self._read_at = float("-inf")
        self._bad = logs.BadPollLog()
        metrics.age.set_function(lambda: time.monotonic() - self._read_at)

    async def run(self, stop: Stop) -> None:
        """Read until `stop` is set; after an outage, connect again with backoff."""
        backoff = Backoff(0.1, 1)
        while not stop.is_set():
            url = await self._settings.reread("database_url")
            try:
                async with connect(url, name="result", timeout=DATABASE_TIMEOUT) as database:
                    log.info("database.connected", database=redacted(url))
                    backoff.reset()
                    await self._watch(database, stop)
            except OUTAGES as error:
                self._hub.mark_stale()
                self._metrics.interruptions.inc()
                log.warning("database.lost", error=f"{type(error).__name__}: {error}")
                await pause(stop, backoff.next())

    async def _watch(self, database: Connection, stop: Stop) -> None:
        async with deadline(database, DATABASE_TIMEOUT):
            await database.execute(f"LISTEN {NOTIFY_CHANNEL}")
        rates_at = time.monotonic()
        hints: list[str] = []
        while not stop.is_set():
            began, began_ns = time.monotonic(), time.time_ns()
            async with deadline(database, DATABASE_TIMEOUT):
                states, bad = await poll_states(database)
            self._bad.log(bad)
            self._hub.update(states, unreadable=bad)
            self._recorder.record_snapshot(hints, began_ns)
            self._read_at = time.monotonic()
            while rates_at + 1 <= self._read_at:
                rates_at += 1
                self._hub.record_rates()
            await asyncio.sleep(max(0.0, began + FRAME_SECONDS - time.monotonic()))
            hints = [hint.payload async for hint in database.notifies(timeout=POLL_SECONDS, stop_after=1)]
