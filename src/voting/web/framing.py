"""Finds where the head and the body of a request end, and checks that they are valid HTTP/1 and within the limits.

Bytes are counted here, then parsed by httptools. `rejections` has the limits: a head of `MAX_HEAD` bytes and
`MAX_FIELDS` fields, trailers included, and a body of `MAX_BODY` bytes as transferred, with chunk sizes.
"""

from voting.web.rejections import MAX_BODY, MAX_FIELDS, MAX_HEAD

FRAMING_FIELDS = {b"content-length", b"transfer-encoding", b"upgrade", b"expect", b"host"}  # for `add_field`


class RequestFraming:
    """One request as it arrives."""

    __slots__ = (
        *("_fields", "_has_host", "_max_body", "_size", "_tail", "chunked", "error", "expects_continue", "in_body"),
        *("received", "remaining", "upgrade"),
    )

    def __init__(self, max_body: int = MAX_BODY) -> None:
        self._max_body = max_body
        self.error = 0  # the status to reject the request with
        self.in_body = False
        self.chunked = self.upgrade = self.expects_continue = False
        self.remaining = 0  # bytes of the body still to come; at first Content-Length
        self.received = 0  # bytes; set by the protocol
        self._size = 0  # bytes of the head; then of the chunked body
        self._fields = 0  # header fields and trailers
        self._has_host = False
        self._tail = b""  # the last three bytes of an incomplete head, in which its end may begin

    def next_part(self, data: bytes) -> int:
        """Return how many bytes of `data` to parse before the next call, or set `error`."""
        if not self.in_body:
            known = self._tail + data  # the blank line that ends the head may have begun earlier
            end = known.find(b"\r\n\r\n")
            if end < 0:
                self._tail = known[-3:]
                end = len(data)
            else:
                end += 4 - len(self._tail)
                self._tail = b""
            self._size += end
            if self._size > MAX_HEAD:
                self.error = 431
        elif self.chunked:
            end = len(data)  # only the parser knows where it ends; what follows is discarded
            self._size += end
            if self._size > self._max_body:
                self.error = 413
        else:
            end = min(self.remaining, len(data))
            self.remaining -= end
        return end

    def add_field(self, name: bytes, value: bytes) -> None:
        """Store a header field whose name, in lower case, is one of `FRAMING_FIELDS`."""
        if name == b"host":
            if self._has_host:  # a proxy may have used the first one
                self.error = 400
            self._has_host = True
        elif name == b"content-length":
            self.remaining = int(value)
        elif name == b"transfer-encoding":
            self.chunked = True
        elif name == b"upgrade":
            self.upgrade = True
        else:  # Expect
            self.expects_continue = value.lower() == b"100-continue"

    def add_trailer(self) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            self.error = 431

    def end_head(self, version: str, fields: int, *, is_websocket: bool) -> None:
        """Check the head, with its HTTP version and number of fields; set `error`, or begin the body."""
        if version == "1.1":  # RFC 9112, section 3.2; RFC 6455, section 4.1
            is_valid = self._has_host and not (is_websocket and (self.chunked or self.remaining))
        else:
            is_valid = version == "1.0" and not is_websocket
            self.expects_continue = False  # RFC 9110, section 10.1.1
        if fields > MAX_FIELDS:
            self.error = 431
        elif self.remaining > self._max_body:
            self.error = 413
        elif not is_valid:
            self.error = 400
        else:
            self.in_body, self._size, self._fields = True, 0, fields
