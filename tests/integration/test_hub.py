"""Viewers on a real server: what they get, and what happens to those that do not read."""

import asyncio
import base64
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from voting.core import metrics, web
from voting.core.ballot import Option, Poll
from voting.core.store import Standing
from voting.result import hub as module
from voting.result.hub import Hub

pytestmark = pytest.mark.anyio


def standing(revision: int, votes: int, question: str = "?") -> Standing:
    return Standing(Poll("default", question, (Option("a", "A"), Option("b", "B"))), revision, {"a": votes}, 0, None)


@asynccontextmanager
async def serving(ping: float = 5) -> AsyncIterator[tuple[Hub, metrics.ResultMetrics, int]]:
    """A hub behind a real server; yields it with its metrics and the port."""
    measures = metrics.ResultMetrics(metrics.registry("result"))
    hub = Hub(measures)
    hub.update([standing(1, 0)])

    async def follow(viewer: WebSocket) -> None:
        channel = hub.channel("default")
        assert channel
        await hub.attend(viewer, channel)

    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    stop = asyncio.Event()
    options = {"ws": module.viewer_protocol(measures), "ws_ping_interval": ping, "ws_ping_timeout": ping}
    app = Starlette(routes=[WebSocketRoute("/ws", follow)])
    server = asyncio.create_task(
        web.serve(app, web.listen(f"127.0.0.1:{port}"), stop, ws_per_message_deflate=False, **options)
    )
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(0.01)
    writer.close()
    yield hub, measures, port
    stop.set()
    await server


async def until(check: object, within: float = 5) -> None:
    async with asyncio.timeout(within):
        while not check():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def deaf(port: int) -> asyncio.StreamWriter:
    """A client that opens a WebSocket and never reads again; it answers no ping either."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    raw.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=raw, limit=2)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert await reader.readexactly(12) == b"HTTP/1.1 101"
    return writer


async def test_a_viewer_gets_the_snapshot_at_once_and_then_only_what_changed() -> None:
    async with serving() as (hub, measures, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        assert json.loads(await viewer.recv())["revision"] == 1
        hub.update([standing(1, 0)])
        hub.update([standing(2, 5)])
        seen = json.loads(await viewer.recv())
        assert (seen["revision"], seen["total"]) == (2, 5)
        assert measures.viewers._value.get() == 1


async def test_a_viewer_that_lags_skips_to_the_newest() -> None:
    async with serving() as (hub, measures, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        await viewer.recv()
        for revision in range(2, 502):
            hub.update([standing(revision, revision)])
        assert json.loads(await viewer.recv())["revision"] == 501
        assert measures.frames._value.get() <= 3


async def test_staleness_is_told_to_every_viewer_and_taken_back() -> None:
    async with serving() as (hub, _, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        assert json.loads(await viewer.recv())["stale_since"] is None
        hub.mark_stale()
        first = json.loads(await viewer.recv())["stale_since"]
        assert first is not None
        hub.mark_stale()
        hub.update([standing(1, 0)])
        assert json.loads(await viewer.recv())["stale_since"] is None


async def test_a_viewer_that_never_reads_is_cut_and_the_others_never_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.5)
    async with serving() as (hub, measures, port), connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as viewer:
        await viewer.recv()
        stuck = [await deaf(port) for _ in range(5)]
        await until(lambda: measures.viewers._value.get() == 6)
        revision, slowest = 1, 0.0
        while measures.viewers._value.get() > 1:
            revision += 1
            began = time.monotonic()
            hub.update([standing(revision, 0, question="long " * 50_000)])
            assert json.loads(await asyncio.wait_for(viewer.recv(), 5))["revision"] == revision
            slowest = max(slowest, time.monotonic() - began)
        assert measures.cut._value.get() == 5
        assert slowest < 1
        for writer in stuck:
            writer.close()


async def test_a_dead_connection_is_cut_when_it_answers_no_ping() -> None:
    async with serving(ping=0.3) as (_, measures, port):
        writer = await deaf(port)
        await until(lambda: measures.viewers._value.get() == 1)
        await until(lambda: measures.viewers._value.get() == 0)
        assert measures.cut._value.get() == 1
        writer.close()


async def test_a_viewer_that_leaves_is_forgotten() -> None:
    async with serving() as (_, measures, port):
        async with connect(f"ws://127.0.0.1:{port}/ws") as viewer:
            await viewer.recv()
            assert measures.viewers._value.get() == 1
        await until(lambda: measures.viewers._value.get() == 0)
