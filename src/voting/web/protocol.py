"""HTTP/1 on one connection: one request at a time.

Uvicorn parses a request and runs the application. This module decides which bytes Uvicorn gets: the next request is
parsed after the response to the current one, and stays unread until then. A request that is malformed or larger than
the limits (`framing`) or too slow (`connection`) is rejected, and the connection is closed.
"""

from types import SimpleNamespace

import httptools

from voting.web.connection import (
    CLOSING,
    KEEP_ALIVE_SECONDS,
    READING,
    RESPONDING,
    LimitedHttpProtocol,
    LingeringTransport,
)
from voting.web.framing import FRAMING_FIELDS, RequestFraming
from voting.web.rejections import MAX_BODY, REQUEST_SECONDS

REQUEST_BYTES = 2560  # memory of a request besides the bytes received
FIELD_BYTES = 150  # memory of a header field besides its text


class HttpProtocol(LimitedHttpProtocol):
    """Reads requests and passes them on to the application."""

    __slots__ = ()
    max_body = MAX_BODY  # bytes

    def data_received(self, data: bytes) -> None:
        """Parse one request at a time; keep what follows it."""
        while data and self._phase == READING and not self.write_paused:
            if not self._framing:
                self._framing = RequestFraming(self.max_body)
                if self.parser is None:
                    self.parser = httptools.HttpRequestParser(self)
                self._set_time_limit(REQUEST_SECONDS)
            data = self._parse(data)
        if data and self._phase != CLOSING:
            self._pipelined += data
            self._pause_transport()
            self._count_unread()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open if a complete request waits for its response; the client sends no other."""
        if self._phase == RESPONDING:
            self.cycle.keep_alive = False
        return self._phase == RESPONDING

    def resume_writing(self) -> None:
        """Continue with the requests that the client has pipelined."""
        if self._writable:
            self.write_paused = False
            self._writable.set()
            self._writable = None
            self._release_buffer()
            if self._pipelined:
                self._count_unread()
            self._read_on()

    def _read_on(self) -> None:
        """Read pipelined requests, unless the client must first read a response; then read from the client again."""
        if self._phase != READING or self.write_paused:
            return
        data, self._pipelined = self._pipelined, b""
        if data:
            self._release_buffer()
            self.data_received(data)
        if not self._pipelined:
            self._resume_transport()

    def _parse(self, data: bytes) -> bytes:
        """Parse to the end of the request; return the rest."""
        framing, received = self._framing, len(data)
        while data and self._framing is framing and self._phase == READING:
            end = framing.next_part(data)
            if not framing.error:
                try:
                    self.parser.feed_data(data[:end])
                except (httptools.HttpParserError, httptools.HttpParserUpgrade) as stopped:
                    self._parser_stopped(framing, stopped)
            if framing.error:
                self._reject(framing.error)
            data = data[end:]
        if self._phase == READING and self._framing is framing:
            framing.received += received
            self._count_buffer(REQUEST_BYTES + framing.received + FIELD_BYTES * len(self.headers or ()))
            if framing.in_body:
                self.cycle.transport = LingeringTransport(self)  # type: ignore[assignment]
        return data

    def _parser_stopped(self, framing: RequestFraming, reason: Exception) -> None:
        """Handle a request that asks for an upgrade, or bytes that are not a request."""
        if framing.error:
            return
        if isinstance(reason, httptools.HttpParserUpgrade):
            if self._is_websocket():
                self.handle_websocket_upgrade()
            else:
                self._ignore_upgrade()
        elif self._phase == RESPONDING:  # the error is in what follows a chunked request
            self.cycle.keep_alive = False
        else:
            framing.error = 400

    def _ignore_upgrade(self) -> None:
        """Ignore the offer of another protocol: send one response with HTTP/1 (RFC 9110, section 7.8).

        The parser expects that protocol after the head, so a second parser parses the body.
        """
        framing = self._framing
        self.cycle.keep_alive = framing.upgrade = False
        names = ("on_header", "on_body", "on_message_complete")
        self.parser = httptools.HttpRequestParser(SimpleNamespace(**{name: getattr(self, name) for name in names}))
        field = b"Transfer-Encoding: chunked" if framing.chunked else b"Content-Length: %d" % framing.remaining
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % field)

    def on_message_begin(self) -> None:
        """Begin a request; reject a second one in the body of the first."""
        if self._framing.in_body:
            raise ValueError("a second request")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header field; only count a trailer."""
        if self._framing.in_body:
            self._framing.add_trailer()
            return
        name = name.lower()
        if name in FRAMING_FIELDS:
            self._framing.add_field(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        framing = self._framing
        if not framing.error:
            framing.end_head(self.parser.get_http_version(), len(self.headers), is_websocket=self._is_websocket())
        if framing.error:
            return
        self.expect_100_continue = framing.expects_continue
        super().on_headers_complete()
        if framing.chunked:
            self.cycle.keep_alive = False
            self.cycle.transport = LingeringTransport(self)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body to the application, unless its response is complete."""
        if not self.cycle.response_complete:
            self.cycle.body += body
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Tell the application that the request is complete; if the response is too, expect the next request."""
        if self._framing.error or (self._framing.upgrade and self.parser.should_upgrade()):
            return
        self._release_buffer()
        if self.cycle.response_complete:
            self._expect_request()
            return
        self._phase = RESPONDING
        self.cycle.more_body = False
        self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        if self._phase == RESPONDING and not self.transport.is_closing():
            self._expect_request()

    def _expect_request(self) -> None:
        self._phase = READING
        self._framing = self.cycle = None  # type: ignore[assignment]
        self.scope = self.headers = None  # type: ignore[assignment]  # a head may have 16 KiB
        self._set_time_limit(KEEP_ALIVE_SECONDS)
        if self._reading_paused or self._pipelined:
            self.loop.call_soon(self._read_on)  # after other connections

    def _is_websocket(self) -> bool:
        return self._framing.upgrade and self.parser.should_upgrade() and self._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        """Pass the connection on to the WebSocket protocol, which has its own limits."""
        self._release_limits()
        self._phase = CLOSING
        super().handle_websocket_upgrade()
        self.parser = self.flow = None  # type: ignore[assignment]  # break reference cycles
