"""One viewer: a WebSocket on which the server sends snapshots and accepts no messages.

Uvicorn passes each upgrade on to `Viewer`. The sans-I/O protocol of the websockets library does the handshake and
parses frames of the viewer. Snapshots bypass it: one frame, serialized once, is written to the transport of every
viewer. So a viewer needs no task and little memory, and sending it a frame takes microseconds.
https://websockets.readthedocs.io/en/stable/howto/sansio.html
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from voting.result.feed import Feed
from voting.result.handshake import Admit, Load, respond

STUCK_SECONDS = 10.0  # time limit for a viewer to read from a full socket
PING_SECONDS = 10.0  # time without a byte from the viewer, after which it gets a ping
SILENT_SECONDS = 18.0  # time without a byte, after which the connection is cut
CLOSING_SECONDS = 2.0  # time limit for the viewer to respond to a close frame
MAX_MESSAGE = 1024  # bytes
MAX_RECEIVED = 1088  # bytes in a second; a browser sends a pong of 6 bytes for each ping, and one close frame
MAX_FRAMES = 16  # in a second
WRITE_BUFFER = 4 * 1024  # bytes that wait in the process for a viewer that does not read
SEND_BUFFER = 16 * 1024  # bytes that wait in the kernel, which doubles it
_PING = Frame(Opcode.PING, b"").serialize(mask=False)


class Viewer(asyncio.Protocol):
    """A WebSocket connection, from its upgrade to its end. It is a `Subscriber` of one feed.

    Args:
        connections: the server's connections; it calls `check` and `shutdown` of each.
        load: takes a request; returns a future that is done when `admit` can be called, or None if it can now.
        admit: takes a request and its peer; returns the feed and the address for `release`, or raises a Problem.
        release: called with the address when the connection is closed.
        on_cut: called when the connection is cut, because the viewer does not read or does not respond to pings.
    """

    __slots__ = (
        *("_address", "_admit", "_closing", "_connections", "_feed", "_frame", "_frames", "_load", "_on_cut"),
        *("_protocol", "_received", "_received_at", "_release", "_stuck_since", "_transport"),
    )
    _transport: asyncio.Transport

    def __init__(
        self,
        connections: set[Any],
        *,
        load: Load,
        admit: Admit,
        release: Callable[[str], None],
        on_cut: Callable[[], None],
    ) -> None:
        self._connections, self._load, self._admit = connections, load, admit
        self._release, self._on_cut = release, on_cut
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE)
        self._feed: Feed | None = None  # from the handshake until the close begins
        self._address: str | None = None  # the argument of `release`
        self._closing: asyncio.TimerHandle | None = None
        self._frame = b""  # the last snapshot that was sent
        self._received = self._frames = 0  # bytes and frames from the viewer since the last check
        self._received_at = 0.0
        self._stuck_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take over the connection from Uvicorn, which then passes the request's bytes to `data_received`."""
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse the request, or frames. Close the connection after a message (1003) or too many bytes or frames (1008).

        https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
        """
        self._received_at = asyncio.get_running_loop().time()
        if self._protocol.state is not CONNECTING:
            room = max(0, MAX_RECEIVED - self._received)
            self._received += len(data)
            data = data[:room]  # the rest is not parsed: parsing a small frame takes as long as accepting a vote
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            self._frames += 1
            if isinstance(event, Request):
                self._open(event)
            elif isinstance(event, Frame) and event.opcode in DATA_OPCODES and self._protocol.state is OPEN:
                self._protocol.fail(CloseCode.UNSUPPORTED_DATA, "this socket only sends")
        if self._frames > MAX_FRAMES or self._received > MAX_RECEIVED:
            self._protocol.fail(CloseCode.POLICY_VIOLATION, "too much was sent")
            self._transport.pause_reading()  # whatever follows stays in the kernel
        self._flush()

    def _open(self, request: Request) -> None:
        """Respond to the request, at once or when what it asks for has been read."""
        loading = self._load(request)
        if loading is None:
            self._respond(request)
            return
        self._transport.pause_reading()

        def resume(_: object) -> None:
            if self._protocol.eof_sent:  # it has sent too much meanwhile
                self._transport.abort()
            elif not self._transport.is_closing():
                self._transport.resume_reading()
                self._respond(request)
                self._flush()

        loading.add_done_callback(resume)

    def _respond(self, request: Request) -> None:
        """Respond to the request; if it is admitted, subscribe to its feed."""
        admission = respond(self._protocol, request, self._transport.get_extra_info("peername"), self._admit)
        if admission:
            self._feed, self._address = admission
            self._flush()
            self._feed.subscribe(self)

    def _flush(self) -> None:
        """Write the bytes that the protocol has queued; if the connection is closing, set a time limit."""
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif not self._transport.is_closing():
                self._transport.write_eof()
        if self._protocol.close_expected() and self._closing is None:
            self._unsubscribe()
            self._closing = asyncio.get_running_loop().call_later(CLOSING_SECONDS, self._transport.abort)

    def send(self, frame: bytes) -> bool:
        """Send a frame and return True; return False if it was sent before, or the viewer does not read."""
        if self._frame is frame or self._stuck_since is not None:
            return False
        self._frame = frame
        self._transport.write(frame)
        return True

    def pause_writing(self) -> None:
        """Pause frames and reading until the viewer has read enough."""
        self._stuck_since = asyncio.get_running_loop().time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._stuck_since = None
        self._received_at = asyncio.get_running_loop().time()
        if self._closing is None:
            self._transport.resume_reading()
        if self._feed:
            self.send(self._feed.frame)

    def check(self, now: float) -> None:
        """Cut the connection if the viewer is lost, or send a ping if one is due; called once a second.

        Args:
            now: time of the event loop, in seconds.
        """
        if self._feed is None:  # not admitted yet, or closing: the timer `_closing` ends it
            return
        self._received = self._frames = 0
        if self._is_lost(now):
            self._on_cut()
            self._transport.abort()
        elif now - self._received_at > PING_SECONDS and self._stuck_since is None:
            self._transport.write(_PING)

    def _is_lost(self, now: float) -> bool:
        stuck = self._stuck_since is not None and now - self._stuck_since > STUCK_SECONDS
        return stuck or now - self._received_at > SILENT_SECONDS

    def close(self, code: int, reason: str) -> None:
        self._protocol.fail(code, reason)
        self._flush()

    def shutdown(self) -> None:
        """Close the connection with 1012, because the server stops; result.js then connects again."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(CloseCode.SERVICE_RESTART)
            self._flush()
        else:
            self._transport.close()

    def eof_received(self) -> None:
        """Pass EOF to the protocol; returning None closes the transport."""
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._unsubscribe()
        if self._address is not None:
            self._release(self._address)
        if self._closing is not None:
            self._closing.cancel()  # it would keep this viewer in memory
        self._connections.discard(self)

    def _unsubscribe(self) -> None:
        if self._feed:
            self._feed.unsubscribe(self)
            self._feed = None
