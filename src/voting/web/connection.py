"""One connection of Uvicorn's, with limits on what its client may cost, whatever it asks for.

- `ConnectionLimit` bounds the number of connections, and `BufferLimit` the bytes that all of them together keep for
  their clients: of requests that are not complete, and of answers that are not read.
- A client has a limited time for a request, between two requests, to read an answer, and to close its end.
- A connection that is rejected gets an answer (RFC 9457) before it is closed, so that a proxy in front does not take
  this for a failure of the service.

https://cheatsheetseries.owasp.org/cheatsheets/Denial_of_Service_Cheat_Sheet.html
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from voting.web.addresses import ConnectionLimit, network
from voting.web.buffers import BufferLimit
from voting.web.rejections import REJECTIONS, REQUEST_SECONDS
from voting.web.uvicorn_check import require

if TYPE_CHECKING:
    from voting.web.framing import RequestFraming

KEEP_ALIVE_SECONDS = 75  # without a request; longer than a load balancer keeps its own end (60 s)
STUCK_SECONDS = 10  # that part of an answer may wait for the client to read
CLOSING_SECONDS = 2  # that a client has to read the last answer and close its end, and for anything once we stop
WRITE_BUFFER = 2 * 1024  # bytes of an answer that may wait in the process before no further request is read

require(HttpToolsProtocol, "client", "cycle", "flow", "headers", "loop", "parser", "pipeline", "scope", "transport")
require(HttpToolsProtocol, "_should_upgrade", "expect_100_continue", "handle_websocket_upgrade", "shutdown")
require(RequestResponseCycle, "body", "disconnected", "keep_alive", "message_event", "more_body", "transport")
require(RequestResponseCycle, "response_complete", "response_started")

READING, ANSWERING, CLOSING = range(3)  # a request is awaited; it is complete; whatever arrives is discarded


class Connection(HttpToolsProtocol):
    """A connection, without the parsing of its requests.

    Args:
        limit: of connections.
        rejected: how many more may be open while they are told that there are too many; any further one is cut.
        buffers: of all connections.
        on_rejection: called with the status of each answer in `REJECTIONS` that is sent.
        options: what Uvicorn passes.
    """

    __slots__ = (  # with them an idle connection takes a fifth less memory
        "_address",
        "_buffers",
        "_counted",
        "_framing",
        "_is_buffering",
        "_limit",
        "_on_rejection",
        "_phase",
        "_pipelined",
        "_reading_paused",
        "_rejected",
        "_stuck_since",
        "_time_limit",
        "_waiting_since",
        "_writable",
        "write_paused",
    )

    def __init__(
        self,
        limit: ConnectionLimit,
        rejected: ConnectionLimit,
        buffers: BufferLimit,
        on_rejection: Callable[[int], None],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._limit, self._rejected, self._buffers = limit, rejected, buffers
        self._on_rejection = on_rejection
        self._address = ""
        self._counted: ConnectionLimit | None = None  # by which limit
        self._phase = READING
        self._framing: RequestFraming = None  # type: ignore[assignment]  # from a request's first byte to its answer
        self._pipelined = b""  # received before the request in hand was answered
        self._reading_paused = False
        self._is_buffering = False  # counted by `buffers`
        self.write_paused = False  # the client does not read its answers
        self._writable: asyncio.Event | None = None  # while it does not
        self._stuck_since = math.inf
        self._wait_at_most(REQUEST_SECONDS)
        self.parser = self.pipeline = None  # type: ignore[assignment]  # an idle connection needs neither

    def _wait_at_most(self, seconds: float) -> None:
        """Set what time the client has, as seen by `check`, until the next call of this."""
        self._time_limit = seconds
        self._waiting_since = math.inf  # when `check` first saw that it had to wait for the client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or reject it if too many are open."""
        super().connection_made(transport)
        self.flow = self  # type: ignore[assignment]  # as the answers see it
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._address = network(self.client[0]) if self.client else ""
        if self._limit.take(self._address):
            self._counted = self._limit
        elif self._rejected.take(self._address):
            self._counted = self._rejected
            self._reject(503)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release what the connection held."""
        self._phase = CLOSING
        self._pipelined = b""
        self._release_limits()
        super().connection_lost(exc)
        self.flow = self.cycle = None  # type: ignore[assignment]  # which refer to this object

    def _release_limits(self) -> None:
        self._release_buffer()
        if self._counted:
            self._counted.release(self._address)
            self._counted = None

    def pause_writing(self) -> None:
        """Begin no further answer, since the client does not read."""
        self.write_paused = True
        self._writable = asyncio.Event()
        if self._phase != CLOSING:
            self._pause_reading()
        self._count_unread()

    async def drain(self) -> None:
        """Wait until the client has read what it was sent."""
        if self._writable:
            await self._writable.wait()

    def resume_reading(self) -> None:
        """Do nothing: a request's body is read whether or not an application waits for it."""

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def _count_unread(self) -> None:
        """Count answers that the client has not read, and requests that it has pipelined."""
        self._count_buffer(self.transport.get_write_buffer_size() + len(self._pipelined))

    def _count_buffer(self, size: int) -> None:
        self._is_buffering = True
        self._buffers.hold(self, size)

    def _release_buffer(self) -> None:
        if self._is_buffering:
            self._is_buffering = False
            self._buffers.release(self)

    def evict(self) -> None:
        """End the connection to make room for others."""
        self._is_buffering = False
        if self._phase == READING and not self.write_paused:
            self._reject(503)
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """Finish the request in hand, and give the client less time, since the service stops."""
        self._wait_at_most(CLOSING_SECONDS)
        super().shutdown()

    def close(self) -> None:
        """Close the connection after its last answer."""
        if self._phase == READING or (self._framing and self._framing.chunked):  # there may be something unread
            self._linger()
        else:
            self.transport.close()

    def _reject(self, status: int) -> None:
        """Answer in place of the application, unless that has begun to; then close."""
        cycle = self.cycle
        if cycle and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if not cycle or not cycle.response_started:
            self._on_rejection(status)
            self.transport.write(REJECTIONS[status])
        self._linger()

    def _linger(self) -> None:
        """Close our end, and the connection when the client has closed its own.

        Closing at once, with something unread, would discard the answer before the client has read it (RFC 9112, 9.6).
        """
        self._phase = CLOSING
        self._wait_at_most(CLOSING_SECONDS)
        self._pipelined = b""
        self.scope = self.headers = None  # type: ignore[assignment]
        if not self.write_paused:
            self._release_buffer()
        self._resume_reading()
        with contextlib.suppress(OSError, RuntimeError):  # it has closed already
            self.transport.write_eof()

    def check(self, now: float) -> None:
        """Close the connection if its client has taken too long to send, to read or to close.

        Args:
            now: by the event loop's clock; a second later than at the call before.
        """
        if not self.transport.get_write_buffer_size():
            self._stuck_since = math.inf
        else:
            self._stuck_since = min(self._stuck_since, now)
            if now - self._stuck_since > min(STUCK_SECONDS, self._time_limit):
                self.transport.abort()
        if self._phase == ANSWERING:
            return
        if not self._framing:
            self.parser = None  # type: ignore[assignment]  # a quarter of what an idle connection takes
        self._waiting_since = min(self._waiting_since, now)
        if now - self._waiting_since < self._time_limit:
            return
        if self._phase == CLOSING:
            self.transport.abort()
        elif self._framing:
            self._reject(408)
        else:
            self.transport.close()


class LingeringTransport:
    """The transport as an application's answer uses it, where the request may not have been read to its end."""

    __slots__ = ("close", "get_write_buffer_size", "is_closing", "write")

    def __init__(self, connection: Connection) -> None:
        transport = connection.transport
        self.write, self.is_closing = transport.write, transport.is_closing
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.close = connection.close
