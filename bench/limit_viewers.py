"""The limit for viewers: the websockets library's own server and its `broadcast`, on uvloop like ours.

python -m bench.limit_viewers PORT      SIGUSR1 broadcasts a message as long as a snapshot
"""

import asyncio
import signal
import sys

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench import machine

MESSAGE = '{"poll":"default","total":1}'.ljust(250)


async def main(port: int) -> None:
    """Serve until SIGTERM."""
    machine.allow_many_files()
    viewers: set[ServerConnection] = set()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: broadcast(viewers, MESSAGE))

    async def attend(viewer: ServerConnection) -> None:
        viewers.add(viewer)
        try:
            await viewer.wait_closed()
        finally:
            viewers.remove(viewer)

    async with serve(attend, "127.0.0.1", port, compression=None, backlog=4096):
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
