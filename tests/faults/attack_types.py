"""The types of attacks on one connection: requests, connections at once, slow clients, frames and handshakes."""

import asyncio
import collections
import contextlib
import itertools
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

from tests.faults.viewers import OPENING

ADDRESS = "127.0.0.66"
UNREAD = 40  # connections to each service
PARALLEL = 50  # connections to each service that read
SLOW = 50  # connections to each service
ESTABLISHED = 1  # first byte of TCP_INFO: the state of a connection
SEND_BUFFER = 64 * 1024  # bytes that wait in the kernel, which doubles it
MOST_SENT = 512 * 1024  # bytes; the buffers before a service that does not read hold about 200 KB
CUT_WITHIN = 30.0  # seconds, after which a connection that should have been closed is "left"
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
Outcomes = collections.Counter[str]
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[int, float], Awaitable[Outcomes]]  # of a port, until a time


@contextlib.asynccontextmanager
async def connection(port: int, limit: int = 65536) -> AsyncIterator[Connection]:
    """Open a connection; abort it in the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0), limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def send(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    """Send as fast as the other side reads, until it closes the connection."""
    with contextlib.suppress(OSError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)


async def outcome(reader: asyncio.StreamReader) -> str:
    """Read to the end; return the status of the first answer."""
    line = b""
    with contextlib.suppress(OSError, ValueError):
        line = await reader.readline()
        while await reader.read(65536):
            pass
    return line.split()[1].decode() if line else "cut"


async def _until(end: float, work: Awaitable[str]) -> str:
    try:
        async with asyncio.timeout(max(0.1, end - time.monotonic())):
            return await work
    except TimeoutError:
        return "left"
    except OSError:
        return "cut"


def repeated(*parts: bytes, then: bytes = b"", times: int | None = None) -> Callable[[], Iterator[bytes]]:
    """Return a function that makes a request: some parts, then one repeated, in pieces of 64 KB."""
    piece = then * (65536 // len(then)) if then else b""
    return lambda: itertools.chain(parts, itertools.repeat(piece) if times is None else itertools.repeat(piece, times))


def requests(make: Callable[[], Iterable[bytes]], *, pace: float = 0) -> Attack:
    """Return an attack: requests one after another, each on a new connection, `pace` seconds apart."""

    async def one(port: int) -> str:
        async with connection(port) as (reader, writer):
            sending = asyncio.create_task(send(writer, make()))
            try:
                return await outcome(reader)
            finally:
                sending.cancel()

    async def attack(port: int, end: float) -> Outcomes:
        found: Outcomes = Outcomes()
        while time.monotonic() < end:
            found[await _until(time.monotonic() + CUT_WITHIN, one(port))] += 1
            await asyncio.sleep(pace)
        return found

    return attack


def at_once(number: int, one: Callable[[int], Awaitable[str]], *, is_cut: bool = True) -> Attack:
    """Return an attack: several connections at the same time; `is_cut` waits longer for their end."""

    async def attack(port: int, end: float) -> Outcomes:
        last = time.monotonic() + CUT_WITHIN if is_cut else end
        return Outcomes(await asyncio.gather(*(_until(last, one(port)) for _ in range(number))))

    return attack


async def pipelined_and_read(port: int) -> str:
    """Send requests as fast as possible, and read the answers."""
    async with connection(port) as (reader, writer):
        sending = asyncio.create_task(send(writer, itertools.repeat(GET * 2000)))
        try:
            return await outcome(reader)
        finally:
            sending.cancel()


async def pipelined_and_not_read(port: int) -> str:
    """Send 4,000 requests, and read nothing."""
    async with _small_window(port, 4000) as sock:
        while _is_open(sock):
            await asyncio.sleep(0.2)
    return "cut"


async def read_slowly(port: int) -> str:
    """Send 1,000 requests, and read 200 bytes of the answers in a second."""
    async with _small_window(port, 1000) as sock:
        while _is_open(sock):
            await asyncio.get_running_loop().sock_recv(sock, 100)
            await asyncio.sleep(0.5)
    return "cut"


def _is_open(sock: socket.socket) -> bool:
    """Ask the kernel: to read would show the end only after what was sent before it."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED


@contextlib.asynccontextmanager
async def _small_window(port: int, number: int) -> AsyncIterator[socket.socket]:
    """Open a connection whose kernel keeps few answers, and send a number of requests on it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((ADDRESS, 0))
        await loop.sock_connect(sock, ("127.0.0.1", port))
        sending = asyncio.create_task(loop.sock_sendall(sock, GET * number))
        try:
            yield sock
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


def slow(first: bytes, then: bytes) -> Attack:
    """Return an attack: requests that never end, a few bytes a second."""

    async def one(port: int) -> str:
        async with connection(port) as (reader, writer):
            writer.write(first)
            answer = asyncio.create_task(outcome(reader))
            try:
                while not answer.done():
                    await asyncio.wait([answer], timeout=1)
                    writer.write(then)
                return await answer
            finally:
                answer.cancel()

    return at_once(SLOW, one)


def frames(frame: bytes, *, reads: bool = True) -> Attack:
    """Return an attack: WebSockets that send one frame as fast as possible; a closed one is replaced.

    Those that do not read send more after the close frame; the outcome is "read on" if the service reads `MOST_SENT`.
    """
    piece = frame * 5000

    async def one(port: int) -> str:
        async with connection(port, 65536 if reads else 1) as (reader, writer):
            writer.write(OPENING % (b"/ws", port))
            if not reads:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                await send(writer, itertools.repeat(piece, MOST_SENT // len(piece)))
                return "cut" if writer.is_closing() else "read on"
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head:
                return head.split()[1].decode()
            sending = asyncio.create_task(send(writer, itertools.repeat(piece)))
            received = b""
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    received = received[-200:] + data
            sending.cancel()
            _, close, code = received.rpartition(b"\x88")
            return str(int.from_bytes(code[1:3], "big")) if close else "cut"

    async def attack(port: int, end: float) -> Outcomes:
        found: Outcomes = Outcomes()

        async def again() -> None:
            while time.monotonic() < end:
                found[await _until(time.monotonic() + CUT_WITHIN if reads else end, one(port))] += 1

        await asyncio.gather(*(again() for _ in range(3)))
        return found

    return attack


def handshakes(path: bytes, held: int) -> Attack:
    """Return an attack: WebSockets opened as fast as possible, five at a time, each closed `held` openings later."""

    async def attack(port: int, end: float) -> Outcomes:
        found: Outcomes = Outcomes()
        waiting: collections.deque[asyncio.StreamWriter] = collections.deque()

        async def one() -> str:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(ADDRESS, 0))
            waiting.append(writer)
            writer.write(OPENING % (path, port))
            line = await reader.readline()
            if len(waiting) > held:
                waiting.popleft().transport.abort()
            return line.split()[1].decode() if line else "cut"

        async def again() -> None:
            while time.monotonic() < end:
                found[await _until(time.monotonic() + CUT_WITHIN, one())] += 1

        await asyncio.gather(*(again() for _ in range(5)))
        for writer in waiting:
            writer.transport.abort()
        return found

    return attack
