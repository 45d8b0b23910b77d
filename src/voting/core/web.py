"""What the web services share: listening, answering, serving and draining."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from voting.core.lifecycle import Stop

DRAIN_SECONDS = 8
REQUEST_SECONDS = 10  # from its first byte, or the connection's, to its last
MAX_HEAD = 64 * 1024  # bytes
BACKLOG = 4096  # connections that wait to be accepted, as many as Linux allows; one more would have to try again in 1 s


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP, but the head of a request may not go on for ever; and it says since when a request is awaited."""

    awaited_since = 0.0  # by the event loop's clock; 0 when none is
    unread = 0.0  # bytes of a head that has not ended

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request is awaited."""
        super().connection_made(transport)
        self.awaited_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, up to a limit."""
        self.unread += len(data)
        super().data_received(data)
        if self.unread > MAX_HEAD:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """The rest of this one is awaited."""
        super().on_message_begin()
        self.awaited_since = self.awaited_since or self.loop.time()

    def on_headers_complete(self) -> None:
        """How long a body may be is for its reader to say."""
        super().on_headers_complete()
        self.unread = float("-inf")

    def on_message_complete(self) -> None:
        """It is all here."""
        super().on_message_complete()
        self.awaited_since = self.unread = 0.0


def answer_at_once(send: Send, head: bytes, body: bytes) -> bool:
    """Answer in one write if `send` is Uvicorn's own and nothing has to be waited for; else do nothing, and say False.

    Uvicorn's `send` writes head and body apart, and looks for line ends in each header: a fifth of the work for a vote.

    Args:
        send: as an ASGI application gets it.
        head: status line and headers in their wire form, with no value that comes from the request.
        body: all of it.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.flow.write_paused or cycle.disconnected:
        return False
    ours = [b"%b: %b\r\n" % header for header in cycle.default_headers]
    ours.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
    cycle.transport.write(b"".join([head, *ours, body]))
    cycle.response_started = cycle.response_complete = True
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


class Server(uvicorn.Server):
    """Uvicorn, but it leaves signals to `lifecycle`, and cuts off whoever takes too long to ask.

    https://cheatsheetseries.owasp.org/cheatsheets/Denial_of_Service_Cheat_Sheet.html
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signals."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; look for the slow once."""
        if counter % 10 == 0:
            latest = asyncio.get_running_loop().time() - REQUEST_SECONDS
            for each in list(self.server_state.connections):
                if isinstance(each, Protocol) and 0 < each.awaited_since < latest:
                    each.transport.abort()
        return await super().on_tick(counter)


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
    sock = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=BACKLOG)
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
        backlog=BACKLOG,
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
