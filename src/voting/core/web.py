"""What the web services share: listening, serving and draining."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from voting.core.lifecycle import Stop

DRAIN_SECONDS = 8


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
        http="httptools",
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
