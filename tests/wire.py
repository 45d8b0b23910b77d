"""A minimal HTTP client on asyncio, so that a load generator costs less than the service that it loads."""

import asyncio
import re

COOKIE = re.compile(rb"set-cookie: (voter_id=[^;]+)", re.IGNORECASE)
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answered: asyncio.Future[bytes] | None = None
        self.is_open = True

    @classmethod
    async def connect(cls, port: int, address: str = "") -> "Client":
        """Open a connection to a local port, from a local address if one is given."""
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(cls, "127.0.0.1", port, local_addr=(address, 0) if address else None)
        return client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the transport, and the local port."""
        self._transport = transport
        self.port: int = transport.get_extra_info("sockname")[1]

    def ask(self, request: bytes) -> "asyncio.Future[bytes]":
        """Send a request; return a future of the whole answer."""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        """Collect data until the answer is complete."""
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if end and (length := LENGTH.search(head)) and len(body) >= int(length[1]) and self._answered:
            answer, self._buffer = self._buffer, b""
            if not self._answered.done():
                self._answered.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the pending request, and let `is_open` say so."""
        self.is_open = False
        if self._answered and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed before the answer"))

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def get(port: int, path: bytes = b"/") -> bytes:
    """Return the request for the ballot."""
    return b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (path, port)


def post(port: int, cookie: bytes = b"", choice: bytes = b"a", key: bytes = b"", path: bytes = b"/") -> bytes:
    """Return a request to vote, with a cookie, an idempotency key, or neither."""
    extra = b"Cookie: %s\r\n" % cookie if cookie else b""
    extra += b"Idempotency-Key: %s\r\n" % key if key else b""
    return (
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%sAccept: application/json\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\nvote=%s"
        % (path, port, extra, 5 + len(choice), choice)
    )
