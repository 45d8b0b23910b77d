"""What the web services share: listening, serving and draining."""

import asyncio
import contextlib
import functools
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from voting.service.lifecycle import Stop
from voting.web.addresses import ConnectionLimit
from voting.web.buffers import BufferLimit
from voting.web.protocol import Protocol

DRAIN_SECONDS = 8
BACKLOG = 4096  # connections that wait to be accepted, as many as Linux allows; one more would have to try again in 1 s
RECEIVE_BUFFER = 8 * 1024  # bytes for each connection in the kernel, which doubles it: requests are small
SEND_BUFFER = 64 * 1024
PRIVATE_CONNECTIONS = 100
PER_ADDRESS = 6_000  # connections of a process; idle, they take 15 MiB
REJECTED = 500  # connections beyond the limit that get a 503; any further one is cut
BUFFERED = 3 * 1024 * 1024  # bytes that the connections of one port may hold in all


class Server(uvicorn.Server):
    """Uvicorn's server, without its signal handling and with the deadlines of `protocol`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handling to `lifecycle`."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Check all connections once a second; Uvicorn calls this ten times a second."""
        if counter % 10 == 0:
            self.check_connections()
        return await super().on_tick(counter)

    def check_connections(self) -> None:
        """Close those whose clients have taken too long."""
        now = asyncio.get_running_loop().time()
        for each in list(self.server_state.connections):
            if isinstance(each, Protocol):
                each.check(now)


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


def connection_limit(most: int, *, shared: bool = False) -> ConnectionLimit:
    """Return a limit for one port of a service.

    Args:
        most: connections; fewer where the process may not open twice as many files.
        shared: one address may have all of them, since it is a proxy's. Otherwise it may have three quarters, and at
            most `PER_ADDRESS`.
    """
    most = min(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    return ConnectionLimit(most, 0 if shared else min(most * 3 // 4, PER_ADDRESS))


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    stop: Stop,
    *,
    limit: ConnectionLimit | None = None,
    on_rejection: Callable[[int], None] = lambda _: None,
    **options: Any,
) -> None:
    """Serve on a listening socket until told to stop; then take no more connections, and finish what is in flight.

    Args:
        app: the ASGI application.
        sock: from `listen`.
        stop: ends it.
        limit: of connections; by default `PRIVATE_CONNECTIONS`, enough for probes and Prometheus.
        on_rejection: called with the status of each request that is answered before the application gets it.
        options: more of Uvicorn's.
    """
    limit = limit or connection_limit(PRIVATE_CONNECTIONS, shared=True)
    config = uvicorn.Config(
        app,
        loop="none",
        http=functools.partial(Protocol, limit, ConnectionLimit(REJECTED, 0), BufferLimit(BUFFERED), on_rejection),  # type: ignore[arg-type]
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
        while True:  # as long as connections are closed
            await asyncio.sleep(1)
            server.check_connections()

    ending = asyncio.create_task(end())
    try:
        await server.serve(sockets=[sock])
    finally:
        ending.cancel()
