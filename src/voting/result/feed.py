"""A snapshot, encoded once, and the connections that get it whenever it changes.

No subscriber waits for another. There is no queue: one that is slow skips snapshots and gets the newest (`Viewer`).
"""

import asyncio
import itertools
import json
import time
from typing import Protocol

from websockets.frames import Frame, Opcode

from voting.result.metrics import ResultMetrics
from voting.result.snapshot import Snapshot

KEEPALIVE_SECONDS = 15.0  # a snapshot is sent at least this often, so that a viewer notices a dead connection
SENDS_PER_YIELD = 500  # viewers that get a frame before the event loop runs other tasks
_stamps = itertools.count()


class Subscriber(Protocol):
    """A connection to which a feed sends its frames."""

    def send(self, frame: bytes) -> bool:
        """Send a frame and return True; return False if this frame was sent before, or nothing can be sent now."""

    def close(self, code: int, reason: str) -> None:
        """Close the connection, with a close code of RFC 6455."""


class Outbox:
    """The feeds that have published and have not sent yet."""

    def __init__(self, metrics: ResultMetrics) -> None:
        self.metrics = metrics
        self._feeds: dict[Feed, None] = {}
        self._changed = asyncio.Event()

    def add(self, feed: "Feed") -> None:
        self._feeds[feed] = None
        self._changed.set()

    async def run(self) -> None:
        """Send until cancelled. Pause half as long as sending took, so that sending to many leaves CPU time."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            began = time.monotonic()
            feeds, self._feeds = self._feeds, {}
            for feed in feeds:
                await feed.broadcast()
            await asyncio.sleep((time.monotonic() - began) / 2)


class Feed:
    """The newest snapshot of one view, the frame that carries it, and its subscribers."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.snapshot: Snapshot = {}
        self.stamp = next(_stamps)  # of what a page shows, different from that of any other feed
        self._frame = b""
        self._published_at = 0.0
        self._subscribers: dict[Subscriber, None] = {}  # an ordered set: the first to subscribe is served first

    @property
    def size(self) -> int:
        """The number of subscribers."""
        return len(self._subscribers)

    @property
    def frame(self) -> bytes:
        """The snapshot as a WebSocket frame; the same object until something is published."""
        if not self._frame:
            text = json.dumps(self.snapshot, ensure_ascii=False, separators=(",", ":"))
            self._frame = Frame(Opcode.TEXT, text.encode()).serialize(mask=False)
        return self._frame

    def publish(self, snapshot: Snapshot) -> bool:
        """Replace the snapshot if it is another one, and return whether it was; the outbox sends it."""
        if snapshot == self.snapshot:
            return False
        self._replace(snapshot)
        return True

    def _replace(self, snapshot: Snapshot) -> None:
        self.snapshot, self._frame = snapshot, b""
        self.touch()
        self._published_at = asyncio.get_running_loop().time()
        if self._subscribers:
            self._outbox.add(self)

    def touch(self) -> None:
        """Let pages be rendered again."""
        self.stamp = next(_stamps)

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers[subscriber] = None
        self._outbox.metrics.viewers.inc()
        self._outbox.metrics.frames.inc(subscriber.send(self.frame))

    def unsubscribe(self, subscriber: Subscriber) -> None:
        del self._subscribers[subscriber]
        self._outbox.metrics.viewers.dec()

    async def close(self, code: int, reason: str) -> None:
        """Close the connections of all subscribers."""
        for number, subscriber in enumerate(tuple(self._subscribers), 1):
            subscriber.close(code, reason)
            if number % SENDS_PER_YIELD == 0:
                await asyncio.sleep(0)

    async def broadcast(self) -> None:
        """Send the snapshot to each subscriber that does not have it; later ones may get a newer snapshot."""
        sent, subscribers = 0, tuple(self._subscribers)
        for start in range(0, len(subscribers), SENDS_PER_YIELD):
            frame = self.frame
            for subscriber in subscribers[start : start + SENDS_PER_YIELD]:
                sent += subscriber.send(frame)
            await asyncio.sleep(0)
        self._outbox.metrics.frames.inc(sent)

    def keep_alive(self) -> None:
        """Send the snapshot again if nothing was published for `KEEPALIVE_SECONDS`."""
        if self._subscribers and asyncio.get_running_loop().time() - self._published_at > KEEPALIVE_SECONDS:
            self._replace(self.snapshot)  # a new frame object, which `Subscriber.send` treats as not sent
