"""A Uvicorn HTTP protocol that limits the memory and time that one client can use.

- `ConnectionLimit` limits the number of connections, and `BufferLimit` the bytes that the process holds for all
  clients: incomplete requests, and responses that are not read.
- A client has a limited time to send a request, to begin the next one, to read a response, and to close its end.
- A connection that is rejected gets a response (RFC 9457) before it is closed, because a proxy would report a
  connection without a response as a failure of the service.

https://cheatsheetseries.owasp.org/cheatsheets/Denial_of_Service_Cheat_Sheet.html
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from voting.web.addresses import ConnectionLimit, client_network
from voting.web.buffers import BufferLimit
from voting.web.framing import RequestFraming
from voting.web.rejections import REJECTIONS, REQUEST_SECONDS
from voting.web.uvicorn_check import require_attributes

KEEP_ALIVE_SECONDS = 75  # between two requests; longer than a load balancer keeps its end open (60 s)
STUCK_SECONDS = 10  # time limit for the client to read buffered response data
CLOSING_SECONDS = 2  # time limit for the client to close its end; when the service stops, also for other waits
WRITE_BUFFER = 2 * 1024  # bytes of buffered response data above which no further request is read

require_attributes(HttpToolsProtocol, "client", "cycle", "flow", "headers", "loop", "parser", "pipeline", "scope")
require_attributes(HttpToolsProtocol, "_should_upgrade", "expect_100_continue", "handle_websocket_upgrade", "shutdown")
require_attributes(HttpToolsProtocol, "transport")
require_attributes(RequestResponseCycle, "body", "disconnected", "keep_alive", "message_event", "more_body")
require_attributes(RequestResponseCycle, "response_complete", "response_started", "transport")

READING = 0  # waiting for a request, or for the rest of it
RESPONDING = 1  # the request is complete, and its response is not
CLOSING = 2  # whatever arrives is discarded


class LimitedHttpProtocol(HttpToolsProtocol):
    """The limits of a connection. `protocol.HttpProtocol` adds parsing, the phase RESPONDING and `resume_writing`.

    Args:
        limit: counts all open connections.
        rejection_limit: counts those beyond `limit`, which get a 503; further ones are cut.
        buffers: counts the bytes held for all connections.
        on_rejection: called with the status of each response of `REJECTIONS` that is sent.
        options: passed on to Uvicorn's protocol.
    """

    __slots__ = (  # with them an idle connection takes a fifth less memory
        *("_address", "_buffers", "_counted_by", "_framing", "_is_buffering", "_limit", "_on_rejection", "_phase"),
        *("_pipelined", "_reading_paused", "_rejection_limit", "_stuck_since", "_time_limit", "_waiting_since"),
        *("_writable", "write_paused"),
    )

    def __init__(
        self,
        limit: ConnectionLimit,
        rejection_limit: ConnectionLimit,
        buffers: BufferLimit,
        on_rejection: Callable[[int], None],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._limit, self._rejection_limit, self._buffers = limit, rejection_limit, buffers
        self._on_rejection = on_rejection
        self._address = ""
        self._counted_by: ConnectionLimit | None = None
        self._phase = READING
        self._framing: RequestFraming = None  # type: ignore[assignment]  # None while idle
        self._pipelined = b""  # bytes of later requests that arrived before the current response
        self._reading_paused = False
        self._is_buffering = False  # counted by `buffers`
        self.write_paused = False  # the client does not read its responses
        self._writable: asyncio.Event | None = None  # set while writing is paused
        self._stuck_since = math.inf
        self._set_time_limit(REQUEST_SECONDS)
        self.parser = self.pipeline = None  # type: ignore[assignment]  # an idle connection needs neither

    def _set_time_limit(self, seconds: float) -> None:
        """Set the client's time limit, which starts again; `check` enforces it."""
        self._time_limit = seconds
        self._waiting_since = math.inf  # when `check` first found that the client has to act

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = self  # type: ignore[assignment]  # Uvicorn's flow control, for `RequestResponseCycle`
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._address = client_network(self.client[0]) if self.client else ""
        if self._limit.acquire(self._address):
            self._counted_by = self._limit
        elif self._rejection_limit.acquire(self._address):
            self._counted_by = self._rejection_limit
            self._reject(503)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = CLOSING
        self._pipelined = b""
        self._release_limits()
        super().connection_lost(exc)
        self.flow = self.cycle = None  # type: ignore[assignment]  # break reference cycles

    def _release_limits(self) -> None:
        self._release_buffer()
        if self._counted_by:
            self._counted_by.release(self._address)
            self._counted_by = None

    def pause_writing(self) -> None:
        """Begin no further response, because the client does not read."""
        self.write_paused = True
        self._writable = asyncio.Event()
        if self._phase != CLOSING:
            self._pause_transport()
        self._count_unread()

    async def drain(self) -> None:
        """Wait until the client has read the responses that were sent."""
        if self._writable:
            await self._writable.wait()

    def resume_reading(self) -> None:
        """Do nothing when the application waits for the body (Uvicorn's flow control): it is always read."""

    def _pause_transport(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_transport(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def _count_unread(self) -> None:
        """Count responses that the client has not read, and requests that it has pipelined."""
        self._count_buffer(self.transport.get_write_buffer_size() + len(self._pipelined))

    def _count_buffer(self, size: int) -> None:
        self._is_buffering = True
        self._buffers.set_size(self, size)

    def _release_buffer(self) -> None:
        if self._is_buffering:
            self._is_buffering = False
            self._buffers.release(self)

    def evict(self) -> None:
        """Close the connection to free memory for others."""
        self._is_buffering = False
        if self._phase == READING and not self.write_paused:
            self._reject(503)
        else:
            self.transport.abort()

    def shutdown(self) -> None:
        """Finish the current request with a shorter time limit, because the service stops."""
        self._set_time_limit(CLOSING_SECONDS)
        super().shutdown()

    def close(self) -> None:
        """Close the connection after its last response."""
        if self._phase == READING or (self._framing and self._framing.chunked):  # unread data may remain
            self._linger()
        else:
            self.transport.close()

    def _reject(self, status: int) -> None:
        """Send a rejection unless the application has begun its response; then close the connection."""
        cycle = self.cycle
        if cycle and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if not cycle or not cycle.response_started:
            self._on_rejection(status)
            self.transport.write(REJECTIONS[status])
        self._linger()

    def _linger(self) -> None:
        """Write EOF; the connection closes when the client closes its end.

        Closing at once with unread data would send RST, and the client could lose the response (RFC 9112, 9.6).
        """
        self._phase = CLOSING
        self._set_time_limit(CLOSING_SECONDS)
        self._pipelined = b""
        self.scope = self.headers = None  # type: ignore[assignment]
        if not self.write_paused:
            self._release_buffer()
        self._resume_transport()
        with contextlib.suppress(OSError, RuntimeError):  # it is already closed
            self.transport.write_eof()

    def check(self, now: float) -> None:
        """Close the connection if its client has exceeded a time limit; called once a second.

        Args:
            now: time of the event loop, in seconds.
        """
        if not self.transport.get_write_buffer_size():
            self._stuck_since = math.inf
        else:
            self._stuck_since = min(self._stuck_since, now)
            if now - self._stuck_since > min(STUCK_SECONDS, self._time_limit):
                self.transport.abort()
        if self._phase == RESPONDING:
            return
        if not self._framing:
            self.parser = None  # type: ignore[assignment]  # saves a quarter of an idle connection's memory
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
    """The transport of a response whose request may have unread data; `close` waits for the client to close its end."""

    __slots__ = ("close", "get_write_buffer_size", "is_closing", "write")

    def __init__(self, connection: LimitedHttpProtocol) -> None:
        transport = connection.transport
        self.write, self.is_closing = transport.write, transport.is_closing
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.close = connection.close
