"""The viewers: every open WebSocket gets each poll's newest snapshot, and none waits for another.

A snapshot is encoded once. A viewer that lags skips to the newest instead of working off a queue; one whose
socket takes nothing for `STUCK_SECONDS`, or answers no ping, is cut (`viewer_protocol`). Viewers only listen:
one that sends a message is closed with 1003 (RFC 6455, section 7.4.1).
"""

import asyncio
import contextlib
import json
from asyncio import TimerHandle
from collections import deque
from datetime import UTC, datetime
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from voting.core.metrics import ResultMetrics
from voting.core.store import Standing

STUCK_SECONDS = 10.0
KEEPALIVE_SECONDS = 15.0  # a snapshot goes out at least this often, so that a viewer notices a dead connection
UNSUPPORTED_DATA = 1003
MINUTE = 60

Snapshot = dict[str, Any]


def viewer_protocol(metrics: ResultMetrics) -> type[WebSocketsSansIOProtocol]:
    """Uvicorn's WebSocket protocol, but a peer that stops reading is cut rather than waited for."""

    class ViewerProtocol(WebSocketsSansIOProtocol):
        stuck: TimerHandle | None = None

        def pause_writing(self) -> None:  # the peer leaves more than a buffer's worth unread
            super().pause_writing()
            self.stuck = self.loop.call_later(STUCK_SECONDS, self.cut)

        def resume_writing(self) -> None:
            super().resume_writing()
            self.forgive()

        def keepalive_timeout(self) -> None:  # it answered no ping, so nothing would ever empty its buffer
            super().keepalive_timeout()
            self.cut()

        def connection_lost(self, exc: Exception | None) -> None:
            self.forgive()
            super().connection_lost(exc)

        def forgive(self) -> None:
            if self.stuck:
                self.stuck.cancel()

        def cut(self) -> None:
            metrics.cut.inc()
            self.transport.abort()

    return ViewerProtocol


class Channel:
    """One poll: its newest snapshot, a future that the next one resolves, and the votes of each second of a minute."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = {}
        self.text = ""
        self.rates: deque[int] = deque([0] * MINUTE, maxlen=MINUTE)
        self._total: int | None = None
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def publish(self, snapshot: Snapshot) -> None:
        """Replace the snapshot and wake every viewer."""
        self.snapshot = snapshot
        self.text = json.dumps(snapshot, ensure_ascii=False, separators=(",", ":"))
        done, self.changed = self.changed, asyncio.get_running_loop().create_future()
        done.set_result(None)

    def tick(self) -> None:
        """A second has passed."""
        total = self.snapshot["total"]
        self.rates.append(0 if self._total is None else max(0, total - self._total))
        self._total = total


class Hub:
    """The newest snapshot of every poll, and the viewers that follow them."""

    def __init__(self, metrics: ResultMetrics) -> None:
        self._metrics = metrics
        self._channels: dict[str, Channel] = {}
        self._stale_since: str | None = None

    def channel(self, slug: str) -> Channel | None:
        """The poll's channel; None for a poll that the database has not shown."""
        return self._channels.get(slug)

    @property
    def loaded(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._channels)

    def update(self, standings: list[Standing]) -> None:
        """Take over what the database says; viewers are woken only if they have something new to see."""
        self._stale_since = None
        for standing in standings:
            channel = self._channels.setdefault(standing.poll.slug, Channel())
            snapshot = snapshot_of(standing)
            if snapshot != channel.snapshot:
                channel.publish(snapshot)

    def tick(self) -> None:
        """A second has passed, for every poll."""
        for channel in self._channels.values():
            channel.tick()

    def mark_stale(self) -> None:
        """The database does not answer: keep showing the last snapshots, and say since when they are old."""
        if self._stale_since is None:
            self._stale_since = datetime.now(UTC).isoformat(timespec="seconds")
            for channel in self._channels.values():
                channel.publish(channel.snapshot | {"stale_since": self._stale_since})

    async def attend(self, socket: WebSocket, channel: Channel) -> None:
        """Serve one viewer until it leaves: the current snapshot at once, then each new one."""
        await socket.accept()
        self._metrics.viewers.inc()
        listening = asyncio.create_task(self._send_always(socket, channel))
        try:
            await socket.receive_text()
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
            pass
        finally:
            listening.cancel()
            self._metrics.viewers.dec()
        if socket.client_state.name == "CONNECTED":
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.close(UNSUPPORTED_DATA, "this socket only sends")

    async def _send_always(self, socket: WebSocket, channel: Channel) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                changed = channel.changed
                await socket.send_text(channel.text)
                self._metrics.frames.inc()
                await asyncio.wait([changed], timeout=KEEPALIVE_SECONDS)


def snapshot_of(standing: Standing) -> Snapshot:
    """What a viewer gets to see of a poll: the JSON contract of `/api/results` and `/ws`."""
    options = [
        {"key": option.key, "label": option.label, "votes": standing.votes.get(option.key, 0)}
        for option in standing.poll.options
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
