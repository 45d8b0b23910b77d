"""Checks whether a service is ready, over TCP, a Unix socket or HTTPS.

Every container runs `python -m voting.service.probe ADDRESS` every few seconds, so this module imports the standard
library only; the `voting` command would cost four times as much. The exit code is 0 if the service is ready, else 1.
"""

import asyncio
import contextlib
import ssl
import sys
from typing import Any

TIMEOUT = 2.0  # seconds


async def is_ready(address: str) -> bool:
    """Whether a service is ready; see `failure`."""
    return await failure(address) is None


async def failure(address: str) -> str | None:
    """Request `/readyz`; return None if the status is 200 within `TIMEOUT` seconds, else what was wrong.

    Args:
        address: `host:port`, `unix:/path`, or a URL, whose path is put before `/readyz`. The certificate of an https
            URL must be valid for its host, by the system's authorities or those in the file SSL_CERT_FILE.
    """
    try:
        head, connect = _url_request(address) if "://" in address else _local_request(address)
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await connect
            try:
                writer.write(head.encode("ascii"))
                status = (await reader.readline()).decode("latin-1").strip()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return f"no answer within {TIMEOUT:.0f} s"
    except (OSError, ValueError) as error:  # ValueError: not an address
        return str(error) or type(error).__name__
    return None if " 200 " in f"{status} " else status or "it closed the connection"


def _local_request(address: str) -> tuple[str, Any]:
    """Return the head of the request, and a coroutine that connects."""
    head = "GET /readyz HTTP/1.0\r\n\r\n"
    if address.startswith("unix:"):
        return head, asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the address that a service listens on
    return head, asyncio.open_connection(local.get(host, host.strip("[]")), int(port))


def _url_request(url: str) -> tuple[str, Any]:
    from urllib.parse import quote, urlsplit  # noqa: PLC0415 - the probes of containers do not need it

    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    authority = parts.netloc.rpartition("@")[2]
    if ":" not in host:
        authority = authority.encode("idna").decode("ascii")
    path = quote(parts.path.rstrip("/"), safe="/%")
    head = f"GET {path}/readyz HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    port = parts.port or (443 if secure else 80)
    return head, asyncio.open_connection(host, port, ssl=ssl.create_default_context() if secure else None)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(is_ready(sys.argv[1])) else 1)
