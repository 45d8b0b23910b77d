"""From the database to the hub: NOTIFY is a hint, asking once a second the truth.

After a hint the tallies are read at once, then not again before `FRAME_SECONDS` have passed; so a lone vote is on
screen in milliseconds, and a burst costs the database and each viewer some sixty small reads a second
however many votes it has. While the database is away the hub keeps its last snapshots, marked stale.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from voting.database.connection import NOTIFY_CHANNEL, OUTAGES, Connection, connect, deadline
from voting.database.poll_state import poll_states
from voting.result.hub import Hub
from voting.result.metrics import ResultMetrics
from voting.service import logs
from voting.service.lifecycle import Backoff, Stop, pause
from voting.settings.services import ResultSettings
from voting.settings.urls import redacted

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder

FRAME_SECONDS = 0.016  # a display's own pace
POLL_SECONDS = 1.0
PATIENCE = 2.0  # seconds that the database may take; viewers learn of staleness within three

log = logs.get()


class Watcher:
    """Keeps a hub in step with the database."""

    def __init__(
        self, settings: ResultSettings, hub: Hub, metrics: ResultMetrics, spans: "SpanRecorder | None" = None
    ) -> None:
        self._settings = settings
        self._hub = hub
        self._metrics = metrics
        self._spans = spans
        self._read_at = float("-inf")
        self._bad = logs.BadPollLog()
        metrics.age.set_function(lambda: time.monotonic() - self._read_at)

    async def run(self, stop: Stop) -> None:
        """Watch, through any outage, until told to stop."""
        backoff = Backoff(0.1, 1)
        while not stop.is_set():
            url = await self._settings.reread("database_url")
            try:
                async with connect(url, name="result", patience=PATIENCE) as database:
                    log.info("database.connected", database=redacted(url))
                    backoff.reset()
                    await self._watch(database, stop)
            except OUTAGES as error:
                self._hub.mark_stale()
                self._metrics.interruptions.inc()
                log.warning("database.lost", error=f"{type(error).__name__}: {error}")
                await pause(stop, backoff.next())

    async def _watch(self, database: Connection, stop: Stop) -> None:
        async with deadline(database, PATIENCE):
            await database.execute(f"LISTEN {NOTIFY_CHANNEL}")
        second = time.monotonic()
        hints: list[str] = []
        while not stop.is_set():
            began, moment = time.monotonic(), time.time_ns()
            async with deadline(database, PATIENCE):
                standings, bad = await poll_states(database)
            self._bad.log(bad)
            self._hub.update(standings, kept=bad)
            if self._spans:
                self._spans.record_snapshot(hints, moment)
            self._read_at = time.monotonic()
            while second + 1 <= self._read_at:
                second += 1
                self._hub.tick()
            await asyncio.sleep(max(0.0, began + FRAME_SECONDS - time.monotonic()))
            hints = [hint.payload async for hint in database.notifies(timeout=POLL_SECONDS, stop_after=1)]
