"""What viewers see: the newest snapshot of every poll, encoded once, and sent to each that watches.

None waits for another: a viewer that lags skips to the newest snapshot instead of working off a queue (`Viewer`).
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Container
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from websockets.frames import Frame, Opcode

from voting.database.poll_state import PollState
from voting.result.metrics import ResultMetrics
from voting.service.lifecycle import Stop, pause

if TYPE_CHECKING:
    from voting.result.viewer import Viewer

KEEPALIVE_SECONDS = 15.0  # a snapshot goes out at least this often, so that a viewer notices a dead connection
LOOK_SECONDS = 1.0  # how often the hub looks for viewers that are lost
TURN = 500  # viewers that are served before others get their turn on the event loop
MINUTE = 60

Snapshot = dict[str, Any]


class Channel:
    """One poll: its newest snapshot, the frame that carries it, its viewers, and how many votes each second brought."""

    def __init__(self, metrics: ResultMetrics) -> None:
        self._metrics = metrics
        self.snapshot: Snapshot = {}
        self.frame = b""
        self.pages: dict[tuple[str, ...], bytes] = {}  # rendered from this snapshot and these rates
        self.rates: deque[int] = deque([0] * MINUTE, maxlen=MINUTE)
        self._total: int | None = None
        self._published_at = 0.0
        self._viewers: dict[Viewer, None] = {}  # a set that keeps its order: who came first is served first

    def publish(self, snapshot: Snapshot) -> None:
        """Replace the snapshot."""
        self.snapshot = snapshot
        text = json.dumps(snapshot, ensure_ascii=False, separators=(",", ":"))
        self.frame = Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
        self.pages.clear()
        self._published_at = asyncio.get_running_loop().time()

    def tick(self) -> None:
        """A second has passed."""
        total = self.snapshot["total"]
        self.rates.append(0 if self._total is None else max(0, total - self._total))
        self._total = total
        self.pages.clear()

    def join(self, viewer: "Viewer") -> None:
        """A new viewer gets the current snapshot at once."""
        self._viewers[viewer] = None
        self._metrics.viewers.inc()
        self._metrics.frames.inc(viewer.show(self.frame))

    def leave(self, viewer: "Viewer") -> None:
        """It gets no more."""
        del self._viewers[viewer]
        self._metrics.viewers.dec()

    async def close(self) -> None:
        """Close the connections of all viewers: the poll was deleted."""
        for number, viewer in enumerate(tuple(self._viewers), 1):
            viewer.dismiss()
            if number % TURN == 0:
                await asyncio.sleep(0)

    async def send(self) -> None:
        """Send the snapshot to every viewer that has not got it; those served last may get one that is newer still."""
        sent = 0
        for number, viewer in enumerate(tuple(self._viewers), 1):
            sent += viewer.show(self.frame)
            if number % TURN == 0:
                await asyncio.sleep(0)
        self._metrics.frames.inc(sent)

    async def look(self) -> None:
        """Cut the viewers that are lost, and send everyone a sign of life if there was none for a while."""
        now = asyncio.get_running_loop().time()
        for number, viewer in enumerate(tuple(self._viewers), 1):
            if viewer.is_lost(now):
                self._metrics.cut.inc()
            if number % TURN == 0:
                await asyncio.sleep(0)
        if now - self._published_at > KEEPALIVE_SECONDS:
            self.publish(self.snapshot)
            await self.send()


class Hub:
    """The newest snapshot of every poll, and the viewers that follow them."""

    def __init__(self, metrics: ResultMetrics) -> None:
        self._metrics = metrics
        self._channels: dict[str, Channel] = {}
        self._stale_since: str | None = None
        self._news = asyncio.Event()
        self._deleted: list[Channel] = []

    def channel(self, slug: str) -> Channel | None:
        """The poll's channel; None for a poll that the database has not shown."""
        return self._channels.get(slug)

    @property
    def loaded(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._channels)

    def update(self, standings: list[PollState], kept: Container[str] = ()) -> None:
        """Take over what the database says; viewers are woken only if they have something new to see.

        Args:
            standings: of all polls. The connections of the viewers of any other poll are closed.
            kept: polls whose rows cannot be read now; their last snapshots stay, and say since when they are old.
        """
        self._stale_since = None
        for slug in self._channels.keys() - {standing.poll.slug for standing in standings}:
            channel = self._channels[slug]
            if slug not in kept:
                self._deleted.append(self._channels.pop(slug))
            elif channel.snapshot["stale_since"] is None:
                channel.publish(channel.snapshot | {"stale_since": _now()})
                self._news.set()
        for standing in standings:
            channel = self._channels.setdefault(standing.poll.slug, Channel(self._metrics))
            snapshot = snapshot_of(standing)
            if snapshot != channel.snapshot:
                channel.publish(snapshot)
                self._news.set()

    def tick(self) -> None:
        """A second has passed, for every poll."""
        for channel in self._channels.values():
            channel.tick()

    def mark_stale(self) -> None:
        """The database does not answer: keep showing the last snapshots, and say since when they are old."""
        if self._stale_since is None:
            self._stale_since = _now()
            for channel in self._channels.values():
                channel.publish(channel.snapshot | {"stale_since": self._stale_since})
            self._news.set()

    async def run(self, stop: Stop) -> None:
        """Send what is published, and look after the viewers, until told to stop."""
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send())
            while not stop.is_set():
                while self._deleted:
                    await self._deleted.pop().close()
                for channel in list(self._channels.values()):
                    await channel.look()
                await pause(stop, LOOK_SECONDS)
            sending.cancel()

    async def _send(self) -> None:
        """Rest after sending for half as long as it took: a large audience gets fewer frames, not all the CPU."""
        while True:
            await self._news.wait()
            self._news.clear()
            began = time.monotonic()
            for channel in list(self._channels.values()):
                await channel.send()
            await asyncio.sleep((time.monotonic() - began) / 2)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def snapshot_of(standing: PollState) -> Snapshot:
    """What a viewer gets to see of a poll: the JSON contract of `/api/results` and `/ws`.

    An option that is retired is shown if it has votes after all.
    """
    options = [
        {"key": option.key, "label": option.label, "votes": standing.votes.get(option.key, 0)}
        for option in standing.poll.options
        if not option.retired or standing.votes.get(option.key)
    ]
    paused = standing.paused_since
    return {
        "poll": standing.poll.slug,
        "question": standing.poll.question,
        "revision": standing.revision,
        "options": options,
        "total": sum(option["votes"] for option in options),
        "stale_since": None,
        "waiting": standing.waiting,
        "paused_since": paused and paused.astimezone(UTC).isoformat(timespec="seconds"),
    }
