"""Ask a service whether it is ready, over TCP or a Unix socket.

It needs nothing but the standard library: every container runs `python -m voting.core.probe ADDRESS` every few seconds,
and the whole command line would cost four times as much. The exit code is 0 if the service is ready, else 1.
"""

import asyncio
import contextlib
import sys

PATIENCE = 2.0


async def is_ready(address: str) -> bool:
    """Whether `GET /readyz` at `host:port` or `unix:/path` answers 200 within `PATIENCE` seconds."""
    try:
        async with asyncio.timeout(PATIENCE):
            if address.startswith("unix:"):
                reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
            else:
                host, _, port = address.rpartition(":")
                local = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a service listens is where we ask
                reader, writer = await asyncio.open_connection(local.get(host, host.strip("[]")), int(port))
            try:
                writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
                status = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except OSError:  # TimeoutError is one
        return False
    return b" 200 " in status


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(is_ready(sys.argv[1])) else 1)
