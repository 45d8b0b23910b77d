"""One viewer: a WebSocket that is written to and says nothing.

Uvicorn hands each upgrade over to `Viewer`. The handshake, and whatever a viewer sends, are for the sans-I/O protocol
of the websockets library; snapshots are not: one frame, serialized once, goes to every viewer's transport as it is. So
ten thousand viewers need no task each, little memory, and microseconds a frame.
https://websockets.readthedocs.io/en/stable/howto/sansio.html
"""

import asyncio
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from websockets.frames import DATA_OPCODES, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import CONNECTING, OPEN
from websockets.server import ServerProtocol

from voting.web.language import language
from voting.web.problems import PROBLEM, Problem

if TYPE_CHECKING:
    from voting.result.hub import Channel
    from voting.result.viewer_server import ViewerServer

STUCK_SECONDS = 10.0  # that a viewer's socket may take nothing
PING_SECONDS = 10.0  # of silence, after which it is asked for a sign of life
SILENT_SECONDS = 18.0  # without one
CLOSING_SECONDS = 2.0  # that it has to answer our goodbye
MAX_MESSAGE = 1024
MAX_RECEIVED = 1088  # bytes in a second; a browser sends a pong of 6 bytes for each ping, and one goodbye
MAX_EVENTS = 16  # frames in a second
WRITE_BUFFER = 4 * 1024  # bytes that wait in the process for a viewer that does not read
SEND_BUFFER = 16 * 1024  # bytes that wait in the kernel, which doubles it
POLL_DELETED = 4404  # a close code of our own (RFC 6455, section 7.4.2), since proxies send 1001
_PING = Frame(Opcode.PING, b"").serialize(mask=False)


class Viewer(asyncio.Protocol):
    """A connection from its upgrade to its end.

    Args:
        door: lets it in.
        connections: those that uvicorn tells to `shutdown` when the server stops.
    """

    __slots__ = (
        "_address",
        "_channel",
        "_closing",
        "_connections",
        "_door",
        "_events",
        "_heard_at",
        "_received",
        "_shown",
        "_socket",
        "_stuck_at",
        "_transport",
    )
    _transport: asyncio.Transport

    def __init__(self, door: "ViewerServer", connections: set[Any]) -> None:
        self._door, self._connections = door, connections
        self._socket = ServerProtocol(max_size=MAX_MESSAGE)
        self._channel: Channel | None = None
        self._address: str | None = None  # for which a place is taken
        self._closing: asyncio.TimerHandle | None = None
        self._shown = b""
        self._received = self._events = 0  # bytes and frames since the last look
        self._heard_at = 0.0
        self._stuck_at: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Uvicorn passes the connection on, and then the request."""
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Take the request, a pong or a close frame.

        A message is answered with the close code 1003, too much of anything with 1008 (RFC 6455, section 7.4.1).
        """
        self._heard_at = asyncio.get_running_loop().time()
        if self._socket.state is not CONNECTING:
            room = max(0, MAX_RECEIVED - self._received)
            self._received += len(data)
            data = data[:room]  # the rest is not parsed: a frame of 6 bytes costs as much as a vote
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            self._events += 1
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame) and event.opcode in DATA_OPCODES and self._socket.state is OPEN:
                self._socket.fail(CloseCode.UNSUPPORTED_DATA, "this socket only sends")
        if self._events > MAX_EVENTS or self._received > MAX_RECEIVED:
            self._refuse_more()
        else:
            self._flush()

    def _refuse_more(self) -> None:
        self._socket.fail(CloseCode.POLICY_VIOLATION, "too much was sent")
        self._transport.pause_reading()  # whatever follows stays in the kernel
        self._flush()

    def _answer(self, request: Request) -> None:
        response = self._socket.accept(request)
        if self._socket.handshake_exc is None:
            try:
                self._channel, self._address = self._door.admit(request, self._transport.get_extra_info("peername"))
            except Problem as problem:
                told = problem.document(language("en"), "GET")
                response = self._socket.reject(HTTPStatus(problem.status), told.decode())
                del response.headers["Content-Type"]
                response.headers["Content-Type"] = PROBLEM
                if problem.retry_after:
                    response.headers["Retry-After"] = str(problem.retry_after)
        self._socket.send_response(response)
        if self._channel:
            self._socket.parser = self._socket.parse()  # the one before keeps the request, of up to 16 KiB
            next(self._socket.parser)
            self._flush()
            self._channel.join(self)

    def _flush(self) -> None:
        for data in self._socket.data_to_send():
            if data:
                self._transport.write(data)
            elif not self._transport.is_closing():
                self._transport.write_eof()
        if self._socket.close_expected() and self._closing is None:
            self._leave()
            self._closing = asyncio.get_running_loop().call_later(CLOSING_SECONDS, self._transport.abort)

    def show(self, frame: bytes) -> int:
        """Send a frame, unless this viewer has it already or takes nothing now; return how many were sent."""
        if self._shown is frame or self._stuck_at is not None:
            return 0
        self._shown = frame
        self._transport.write(frame)
        return 1

    def pause_writing(self) -> None:
        """Send no more frames, and read nothing that would have to be answered, until the viewer has caught up."""
        self._stuck_at = asyncio.get_running_loop().time()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with the newest frame; those between are skipped."""
        self._stuck_at = None
        self._heard_at = asyncio.get_running_loop().time()
        if self._closing is None:
            self._transport.resume_reading()
        if self._channel:
            self.show(self._channel.frame)

    def is_lost(self, now: float) -> bool:
        """Cut it if it takes nothing or gives no sign of life, and say so; ask for one when it is due.

        To be called once a second: what it may send until then is counted anew.
        """
        self._received = self._events = 0
        lost = now - self._heard_at > SILENT_SECONDS
        if lost or (self._stuck_at is not None and now - self._stuck_at > STUCK_SECONDS):
            self._transport.abort()
            return True
        if now - self._heard_at > PING_SECONDS and self._stuck_at is None:
            self._transport.write(_PING)
        return False

    def dismiss(self) -> None:
        """Close the connection, since the poll was deleted; result.js then loads the page again, which says so."""
        self._socket.fail(POLL_DELETED, "this poll was deleted")
        self._flush()

    def shutdown(self) -> None:
        """The server stops: ask the viewer to come back."""
        if self._socket.state is OPEN:
            self._socket.send_close(CloseCode.SERVICE_RESTART)
            self._flush()
        else:
            self._transport.close()

    def eof_received(self) -> None:
        """It has hung up; returning None closes our side."""
        self._socket.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end, whoever wanted it."""
        del exc
        self._leave()
        if self._address is not None:
            self._door.viewers.release(self._address)
        if self._closing is not None:
            self._closing.cancel()  # it would keep this viewer in memory
        self._connections.discard(self)

    def _leave(self) -> None:
        if self._channel:
            self._channel.leave(self)
            self._channel = None
