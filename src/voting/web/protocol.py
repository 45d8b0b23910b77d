"""HTTP on one connection, with bounds on what its client may cost.

Uvicorn parses a request and runs the application. This module decides what Uvicorn gets to see:

- One request at a time. What a client sends ahead stays unread until its request is answered.
- A head of at most `MAX_HEAD` bytes and `MAX_FIELDS` fields, trailers included, and a body of at most `MAX_BODY` bytes
  as it is transferred. A request that is larger, malformed or too slow is answered (RFC 9457) before the connection
  is closed, so that a proxy in front does not take it for a failure of the service.
- An answer that a client does not take for `STUCK_SECONDS` closes the connection.
- `ConnectionLimit` bounds the number of connections, and `BufferLimit` the bytes that all of them together keep for
  their clients: of requests that are not complete, and of answers that are not read.

https://cheatsheetseries.owasp.org/cheatsheets/Denial_of_Service_Cheat_Sheet.html
"""

import asyncio
import contextlib
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from voting.web.addresses import ConnectionLimit, network
from voting.web.buffers import BufferLimit
from voting.web.rejections import MAX_BODY, MAX_FIELDS, MAX_HEAD, REJECTIONS, REQUEST_SECONDS

KEEP_ALIVE_SECONDS = 75  # without a request; longer than a load balancer keeps its own end (60 s)
STUCK_SECONDS = 10  # that part of an answer may wait for the client to read
CLOSING_SECONDS = 2  # that a client has to read the last answer and close its end, and for anything once we stop
WRITE_BUFFER = 2 * 1024  # bytes of an answer that may wait in the process before nothing more is done for the client
REQUEST_BYTES = 2560  # that a request takes besides its bytes as received
FIELD_BYTES = 150  # that a header field takes besides its text

_FRAMING = {b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"host"}  # fields that this module looks at

READING, ANSWERING, CLOSING = range(3)  # a request is awaited; it is complete; whatever arrives is discarded


