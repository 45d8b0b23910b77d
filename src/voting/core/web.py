"""What the web services share: listening, serving and draining."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from voting.core.lifecycle import Stop

DRAIN_SECONDS = 8
REQUEST_SECONDS = 10  # from its first byte, or the connection's, to its last
MAX_HEAD = 64 * 1024  # bytes


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP, but a request has to come in good time, and its head may not go on for ever.

    https://cheatsheetseries.owasp.org/cheatsheets/Denial_of_Service_Cheat_Sheet.html
    """

    late: asyncio.TimerHandle | None = None
    unread = 0  # bytes of a head that has not ended

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The clock starts."""
        super().connection_made(transport)
        self.late = self.loop.call_later(REQUEST_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, up to a limit."""
        self.unread += len(data)
        super().data_received(data)
        if self.unread > MAX_HEAD and not self.transport.is_closing():
            self.transport.abort()

    def on_message_begin(self) -> None:
        """The clock starts again on a connection that is kept."""
        super().on_message_begin()
        if self.late is None:
            self.late = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        super().on_headers_complete()
        self.unread = 0

    def on_body(self, body: bytes) -> None:
        """A body is its reader's to limit."""
        super().on_body(body)
        self.unread = 0

    def on_message_complete(self) -> None:
        """The request is here."""
        super().on_message_complete()
        self.unread = 0
        self.in_time()

    def handle_websocket_upgrade(self) -> None:
        """From here on the WebSocket's own keep-alive counts."""
        self.in_time()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for."""
        self.in_time()
        super().connection_lost(exc)

    def in_time(self) -> None:
        """Stop the clock."""
        if self.late:
            self.late.cancel()
            self.late = None


class Server(uvicorn.Server):
    """Uvicorn, with its signals left to `lifecycle`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield


def listen(address: str) -> socket.socket:
    """Open a listening socket at `host:port`, or at `unix:/path` for this user alone.

    Raises:
        OSError: the address is taken or not ours.
    """
    if address.startswith("unix:"):
        path = Path(address.removeprefix("unix:"))
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(64)
        return sock
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    return sock


async def serve(app: ASGIApp, sock: socket.socket, stop: Stop, **options: Any) -> None:
    """Serve on a listening socket until told to stop; then take no more connections, and finish what is in flight."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=Protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        workers=1,  # or uvicorn would read WEB_CONCURRENCY, which is our own setting
        timeout_keep_alive=30,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        **({"ws": "none"} | options),
    )
    server = Server(config)

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    ending = asyncio.create_task(end())
    try:
        await server.serve(sockets=[sock])
    finally:
        ending.cancel()
