"""Listen on a socket, serve an application on it, and drain the connections."""

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

DRAIN_SECONDS = 8  # that requests in hand may take when the service stops
CHECK_SECONDS = 1.0  # between two checks of all connections
TURN = 500  # connections that are checked before the event loop runs other tasks
BACKLOG = (
    4096  # connections that wait to be accepted, as many as Linux allows; the client of one more retries after 1 s
)
RECEIVE_BUFFER = 8 * 1024  # bytes for each connection in the kernel, which doubles it: requests are small
SEND_BUFFER = 64 * 1024
PRIVATE_CONNECTIONS = 100  # enough for probes and Prometheus
PER_ADDRESS = 6_000  # connections of a process; idle, they take 15 MiB
REJECTED = 500  # connections beyond the limit that get a 503; any further one is cut
BUFFERED = 3 * 1024 * 1024  # bytes that the connections of one port may hold in all


class Checkable(Protocol):
    """One of Uvicorn's connections: of HTTP or, after an upgrade, of the application's own protocol."""

    def check(self, now: float) -> None:
        """Close the connection if its client has taken too long; `now` is by the event loop's clock."""


class Server(uvicorn.Server):
    """Uvicorn's server, without its signal handling, and with time limits for clients."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handling to `lifecycle`."""
        yield

    async def check_connections(self) -> None:
        """Call `check` of each connection, once a second, for ever."""
        connections: set[Checkable] = self.server_state.connections  # type: ignore[assignment]
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            now = asyncio.get_running_loop().time()
            for number, connection in enumerate(tuple(connections), 1):
                if connection in connections:  # or it has ended in the meantime
                    connection.check(now)
                if number % TURN == 0:
                    await asyncio.sleep(0)


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
    for level, option, value in (  # accepted sockets inherit them
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER),
    ):
        sock.setsockopt(level, option, value)
    return sock


def connection_limit(total: int, *, shared: bool = False) -> ConnectionLimit:
    """Return a limit for one port of a service.

    Args:
        total: connections; fewer if the process may not open twice as many files.
        shared: one address may have all of them, since it is a proxy's. Otherwise it may have three quarters, and at
            most `PER_ADDRESS`.
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
    **options: Any,
) -> None:
    """Serve on a listening socket until `stop` is set; then accept no connections, and finish the requests in hand.

    Args:
        app: the ASGI application.
        sock: from `listen`.
        stop: is set when the service stops.
        limit: of connections; by default `PRIVATE_CONNECTIONS`.
        on_rejection: called with the status of each answer that is sent in place of the application.
        options: more settings of Uvicorn.
    """
    limit = limit or connection_limit(PRIVATE_CONNECTIONS, shared=True)
    config = uvicorn.Config(
        app,
        loop="none",
        http=functools.partial(HttpProtocol, limit, ConnectionLimit(REJECTED, 0), BufferLimit(BUFFERED), on_rejection),  # type: ignore[arg-type]
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        workers=1,  # or uvicorn would read WEB_CONCURRENCY, which is our own setting
        timeout_graceful_shutdown=DRAIN_SECONDS,
        **({"ws": "none"} | options),
    )
    server = Server(config)

    async def end() -> None:
        await stop.wait()
        server.should_exit = True

    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(end())
        checking = tasks.create_task(server.check_connections())  # which goes on while connections are drained
        await server.serve(sockets=[sock])
        ending.cancel()
        checking.cancel()
