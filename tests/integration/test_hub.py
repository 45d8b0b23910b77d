"""Viewers on a real server: what they get, and what happens to those that do not read."""

import asyncio
import base64
import gc
import itertools
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode
from websockets.http11 import Request

from tests.measured import value_of
from tests.waiting import until
from voting.database.poll_state import Backlog, PollState
from voting.polls.poll import Option, Poll
from voting.polls.tally import evaluate
from voting.result.demand import Key
from voting.result.hub import CLOSE_DELETED, Hub
from voting.result.metrics import ResultMetrics
from voting.result.viewer import MAX_FRAMES, Viewer
from voting.result.viewer_server import ViewerServer
from voting.service import metrics
from voting.settings.services import ResultSettings
from voting.web.server import listen, serve

pytestmark = pytest.mark.anyio


def state(revision: int, votes: int, question: str = "?") -> PollState:
    poll = Poll("default", question, (Option("a", "A"), Option("b", "B")))
    return PollState(poll, revision, 1, json.dumps({"a": votes}), Backlog(0, None))


def show(hub: Hub, *states: PollState) -> None:
    """Show polls as the reader does."""
    for each in states:
        hub.update(each, evaluate(each.poll, each.votes))


async def find_nothing(hub: Hub, stop: asyncio.Event) -> None:
    """Answer all requests as the reader does in a database without other polls."""
    while not stop.is_set():
        await hub.demand.wait(0.05)
        for key in hub.demand.take(lambda _: True):
            if key.name not in hub.channels:
                hub.remove(key.name)


@asynccontextmanager
async def serving(**settings: float) -> AsyncIterator[tuple[Hub, ResultMetrics, int]]:
    """A hub behind a real server; yields it with its metrics and the port."""
    measures = ResultMetrics(metrics.registry("result"))
    hub = Hub(measures)
    show(hub, state(1, 0))
    stop = asyncio.Event()
    given = ResultSettings.model_validate({"database_url": "postgresql://nowhere/none"} | settings)
    viewer_server = ViewerServer(given, hub, measures)
    public = listen("127.0.0.1:0")
    port = public.getsockname()[1]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hub.run(stop))
        tasks.create_task(find_nothing(hub, stop))
        tasks.create_task(serve(Starlette(), public, stop, ws=viewer_server.viewer))
        try:
            yield hub, measures, port
        finally:
            stop.set()


async def open_without_reading(port: int) -> asyncio.StreamWriter:
    """A client that opens a WebSocket and never reads again; it answers no ping either."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", port))
    raw.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=raw, limit=2)
    await upgrade(reader, writer)
    return writer


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Open a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert await reader.readexactly(12) == b"HTTP/1.1 101"


async def test_a_viewer_gets_the_snapshot_at_once_and_then_only_what_changed() -> None:
    async with serving() as (hub, measures, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        assert json.loads(await viewer.recv())["revision"] == 1
        show(hub, state(1, 0))
        show(hub, state(2, 5))
        seen = json.loads(await viewer.recv())
        assert (seen["revision"], seen["total"]) == (2, 5)
        assert value_of(measures.viewers) == 1


async def test_a_viewer_that_lags_skips_to_the_newest() -> None:
    async with serving() as (hub, measures, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        await viewer.recv()
        for revision in range(2, 502):
            show(hub, state(revision, revision))
        assert json.loads(await viewer.recv())["revision"] == 501
        assert value_of(measures.frames) <= 3


async def test_every_viewer_learns_that_the_numbers_are_stale_and_when_they_are_not() -> None:
    async with serving() as (hub, _, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        assert json.loads(await viewer.recv())["stale_since"] is None
        hub.mark_stale()
        first = json.loads(await viewer.recv())["stale_since"]
        assert first is not None
        hub.mark_stale()
        show(hub, state(1, 0))
        assert json.loads(await viewer.recv())["stale_since"] is None


async def test_a_viewer_that_never_reads_is_cut_and_the_others_never_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.result.viewer.STUCK_SECONDS", 4.0)
    monkeypatch.setattr("voting.web.server.CHECK_SECONDS", 0.1)
    async with serving() as (hub, measures, port), connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as viewer:
        await viewer.recv()
        stuck = [await open_without_reading(port) for _ in range(5)]
        await until(lambda: value_of(measures.viewers) == 6)
        revision, slowest = 1, 0.0
        while value_of(measures.viewers) > 1:
            revision += 1
            began = time.monotonic()
            show(hub, state(revision, 0, question="long " * 50_000))
            assert json.loads(await asyncio.wait_for(viewer.recv(), 30))["revision"] == revision
            slowest = max(slowest, time.monotonic() - began)
        assert value_of(measures.cut) == 5
        assert slowest < 3  # less than STUCK_SECONDS
        for writer in stuck:
            writer.close()


async def test_a_dead_connection_is_cut_when_it_answers_no_ping_and_a_living_one_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voting.result.viewer.PING_SECONDS", 0.5)
    monkeypatch.setattr("voting.result.viewer.SILENT_SECONDS", 4.0)
    monkeypatch.setattr("voting.web.server.CHECK_SECONDS", 0.1)
    async with serving() as (_, measures, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        writer = await open_without_reading(port)
        await until(lambda: value_of(measures.viewers) == 2)
        await until(lambda: value_of(measures.viewers) == 1)
        assert value_of(measures.cut) == 1
        assert json.loads(await viewer.recv())["revision"] == 1
        assert (await viewer.ping()) is not None
        writer.close()


async def test_a_snapshot_is_sent_again_when_nothing_has_changed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.result.feed.KEEPALIVE_SECONDS", 0.3)
    monkeypatch.setattr("voting.result.hub.CHECK_SECONDS", 0.1)
    async with serving() as (_, _, port), connect(f"ws://127.0.0.1:{port}/ws") as viewer:
        for _ in range(3):
            assert json.loads(await asyncio.wait_for(viewer.recv(), 5))["revision"] == 1


async def test_a_server_that_stops_closes_its_viewers_with_service_restart() -> None:
    async with serving() as (_, _, port):
        viewer = await connect(f"ws://127.0.0.1:{port}/ws")
        await viewer.recv()
    with pytest.raises(ConnectionClosed) as caught:
        await viewer.recv()
    assert caught.value.rcvd
    assert caught.value.rcvd.code == CloseCode.SERVICE_RESTART


async def test_a_viewer_that_leaves_is_forgotten() -> None:
    async with serving() as (_, measures, port):
        async with connect(f"ws://127.0.0.1:{port}/ws") as viewer:
            await viewer.recv()
            assert value_of(measures.viewers) == 1
        await until(lambda: value_of(measures.viewers) == 0)


async def test_nothing_is_kept_of_the_request_that_opened_a_socket() -> None:
    async with serving() as (_, measures, port), asyncio.timeout(60):
        viewers = [await open_without_reading(port) for _ in range(5)]
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, Request)]
        assert value_of(measures.viewers) == 5
        for viewer in viewers:
            viewer.transport.abort()


def masked(opcode: int, payload: bytes = b"") -> bytes:
    """A frame as a client sends it; its mask is zero."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.parametrize(
    "flood",
    [
        masked(0x9) * (MAX_FRAMES + 1),
        masked(0xA) * (MAX_FRAMES + 1),
        masked(0x9, b"x" * 125) * 9,
        masked(0x9) * 100_000,
    ],
)
async def test_a_viewer_that_sends_too_much_is_closed_with_policy_violation(flood: bytes) -> None:
    async with serving() as (_, measures, port), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await upgrade(reader, writer)
        writer.write(flood)
        _, close, rest = (await reader.read()).rpartition(b"\x88")
        assert close
        assert int.from_bytes(rest[1:3], "big") == CloseCode.POLICY_VIOLATION
        writer.close()
        await until(lambda: value_of(measures.viewers) == 0)


