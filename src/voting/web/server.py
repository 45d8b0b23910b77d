"""Opens a listening socket, serves an application on it, and drains the connections."""

import asyncio
import contextlib
import functools
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp

from voting.service.lifecycle import Stop
from voting.web.addresses import ConnectionLimit
from voting.web.buffers import BufferLimit
from voting.web.protocol import HttpProtocol

DRAIN_SECONDS = 8  # time limit for current requests when the service stops
CHECK_SECONDS = 1.0  # between two checks of all connections
CHECKS_PER_YIELD = 500  # connections checked before the event loop runs other tasks
BACKLOG = 4096  # connections that wait to be accepted, the maximum of Linux; further clients retry after 1 s
RECEIVE_BUFFER = 8 * 1024  # bytes of each connection, which the kernel doubles: requests are small
SEND_BUFFER = 64 * 1024
PRIVATE_CONNECTIONS = 100  # enough for probes and Prometheus
PER_ADDRESS = 6_000  # connections of one address; idle, they take 15 MiB
REJECTED = 500  # connections beyond the limit that get a 503; any further one is cut
BUFFERED = 3 * 1024 * 1024  # bytes held for all clients of one port


class Checkable(Protocol):
    """A connection of Uvicorn: `HttpProtocol` or, after an upgrade, the application's own protocol."""

    def check(self, now: float) -> None:
        """Close the connection if its client has exceeded a time limit; `now` is the time of the event loop."""


class Server(uvicorn.Server):
    """Uvicorn's server, without its signal handling, and with time limits for clients."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handling to `lifecycle`."""
        yield

    async def check_connections(self) -> None:
        connections: set[Checkable] = self.server_state.connections  # type: ignore[assignment]
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            for number, connection in enumerate(tuple(connections), 1):
                if connection in connections:  # it may have closed meanwhile
                    connection.check(now)
                if number % CHECKS_PER_YIELD == 0:
                    await asyncio.sleep(0)


def listen(address: str) -> socket.socket:
    """Open a listening socket at `host:port`, or at `unix:/path` for this user only."""
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
    for level, option, value in (  # accepted sockets inherit them
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER),
    ):
        sock.setsockopt(level, option, value)
    return sock


def connection_limit(total: int, *, shared: bool = False) -> ConnectionLimit:
    """Return a limit of `total` connections, at most half of the number of files that the process may open.

    Unless all connections come from a proxy (`shared`), one address may have three quarters of them, and at most
    `PER_ADDRESS`.
    """
    total = min(total, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    return ConnectionLimit(total, 0 if shared else min(total * 3 // 4, PER_ADDRESS))


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    stop: Stop,
    *,
    limit: ConnectionLimit | None = None,
    on_rejection: Callable[[int], None] = lambda _: None,
    protocol: type[HttpProtocol] = HttpProtocol,
    **options: Any,
) -> None:
    """Serve on a listening socket until `stop` is set; then accept no connections, and finish the current requests.

    Args:
        app: the ASGI application.
        sock: from `listen`.
        stop: the service's stop event.
        limit: limits connections; by default to `PRIVATE_CONNECTIONS`.
        on_rejection: called with the status of each response of `REJECTIONS` that is sent.
        protocol: has the limit of a request body.
        options: more settings of Uvicorn.
    """
    limit = limit or connection_limit(PRIVATE_CONNECTIONS, shared=True)
    config = uvicorn.Config(
        app,
        loop="none",
        http=functools.partial(protocol, limit, ConnectionLimit(REJECTED, 0), BufferLimit(BUFFERED), on_rejection),  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        workers=1,  # else Uvicorn would read WEB_CONCURRENCY, which is our own setting
        timeout_graceful_shutdown=DRAIN_SECONDS,
        **({"ws": "none"} | options),
    )
    server = Server(config)

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(end())
        checking = tasks.create_task(server.check_connections())  # also while connections are drained
        await server.serve(sockets=[sock])
        ending.cancel()
        checking.cancel()
