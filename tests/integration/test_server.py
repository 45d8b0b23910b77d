"""An answer in one write is the answer that Uvicorn would give."""

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from voting.service.lifecycle import Stop
from voting.web.responses import send_ok
from voting.web.server import BACKLOG, listen, serve

pytestmark = pytest.mark.anyio
LARGE = 8_000_000  # more than the buffers between two programs hold
ALLOWED = int(Path("/proc/sys/net/core/somaxconn").read_text())
HOST = b"Host: x\r\n"


unsent: list[int] = []  # bytes that waited for the reader after each large answer


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the text in the path; under /long by ASGI messages, otherwise in one write."""
    await receive()
    way, _, text = scope["path"].strip("/").partition("/")
    body = text.encode() * (LARGE if scope["query_string"] else 1)

    async def messages(message: Message) -> None:
        await send(message)

    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send_ok(scope, messages if way == "long" else send, headers, body)
    if scope["query_string"]:
        cycle: RequestResponseCycle = send.__self__  # type: ignore[attr-defined]
        unsent.append(cycle.transport.get_write_buffer_size())


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    stop = Stop()
    with listen("127.0.0.1:0") as sock:
        serving = asyncio.create_task(serve(application, sock, stop))
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            stop.set()
            await serving


async def read_all(request: bytes) -> bytes:
    """Return all that a server sends until it closes the connection, without the date."""
    async with connected() as (reader, writer), asyncio.timeout(5):
        writer.write(request)
        return re.sub(rb"date: [^\r]+", b"date", await reader.read())


@pytest.mark.parametrize(
    ("method", "version", "header"),
    [
        (b"GET", b"1.1", b"Connection: close\r\n"),
        (b"HEAD", b"1.1", b"Connection: close\r\n"),
        (b"POST", b"1.1", b"Connection: close\r\n"),
        (b"GET", b"1.0", b""),
        (b"GET", b"1.0", b"Connection: keep-alive\r\n"),
    ],
)
async def test_both_ways_give_the_same_answer(method: bytes, version: bytes, header: bytes) -> None:
    first, second = [await read_all(b"%b /%b/x HTTP/%b\r\n%b%b\r\n" % (method, way, version, HOST, header))
                     for way in (b"short", b"long")]  # fmt: skip
    assert sorted(first.split(b"\r\n")) == sorted(second.split(b"\r\n"))
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\n" if method == b"HEAD" else b"\r\n\r\nx")


async def test_the_backlog_is_as_long_as_the_system_allows() -> None:
    with listen("127.0.0.1:0") as sock:
        stop = Stop()
        serving = asyncio.create_task(serve(application, sock, stop))
        reader, writer = await asyncio.open_connection(*sock.getsockname())  # it has begun
        most = int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)[28:], sys.byteorder)
        writer.close()
        stop.set()
        await serving
        assert await reader.read() == b""
    assert most == min(BACKLOG, ALLOWED)


async def test_an_answer_in_one_write_does_not_use_uvicorns_send(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(_: RequestResponseCycle, message: Message) -> None:
        raise AssertionError(message)

    monkeypatch.setattr(RequestResponseCycle, "send", send)
    assert (await read_all(b"GET /short/x HTTP/1.1\r\n%bConnection: close\r\n\r\n" % HOST)).endswith(b"\r\n\r\nx")


async def test_requests_sent_ahead_are_answered_in_order_on_a_connection_that_stays() -> None:
    texts = [b"%d" % number for number in range(10)]
    async with connected() as (reader, writer), asyncio.timeout(5):
        for _ in range(2):
            writer.write(b"".join(b"GET /short/%b HTTP/1.1\r\n%b\r\n" % (text, HOST) for text in texts))
            for text in texts:
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"connection: close" not in head
                assert await reader.readexactly(len(text)) == text


async def test_a_reader_that_is_slow_gets_everything_and_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.web.server.BUFFERED", 2 * LARGE)
    async with connected() as (reader, writer), asyncio.timeout(20):
        for text in b"abcdefgh":
            writer.write(b"GET /short/%c?large HTTP/1.1\r\n%b\r\n" % (text, HOST))
        for text in b"abcdefgh":
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(LARGE) == bytes([text]) * LARGE
    assert max(unsent) < 1.1 * LARGE