class Protocol(HttpToolsProtocol):
    """One connection.

    Args:
        limit: of connections.
        rejected: how many more may be open while they are told that there are too many; any further one is cut.
        buffers: of all connections.
        on_rejection: called with the status of each answer in `REJECTIONS` that is given.
        options: what Uvicorn passes.
    """

    __slots__ = (  # with them an idle connection takes a fifth less memory
        "_address",
        "_ahead",
        "_begun",
        "_buffers",
        "_chunked",
        "_counted",
        "_held",
        "_host",
        "_in_body",
        "_length",
        "_limit",
        "_on_rejection",
        "_patience",
        "_paused",
        "_phase",
        "_received",
        "_rejected",
        "_since",
        "_size",
        "_stuck_since",
        "_tail",
        "_trailers",
        "_upgrade",
        "_verdict",
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
        self._patience = REQUEST_SECONDS  # that the client may take until the next change of phase
        self._since = math.inf  # when `check` first saw that it had to wait for the client
        self._stuck_since = math.inf
        self._ahead = b""  # sent before the request in hand was answered
        self._paused = False
        self._held = False  # by `buffers`
        self.write_paused = False  # the client does not read its answers
        self._writable: asyncio.Event | None = None  # while it does not
        self.parser = self.pipeline = None  # type: ignore[assignment]  # an idle connection needs neither
        self._expect()

    def _expect(self) -> None:
        """Prepare for the next request."""
        self._begun = False  # its first byte is here
        self._in_body = False
        self._received = 0  # bytes of a request that is not complete
        self._size = 0  # bytes of the head; then of a chunked body
        self._length = 0  # of a body, by Content-Length; then what is missing of it
        self._chunked = False
        self._upgrade = False
        self._host = False
        self._trailers = 0
        self._tail = b""  # of an unfinished head, where its end may begin
        self._verdict = 0

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
        self._ahead = b""
        self._release()
        self._let_go()
        super().connection_lost(exc)
        self.flow = self.cycle = None  # type: ignore[assignment]  # which refer to this object

    def _release(self) -> None:
        if self._counted:
            self._counted.release(self._address)
            self._counted = None

    def data_received(self, data: bytes) -> None:
        """Parse up to the end of one request; keep what follows for later."""
        while data and self._phase == READING and not self.write_paused:
            if not self._begun:
                self._begun = True
                if self.parser is None:
                    self.parser = httptools.HttpRequestParser(self)
                self._patience, self._since = REQUEST_SECONDS, math.inf
            data = self._feed(data)
        if data and self._phase != CLOSING:
            self._ahead += data
            self._pause_reading()
            self._hold_unread()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the answer to a request that is complete; the client sends no other."""
        if self._phase == ANSWERING:
            self.cycle.keep_alive = False
        return self._phase == ANSWERING

    def pause_writing(self) -> None:
        """The client does not read its answers: begin no further one."""
        self.write_paused = True
        self._writable = asyncio.Event()
        if self._phase != CLOSING:
            self._pause_reading()
        self._hold_unread()

    def resume_writing(self) -> None:
        """Go on with what was sent ahead."""
        if self._writable:
            self.write_paused = False
            self._writable.set()
            self._writable = None
            self._let_go()
            if self._ahead:
                self._hold_unread()
            self._go_on()

    async def drain(self) -> None:
        """Wait until the client has read what it was sent."""
        if self._writable:
            await self._writable.wait()

    def resume_reading(self) -> None:
        """Do nothing: a request's body is read whether or not an application waits for it."""

    def _hold_unread(self) -> None:
        self._hold(self.transport.get_write_buffer_size() + len(self._ahead))

    def _hold(self, size: int) -> None:
        self._held = True
        self._buffers.hold(self, size)

    def _let_go(self) -> None:
        if self._held:
            self._held = False
            self._buffers.release(self)

    def evict(self) -> None:
        """Make room for other connections."""
        self._held = False
        if self._phase == READING and not self.write_paused:
            self._reject(503)
        else:
            self.transport.abort()

    def _go_on(self) -> None:
        """Read what was sent ahead, unless an answer has to be read first."""
        if self._phase != READING or self.write_paused:
            return
        data, self._ahead = self._ahead, b""
        if data:
            self._let_go()
            self.data_received(data)
        if not self._ahead:
            self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> bytes:
        """Parse to the end of the request; return the rest."""
        received = len(data)
        while data and self._begun and self._phase == READING:
            if not self._in_body:
                end = self._end_of_head(data)
                self._size += end
                if self._size > MAX_HEAD:
                    self._reject(431)
                    break
            elif self._chunked:
                end = len(data)  # the parser alone knows where it ends; what follows is discarded
                self._size += end
                if self._size > MAX_BODY:
                    self._reject(413)
                    break
            else:
                end = min(self._length, len(data))
                self._length -= end
            try:
                self.parser.feed_data(data[:end])
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as ended:
                self._ended(ended)
            if self._verdict:
                self._reject(self._verdict)
            data = data[end:]
        if self._phase == READING and self._begun:
            self._received += received
            self._hold(REQUEST_BYTES + self._received + FIELD_BYTES * len(self.headers or ()))
            if self._in_body:
                self.cycle.transport = _Lingering(self)  # type: ignore[assignment]
        return data

    def _end_of_head(self, data: bytes) -> int:
        """Return the number of bytes up to the blank line that ends a head; all, if it is not there."""
        known = self._tail + data  # the blank line may have begun in the piece before
        end = known.find(b"\r\n\r\n")
        if end < 0:
            self._tail = known[-3:]
            return len(data)
        end += 4 - len(self._tail)
        self._tail = b""
        return end

    def _ended(self, reason: Exception) -> None:
        """The parser stopped at the end of a request, or at something that is none."""
        if self._verdict:
            return
        if isinstance(reason, httptools.HttpParserUpgrade):
            if self._is_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._ignore_upgrade()
        elif self._phase == ANSWERING:  # by what follows a chunked request
            self.cycle.keep_alive = False
        else:
            self._verdict = 400

    def _ignore_upgrade(self) -> None:
        """Go on with this protocol, for one answer, where another was offered (RFC 9110, section 7.8).

        The parser takes what follows the head for that protocol, so another one parses the body.
        """
        self.cycle.keep_alive = self._upgrade = False
        names = ("on_header", "on_body", "on_message_complete")
        self.parser = httptools.HttpRequestParser(SimpleNamespace(**{name: getattr(self, name) for name in names}))
        framing = b"Transfer-Encoding: chunked" if self._chunked else b"Content-Length: %d" % self._length
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)

    def on_message_begin(self) -> None:
        """Begin a request, unless there is one in hand."""
        if self._in_body:
            raise ValueError("a second request")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field; ignore a trailer."""
        if self._in_body:
            self._trailers += 1
            if len(self.headers) + self._trailers > MAX_FIELDS:
                self._verdict = 431
            return
        name = name.lower()
        if name in _FRAMING:
            if name == b"host":
                if self._host:  # a proxy may take the other one
                    self._verdict = 400
                self._host = True
            elif name == b"content-length":
                self._length = int(value)
            elif name == b"transfer-encoding":
                self._chunked = True
            elif name == b"upgrade":
                self._upgrade = True
            else:
                self.expect_100_continue = value.lower() == b"100-continue"
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Run the application, if the request is within the bounds."""
        if self._verdict:
            return
        version = self.parser.get_http_version()
        if len(self.headers) > MAX_FIELDS:
            self._verdict = 431
        elif self._length > MAX_BODY:
            self._verdict = 413
        elif not self._is_sound(version):
            self._verdict = 400
        else:
            if version == "1.0":
                self.expect_100_continue = False  # RFC 9110, section 10.1.1
            super().on_headers_complete()
            self._in_body, self._size = True, 0
            if self._chunked:
                self.cycle.keep_alive = False
                self.cycle.transport = _Lingering(self)  # type: ignore[assignment]

    def _is_sound(self, version: str) -> bool:
        """Whether a head is as RFC 9112, section 3.2, and RFC 6455, section 4.1, ask for."""
        if version == "1.1":
            return self._host and not (self._is_upgrade() and (self._chunked or self._length))
        return version == "1.0" and not self._is_upgrade()

    def on_body(self, body: bytes) -> None:
        """Give a part of the body to the application, unless that has answered already."""
        if not self.cycle.response_complete:
            self.cycle.body += body
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The request is complete: answer it, and then expect the next one."""
        if self._verdict or (self._upgrade and self.parser.should_upgrade()):
            return
        self._let_go()
        if self.cycle.response_complete:
            self._next()
            return
        self._phase = ANSWERING
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """The answer is complete; expect the next request when this one is, too."""
        if self._phase == ANSWERING and not self.transport.is_closing():
            self._next()

    def _next(self) -> None:
        self._phase = READING
        self._expect()
        self.cycle = self.scope = self.headers = None  # type: ignore[assignment]  # a head may have 16 KiB
        self._patience, self._since = KEEP_ALIVE_SECONDS, math.inf
        if self._paused or self._ahead:
            self.loop.call_soon(self._go_on)  # after the other connections had their turn

    def _is_upgrade(self) -> bool:
        return self._upgrade and self.parser.should_upgrade() and self._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        """Pass the connection on; the WebSocket's own bounds hold from here."""
        self._release()
        self._let_go()
        self._phase = CLOSING
        super().handle_websocket_upgrade()
        self.parser = self.flow = None  # type: ignore[assignment]  # which refer to this object

    def shutdown(self) -> None:
        """Finish what is in hand, and wait less long for the client: the service has been told to stop."""
        self._patience, self._since = CLOSING_SECONDS, math.inf
        super().shutdown()

    def close(self) -> None:
        """Close the connection after its last answer."""
        if self._phase == READING or self._chunked:  # there may be something unread
            self._linger()
        else:
            self.transport.close()

    def _reject(self, status: int) -> None:
        """Answer in place of the application, unless it has begun to; then close."""
        cycle = self.cycle if self._in_body else None
        if cycle and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        if not cycle or not cycle.response_started:
            self._on_rejection(status)
            self.transport.write(REJECTIONS[status])
        self._linger()

    def _linger(self) -> None:
        """Close our end, and the connection when the client has closed its own.

        To close at once, while there is something unread, would take the answer back from the client (RFC 9112, 9.6).
        """
        self._phase = CLOSING
        self._patience, self._since = CLOSING_SECONDS, math.inf
        self._ahead = b""
        self.scope = self.headers = None  # type: ignore[assignment]
        if not self.write_paused:
            self._let_go()
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
            if now - self._stuck_since > min(STUCK_SECONDS, self._patience):
                self.transport.abort()
        if self._phase == ANSWERING:
            return
        if not self._begun:
            self.parser = None  # type: ignore[assignment]  # a quarter of what an idle connection takes
        self._since = min(self._since, now)
        if now - self._since < self._patience:
            return
        if self._phase == CLOSING:
            self.transport.abort()
        elif self._begun:
            self._reject(408)
        else:
            self.transport.close()


class _Lingering:
    """The transport as an application's answer uses it, where the request may not have been read to its end."""

    __slots__ = ("close", "get_write_buffer_size", "is_closing", "write")

    def __init__(self, protocol: Protocol) -> None:
        transport = protocol.transport
        self.write, self.is_closing = transport.write, transport.is_closing
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.close = protocol.close
