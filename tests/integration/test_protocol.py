"""What one connection may cost, and how a client that asks for more is answered."""

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from httptools import HttpRequestParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tests.waiting import until
from voting.service.lifecycle import Stop
from voting.web.addresses import ConnectionLimit
from voting.web.rejections import MAX_BODY, MAX_FIELDS, MAX_HEAD
from voting.web.responses import send_ok
from voting.web.server import listen, serve

pytestmark = pytest.mark.anyio
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST /0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Echo:
    """An application that answers with path and body; it can be held, and notes how many requests it had at a time."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.requests = self.active = self.most = self.aborted = 0
        self.rejected: list[int] = []
        self.size = 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            body = scope["path"].encode()
            while body != b"/early":  # which is answered before its body is here
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.aborted += 1
                    return
                body += message["body"]
                if not message["more_body"]:
                    break
            await self.free.wait()
            body *= self.size
            await send_ok(scope, send, [(b"content-length", b"%d" % len(body))], body)
        finally:
            self.active -= 1


@asynccontextmanager
async def serving(limit: ConnectionLimit | None = None) -> AsyncIterator[tuple[Echo, int]]:
    app, stop = Echo(), Stop()
    with listen("127.0.0.1:0") as sock:
        port = sock.getsockname()[1]
        task = asyncio.create_task(serve(app, sock, stop, limit=limit, on_rejection=app.rejected.append))
        try:
            yield app, port
        finally:
            stop.set()
            await task


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def test_what_a_client_sends_ahead_waits_unread_until_its_request_is_answered() -> None:
    async with serving() as (app, port), asyncio.timeout(10):
        app.free.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ahead = b"".join(GET % number for number in range(200_000))
        writer.write(ahead)
        await until(lambda: app.requests)
        sending = asyncio.create_task(writer.drain())
        done, _ = await asyncio.wait([sending], timeout=0.3)  # this long nothing happens
        assert not done
        assert app.requests == 1
        app.free.set()
        for number in range(500):
            assert await read_answer(reader) == (200, b"/%d" % number)
        assert app.most == 1
        sending.cancel()
        writer.transport.abort()


def requests() -> st.SearchStrategy[bytes]:
    """A request whose answer leaves the connection open."""
    body = st.binary(max_size=30)
    return st.one_of(
        st.just(b"GET /g HTTP/1.1\r\nHost: x\r\n\r\n"),
        st.just(b"\r\n\r\nGET /g HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200 + b"\r\n\r\n"),
        body.map(lambda b: b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b)),
    )


CASES = st.tuples(st.lists(requests(), min_size=1, max_size=5), st.lists(st.floats(0, 1), max_size=12))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases=st.lists(CASES, min_size=5, max_size=5))
async def test_requests_mean_the_same_however_they_are_cut(cases: list[tuple[list[bytes], list[float]]]) -> None:
    last = CHUNKED + b"2\r\nab\r\n0\r\nA: b\r\n\r\n"
    async with serving() as (_, port), asyncio.timeout(10):
        for sent, shares in cases:
            stream = b"".join([*sent, last]) + b"GET /never HTTP/1.1\r\n\r\n"
            cuts = sorted(int(share * len(stream)) for share in shares)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
                writer.write(stream[begin:end])
                await asyncio.sleep(0)  # each piece may be read alone
            for each in sent:
                body = b"/p" + each.partition(b"\r\n\r\n")[2] if each.startswith(b"POST") else b"/g"
                assert await read_answer(reader) == (200, body)
            assert await read_answer(reader) == (200, b"/0ab")
            assert await reader.read() == b""  # a chunked request is the last one
            writer.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * MAX_FIELDS + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD + b"\r\n\r\n", 431),
        (b"GET /" + b"y" * 10 * MAX_HEAD, 431),
        (b"\r\n" * MAX_HEAD, 431),
        (CHUNKED + b"0\r\n" + b"A: b\r\n" * MAX_FIELDS, 431),
        (CHUNKED + b"0\r\nA: " + b"b" * MAX_BODY, 413),
        (CHUNKED + b"1;" + b"x" * MAX_BODY, 413),
        (CHUNKED + b"1\r\na\r\n" * MAX_BODY, 413),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000, 413),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ],
)
async def test_a_request_out_of_bounds_is_answered_and_then_closed(request_: bytes, status: int) -> None:
    async with serving() as (app, port), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        found, body = await read_answer(reader)
        assert (found, json.loads(body)["status"], json.loads(body)["counted"]) == (status, status, "no")
        assert await reader.read() == b""
        writer.close()
        await until(lambda: not app.active)
        assert app.rejected == [status]


async def test_as_many_fields_and_bytes_as_are_allowed_are_taken() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % MAX_BODY + b"X: y\r\n" * (MAX_FIELDS - 3)
    head += b"Z: " + b"z" * (MAX_HEAD - len(head) - 7) + b"\r\n\r\n"
    assert len(head) == MAX_HEAD
    async with serving() as (_, port), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((head + b"x" * MAX_BODY) * 2)
        for _ in range(2):
            assert (await read_answer(reader))[0] == 200
        writer.close()


@pytest.mark.parametrize(
    ("framing", "body", "answer_"),
    [
        (b"", b"", b"/u"),
        (b"Content-Length: 6\r\n", b"vote=a", b"/uvote=a"),
        (b"Transfer-Encoding: chunked\r\n", b"6\r\nvote=a\r\n0\r\n\r\n", b"/uvote=a"),
    ],
)
async def test_another_protocol_is_not_taken_up_and_the_request_is_answered(
    framing: bytes, body: bytes, answer_: bytes
) -> None:
    head = b"POST /u HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n%b\r\n" % framing
    async with serving() as (_, port), asyncio.timeout(5):
        for pieces in (head + body + GET % 1,), (head, body):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)  # so that each is read alone
            assert await read_answer(reader) == (200, answer_)
            assert await reader.read() == b""
            writer.close()


async def test_a_request_that_begins_with_the_end_of_one_that_has_its_answer_is_a_request_like_others() -> None:
    async with serving() as (app, port), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
        assert await read_answer(reader) == (200, b"/early")
        writer.write(b"helloGET /2 HTTP/1.1\r\nHost: x\r\nX-A:")
        await asyncio.sleep(1.5)  # `check` is called of all connections meanwhile
        writer.write(b"GET /3 HTTP/1.1\r\n\r\n")
        assert await read_answer(reader) == (200, b"/2")
        assert app.requests == 2
        writer.close()


async def test_a_client_that_closes_its_own_end_gets_its_answer() -> None:
    async with serving() as (app, port), asyncio.timeout(5):
        app.free.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET % 1)
        writer.write_eof()
        await until(lambda: app.active)
        await asyncio.sleep(0.05)  # until the end has been seen
        app.free.set()
        assert await read_answer(reader) == (200, b"/1")
        assert await reader.read() == b""
        writer.close()


async def test_clients_that_do_not_go_on_do_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    writers = []
    async with asyncio.timeout(5):
        async with serving() as (app, port):
            app.size = 3_000_000
            for start in (
                b"",
                b"GET / HTT",
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nvote=",
                CHUNKED,
                GET % 1,
            ):
                _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
                writer.write(start)
                writers.append(writer)
            await until(lambda: app.requests == 3)
    assert not caplog.records
    for writer in writers:
        writer.transport.abort()


@pytest.mark.parametrize(
    "start", [b"GET / HTT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nvote=", CHUNKED + b"5\r\nvo"]
)
async def test_a_request_that_does_not_end_is_answered_in_time(start: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.web.protocol.REQUEST_SECONDS", 0.2)
    async with serving() as (app, port), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        assert (await read_answer(reader))[0] == 408
        assert await reader.read() == b""
        writer.close()
        await until(lambda: not app.active)


async def test_a_client_that_sends_no_request_is_closed_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.web.connection.REQUEST_SECONDS", 0.2)
    monkeypatch.setattr("voting.web.protocol.KEEP_ALIVE_SECONDS", 0.2)
    async with serving() as (_, port), asyncio.timeout(5):
        for request in (b"", GET % 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            if request:
                assert await read_answer(reader) == (200, b"/1")
            assert await reader.read() == b""
            writer.close()


async def test_a_client_that_does_not_read_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.web.connection.STUCK_SECONDS", 0.5)
    async with serving() as (app, port), asyncio.timeout(8):
        app.size = 4_000_000
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        writer.write((GET % 1) * 1000)
        with pytest.raises(ConnectionResetError):
            while True:
                writer.write(GET % 1)
                await writer.drain()
                await asyncio.sleep(0.05)
        assert app.requests <= 2  # the second may have been read, and waits for room
        del reader


async def test_one_connection_too_many_gets_a_503_and_others_go_on() -> None:
    limit = ConnectionLimit(3, 2)
    async with serving(limit) as (app, port), asyncio.timeout(5):

        async def ask(address: str) -> tuple[int, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            writer.write(GET % 1)
            return (await read_answer(reader))[0], writer

        first = [await ask("127.0.0.2") for _ in range(3)]
        assert [status for status, _ in first] == [200, 200, 503]
        second = [await ask("127.0.0.3") for _ in range(2)]
        assert [status for status, _ in second] == [200, 503]
        first[0][1].close()
        while not limit.acquire("127.0.0.3"):
            await asyncio.sleep(0.01)
        assert app.rejected == [503, 503]
        for _, writer in (*first, *second):
            writer.close()


HEAD = b"GET /1 HTTP/1.1\r\nHost: x\r\n"
UNFINISHED = [
    HEAD + b"X: " + b"x" * 10_000,
    HEAD + b"a:\r\n" * 90,
    b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 16000\r\n\r\n" + b"x" * 10_000,
    CHUNKED + b"2710\r\n" + b"x" * 10_000,
]


@pytest.mark.parametrize("start", UNFINISHED)
async def test_the_oldest_of_too_many_unfinished_requests_are_refused(
    start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voting.web.server.BUFFERED", 120_000)
    async with serving() as (app, port), asyncio.timeout(5):
        held = []
        for _ in range(20):
            held.append(await asyncio.open_connection("127.0.0.1", port))
            held[-1][1].write(start)
        assert (await read_answer(held[0][0]))[0] == 503
        await until(lambda: len(app.rejected) > 5)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(100):  # what is complete does not add up
            writer.write(HEAD + b"X: " + b"x" * 2000)
            await asyncio.sleep(0.001)  # so that it is read in two pieces
            writer.write(b"\r\n\r\n")
            assert (await read_answer(reader))[0] == 200
        assert app.rejected == [503] * len(app.rejected)
        assert len(app.rejected) < 15
        for _, each in (*held, (reader, writer)):
            each.close()


async def test_too_many_unread_answers_are_cut_off_and_a_client_that_reads_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voting.web.server.BUFFERED", 1_000_000)
    async with serving() as (app, port), asyncio.timeout(8):
        app.size = 200_000
        unread = []
        for _ in range(5):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            unread.append(await asyncio.open_connection(sock=sock, limit=1))
            unread[-1][1].write((GET % 1) * 100)
        with pytest.raises(ConnectionResetError):
            while True:
                unread[0][1].write(GET % 1)
                await unread[0][1].drain()
                await asyncio.sleep(0.01)
        assert app.requests == 5  # none before the answer to the one before was read
        app.size = 1
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((GET % 1) * 2)
        assert [await read_answer(reader) for _ in range(2)] == [(200, b"/1")] * 2
        for _, each in unread:
            each.transport.abort()
        writer.close()


async def test_nothing_is_kept_of_a_request_that_has_its_answer() -> None:
    def kept(kind: type) -> bool:
        gc.collect()
        return any(isinstance(each, kind) for each in gc.get_objects())

    async with serving() as (_, port), asyncio.timeout(60):  # searching all objects takes long
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for _ in range(2):  # an idle connection can be used again
            for reader, writer in clients:
                writer.write(HEAD + b"X: " + b"x" * 10_000 + b"\r\n\r\n")
                assert (await read_answer(reader))[0] == 200
            assert not kept(RequestResponseCycle)
            await until(lambda: not kept(HttpRequestParser))
        for _, writer in clients:
            writer.close()
