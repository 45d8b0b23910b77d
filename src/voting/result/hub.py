"""The newest snapshot of every poll, encoded once and sent to all its viewers.

No viewer waits for another. There is no queue: a viewer that is slow skips snapshots and gets the newest (`Viewer`).
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Container
from datetime import UTC, datetime
from typing import Any, Protocol

from websockets.frames import Frame, Opcode

from voting.database.poll_state import PollState
from voting.result.metrics import ResultMetrics
from voting.service.lifecycle import Stop, pause

KEEPALIVE_SECONDS = 15.0  # a snapshot is sent at least this often, so that a viewer notices a dead connection
CHECK_SECONDS = 1.0  # between two checks for deleted polls and due keepalives
SENDS_PER_YIELD = 500  # viewers that get a frame before the event loop runs other tasks
RATES_SECONDS = 60
CLOSE_POLL_DELETED = 4404  # a private close code (RFC 6455, section 7.4.2), unlike 1001, which proxies also send

Snapshot = dict[str, Any]


class Subscriber(Protocol):
    """A connection to which a channel sends its frames."""

    def send(self, frame: bytes) -> bool:
        """Send a frame and return True; return False if this frame was sent before, or nothing can be sent now."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection, with a close code of RFC 6455."""


class Channel:
    """One poll: its newest snapshot, the frame that carries it, its subscribers, and the votes of each second."""

    def __init__(self, metrics: ResultMetrics) -> None:
        self._metrics = metrics
        self.snapshot: Snapshot = {}
        self.frame = b""
        self.pages: dict[tuple[str, ...], bytes] = {}  # by template, path, language, and links in it
        self.rates: deque[int] = deque([0] * RATES_SECONDS, maxlen=RATES_SECONDS)
        self._last_total: int | None = None
        self._published_at = 0.0
        self._subscribers: dict[Subscriber, None] = {}  # an ordered set: the first to subscribe is served first

    def publish(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; `broadcast` sends it."""
        self.snapshot = snapshot
        text = json.dumps(snapshot, ensure_ascii=False, separators=(",", ":"))
        self.frame = Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
        self.pages.clear()
        self._published_at = asyncio.get_running_loop().time()

    def record_rate(self) -> None:
        total = self.snapshot["total"]
        self.rates.append(0 if self._last_total is None else max(0, total - self._last_total))
        self._last_total = total
        self.pages.clear()

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers[subscriber] = None
        self._metrics.viewers.inc()
        self._metrics.frames.inc(subscriber.send(self.frame))

    def unsubscribe(self, subscriber: Subscriber) -> None:
        del self._subscribers[subscriber]
        self._metrics.viewers.dec()

    async def close(self) -> None:
        """Close the connections of all subscribers of a deleted poll; result.js then reloads the page."""
        for number, subscriber in enumerate(tuple(self._subscribers), 1):
            subscriber.close(CLOSE_POLL_DELETED, "this poll was deleted")
            if number % SENDS_PER_YIELD == 0:
                await asyncio.sleep(0)

    async def broadcast(self) -> None:
        """Send the snapshot to each subscriber that does not have it; later ones may get a newer snapshot."""
        sent = 0
        for number, subscriber in enumerate(tuple(self._subscribers), 1):
            sent += subscriber.send(self.frame)
            if number % SENDS_PER_YIELD == 0:
                await asyncio.sleep(0)
        self._metrics.frames.inc(sent)

    async def keep_alive(self) -> None:
        """Send the snapshot again if nothing was published for `KEEPALIVE_SECONDS`."""
        if asyncio.get_running_loop().time() - self._published_at > KEEPALIVE_SECONDS:
            self.publish(self.snapshot)  # a new frame object, which `Subscriber.send` treats as not sent
            await self.broadcast()


class Hub:
    """The channels of all polls."""

    def __init__(self, metrics: ResultMetrics) -> None:
        self._metrics = metrics
        self._channels: dict[str, Channel] = {}
        self._stale_since: str | None = None
        self._changed = asyncio.Event()  # a snapshot was replaced
        self._deleted: list[Channel] = []

    def find_channel(self, slug: str) -> Channel | None:
        return self._channels.get(slug)

    @property
    def loaded(self) -> bool:
        """Whether the database has been read, and has a poll."""
        return bool(self._channels)

    def update(self, states: list[PollState], unreadable: Container[str] = ()) -> None:
        """Replace the snapshots that have changed. Close the connections of viewers of polls that are not in `states`.

        The last snapshots of polls in `unreadable` (slugs of invalid rows) are kept and marked as stale.
        """
        self._stale_since = None
        for slug in self._channels.keys() - {state.poll.slug for state in states}:
            channel = self._channels[slug]
            if slug not in unreadable:
                self._deleted.append(self._channels.pop(slug))
            elif channel.snapshot["stale_since"] is None:
                channel.publish(channel.snapshot | {"stale_since": _now()})
                self._changed.set()
        for state in states:
            channel = self._channels.setdefault(state.poll.slug, Channel(self._metrics))
            snapshot = snapshot_of(state)
            if snapshot != channel.snapshot:
                channel.publish(snapshot)
                self._changed.set()

    def record_rates(self) -> None:
        """Append the votes of the last second to the rates of every poll; called once a second."""
        for channel in self._channels.values():
            channel.record_rate()

    def mark_stale(self) -> None:
        """Add to each snapshot that it is stale, because the database does not respond."""
        if self._stale_since is None:
            self._stale_since = _now()
            for channel in self._channels.values():
                channel.publish(channel.snapshot | {"stale_since": self._stale_since})
            self._changed.set()

    async def run(self, stop: Stop) -> None:
        """Send published snapshots, and close the connections of viewers of deleted polls, until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            broadcasting = tasks.create_task(self._broadcast())
            while not stop.is_set():
                while self._deleted:
                    await self._deleted.pop().close()
                for channel in list(self._channels.values()):
                    await channel.keep_alive()
                await pause(stop, CHECK_SECONDS)
            broadcasting.cancel()

    async def _broadcast(self) -> None:
        """Send changes. Then pause half as long as sending took, so that sending to many viewers leaves CPU time."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            began = time.monotonic()
            for channel in list(self._channels.values()):
                await channel.broadcast()
            await asyncio.sleep((time.monotonic() - began) / 2)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def snapshot_of(state: PollState) -> Snapshot:
    """Return the JSON of `/api/results` and `/ws`; it includes a retired option only if that has votes."""
    options = [
        {"key": option.key, "label": option.label, "votes": state.votes.get(option.key, 0)}
        for option in state.poll.options
        if not option.retired or state.votes.get(option.key)
    ]
    paused = state.paused_since
    return {
        "poll": state.poll.slug,
        "question": state.poll.question,
        "revision": state.revision,
        "options": options,
        "total": sum(option["votes"] for option in options),
        "stale_since": None,
        "waiting": state.waiting,
        "paused_since": paused and paused.astimezone(UTC).isoformat(timespec="seconds"),
    }