async def test_a_viewer_may_ping_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voting.web.server.CHECK_SECONDS", 0.05)
    async with serving() as (_, _, port), asyncio.timeout(5):
        url = f"ws://127.0.0.1:{port}/ws"
        async with connect(url) as viewer:
            for _ in range(2 * MAX_FRAMES):
                await (await viewer.ping())
                await asyncio.sleep(0.01)  # so many a second are allowed


async def test_nothing_is_read_of_a_viewer_that_does_not_read() -> None:
    async with serving() as (hub, _, port), asyncio.timeout(5):
        writer = await open_without_reading(port)
        channel = hub.channels["default"]
        assert channel
        (watching,) = channel.feeds["public"]._subscribers
        assert isinstance(watching, Viewer)
        revision = itertools.count(2)
        while watching._stuck_since is None:
            show(hub, state(next(revision), 0, "?" * 5000))
            await asyncio.sleep(0.001)
        writer.write(masked(0x9))
        assert not watching._transport.is_reading()
        writer.transport.abort()


@pytest.mark.parametrize(
    ("settings", "headers", "status"),
    [
        ({"viewers_per_address": 1}, {}, 429),
        ({"max_viewers": 1}, {}, 429),
        ({"rate_limit": 0.01, "rate_burst": 1}, {}, 429),
        ({}, {"Origin": "http://evil.example"}, 403),
        ({}, {"Origin": "http://\xe9vil.example"}, 403),
    ],
)
async def test_a_viewer_that_is_refused_is_counted(
    settings: dict[str, float], headers: dict[str, str], status: int
) -> None:
    async with serving(**settings) as (_, measures, port), connect(f"ws://127.0.0.1:{port}/ws"):
        before = value_of(measures.limited)
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers)
        after = value_of(measures.limited)
    assert refused.value.response.status_code == status
    assert (before, after) == (0, 1)


async def test_an_unknown_poll_is_not_counted_as_a_limit() -> None:
    async with serving() as (_, measures, port):
        with pytest.raises(InvalidStatus):
            await connect(f"ws://127.0.0.1:{port}/p/none/ws")
    assert value_of(measures.limited) == 0


async def test_the_viewers_of_a_poll_that_is_deleted_are_closed_and_those_of_others_stay() -> None:
    async with serving() as (hub, measures, port), asyncio.timeout(5):
        lunch = state(1, 0)._replace(poll=Poll("lunch", "?", (Option("a", "A"), Option("b", "B"))))
        show(hub, state(1, 0), lunch)
        async with connect(f"ws://127.0.0.1:{port}/ws"), connect(f"ws://127.0.0.1:{port}/p/lunch/ws") as gone:
            await gone.recv()
            hub.remove("lunch", unreadable=True)
            assert json.loads(await gone.recv())["stale_since"]
            hub.remove("lunch")
            with pytest.raises(ConnectionClosed) as closed:
                await gone.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == CLOSE_DELETED
            assert "lunch" not in hub.channels
            await until(lambda: value_of(measures.viewers) == 1)


async def test_a_poll_whose_numbers_come_late_is_read_again_when_it_is_held() -> None:
    """It may have been hidden since it was read, and what is not held is not notified."""
    hub = Hub(ResultMetrics(metrics.registry("result")))
    late = state(1, 3)
    hub.demand.ask(Key("poll", "default"))
    assert hub.demand.take(lambda _: False) == [Key("poll", "default")]
    hub.update(late, None)
    hub.hint(Key("poll", "default"), urgent=True)
    assert hub.channels == {}
    hub.count(late, evaluate(late.poll, late.votes))
    assert hub.demand.take(lambda _: False) == [Key("poll", "default")]
