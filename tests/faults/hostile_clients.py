"""Hostile clients on one address of their own: broken, endless, huge, forged and too many requests.

python -m tests.faults.hostile_clients VOTE_PORT RESULT_PORT SECONDS

Prints as JSON the number of each status by attack (0: closed without an answer), and how many idle connections were
refused. A process of its own, so that the voters of the load generator do not wait for it.
"""

import asyncio
import base64
import collections
import contextlib
import json
import os
import sys
import time

from tests.faults.viewers import allow_many_files

ADDRESS, IDLE_ADDRESS = "127.0.0.66", "127.0.0.67"
IDLE = 2000  # connections to each service
BIG = 10_000_000
FLOOD = 500
HEAD = b"Host: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
Found = collections.defaultdict[str, collections.Counter[int]]


def vote(body: bytes, more: bytes = b"") -> bytes:
    """Return a POST."""
    return b"POST / HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (HEAD, more, len(body), body)


def forged() -> list[bytes]:
    """Return votes with cookies that the service did not sign."""
    half = base64.urlsafe_b64encode(os.urandom(16)).rstrip(b"=")
    values = (half + b"." + half, half, b".", b"a" * 8000, b"\xff" * 45, half + b"." + half[:-1] + b"=", b"x.y.z")
    return [vote(b"vote=a", b"Cookie: voter_id=%s\r\n" % value) for value in values]


ATTACKS = {
    "vote": {
        "odd forms": [
            vote(body)
            for body in (b"vote=%00", b"vote=a%00", b"", b"vote=", b"vote=a&vote=b", b"vote[]=a", b"\0" * 4096, b"%")
        ],
        "forged cookies": forged(),
        "big bodies": [vote(b"vote=" + b"a" * BIG)],
        "announced bodies": [b"POST / HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (HEAD, BIG)],
        "endless chunks": [
            b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n" % HEAD
            + b"10000\r\n%s\r\n" % (b"a" * 65536) * 150
        ],
        "broken requests": [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200),
            b"GET / HTTP/9.9\r\n\r\n\r\n",
            b"POST / HTTP/1.1\r\n%sContent-Length: -1\r\n\r\nvote=a" % HEAD,
            b"POST / HTTP/1.1\r\n%sContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nvote=a" % HEAD,
            b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000,
            b"DELETE / HTTP/1.1\r\n%s\r\n" % HEAD,
            b"POST /p/..%%2f..%%2fetc HTTP/1.1\r\n%s\r\n" % HEAD,
            b"OPTIONS * HTTP/1.1\r\n%s\r\n" % HEAD,
            b"CONNECT elsewhere.example:443 HTTP/1.1\r\n%s\r\n" % HEAD,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
        "odd but valid": [
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 100,
            b"GET http://127.0.0.1/ HTTP/1.1\r\n%s\r\n" % HEAD,
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: h2c, websocket\r\nConnection: Upgrade\r\n\r\n",
            vote(b"vote=a", b"Expect: 100-continue\r\n"),
        ],
    },
    "result": {
        "bare sockets": [
            b"GET /ws HTTP/1.1\r\n%s\r\n" % HEAD,
            UPGRADE + b"\r\n",
            UPGRADE + b"Sec-WebSocket-Key: x\r\n\r\n",
            UPGRADE.replace(b"/ws", b"/p/%00/ws") + b"Sec-WebSocket-Key: %s\r\n\r\n" % base64.b64encode(os.urandom(16)),
            UPGRADE + b"Origin: https://elsewhere.example\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ],
    },
}
FRAMES = (os.urandom(4096), b"\x81\x05hello", b"\x81\xff" + b"\xff" * 8, b"\xf3\x80\0\0\0\0", b"\x88\x81\0\0\0\0x")


async def send(port: int, request: bytes) -> int:
    """Send a request; return the status of the answer, 0 for none."""
    try:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
            try:
                sending = asyncio.create_task(_send(writer, request))
                line = await reader.readline()
                sending.cancel()
                return int(line.split()[1]) if line else 0
            finally:
                writer.transport.abort()
    except (OSError, ValueError):
        return 0


async def _send(writer: asyncio.StreamWriter, request: bytes) -> None:
    try:
        for start in range(0, len(request), 65536):
            writer.write(request[start : start + 65536])
            await writer.drain()
    except OSError:
        return  # closed by the service, perhaps after an answer


async def garbage(port: int, frame: bytes) -> int:
    """Open a WebSocket, then send bytes that are no frame; return the close code, 0 for none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
    try:
        async with asyncio.timeout(15):
            writer.write(UPGRADE + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head:
                return int(head.split()[1])
            writer.write(frame)
            rest = await reader.read()
            before, close, code = rest.rpartition(b"\x88")
            del before
            return int.from_bytes(code[1:3], "big") if close else 0
    except OSError:
        return 0
    finally:
        writer.transport.abort()


async def flood(port: int) -> collections.Counter[int]:
    """As many votes as go down one connection, each as if from elsewhere."""
    statuses: collections.Counter[int] = collections.Counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
    for number in range(FLOOD):  # without a wait for answers: how fast is up to the service
        spoofed = b"X-Forwarded-For: 10.%d.%d.1\r\n" % divmod(number, 250)
        writer.write(vote(b"vote=a", spoofed).replace(b"Connection: close\r\n", b""))
    for _ in range(FLOOD):
        head = await reader.readuntil(b"\r\n\r\n")
        statuses[int(head.split()[1])] += 1
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    writer.transport.abort()
    return statuses


async def idle(port: int, stop: asyncio.Event) -> int:
    """Open many connections and send nothing until stopped; return how many were refused."""
    connections = []

    async def connect() -> None:
        with contextlib.suppress(OSError):
            connections.append(await asyncio.open_connection("127.0.0.1", port, local_addr=(IDLE_ADDRESS, 0), limit=1))

    for _ in range(IDLE // 100):  # all within the time after which a service closes the first
        await asyncio.gather(*(connect() for _ in range(100)))
    await stop.wait()
    refused = 0
    for reader, writer in connections:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.001):
                refused += (await reader.read(12)).endswith(b"503")
        writer.transport.abort()
    return refused


async def main(vote_port: int, result_port: int, seconds: float) -> None:
    """Run all attacks again and again."""
    ports = {"vote": vote_port, "result": result_port}
    end = time.monotonic() + seconds
    stop = asyncio.Event()
    idling = {service: asyncio.create_task(idle(port, stop)) for service, port in ports.items()}
    found: Found = collections.defaultdict(collections.Counter)
    while time.monotonic() < end or not found:
        for service, attacks in ATTACKS.items():
            for name, requests in attacks.items():
                for request in requests:
                    found[name][await send(ports[service], request)] += 1
        for frame in FRAMES:
            found["garbage frames"][await garbage(result_port, frame)] += 1
        found["flood"] += await flood(vote_port)
    stop.set()
    print(json.dumps({"answers": found, "idle": {service: await task for service, task in idling.items()}}))


if __name__ == "__main__":
    allow_many_files()
    os.nice(10)  # an attacker's CPU time is not the service's
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
