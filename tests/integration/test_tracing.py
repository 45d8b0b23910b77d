"""One trace from POST to snapshot: all three services, a real Valkey and a real PostgreSQL, in one process."""

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

import httpx
import psycopg
import pytest
import redis
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext

from tests.http_server import Handler, serving
from tests.published import publish_polls
from tests.waiting import until
from voting.broker import stream
from voting.broker.connection import redis_client
from voting.broker.stream import STREAM
from voting.database.connection import NOTIFY_CHANNEL, connect
from voting.database.poll_state import poll_states
from voting.polls.poll import Option, Poll
from voting.polls.vote import EntryId
from voting.result import app as result
from voting.service import spans
from voting.service.lifecycle import Stop
from voting.settings.services import ResultSettings, VoteSettings, WorkerSettings
from voting.vote import app as vote
from voting.web.server import listen
from voting.worker import app as worker

# A failing test may cancel services; if the warning about that were an error, uvloop would never finish closing.
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default::ResourceWarning")]

ALL = ("vote", "worker", "result")
FOREIGN = f"00-{'a' * 32}-{'b' * 16}-01"  # what a client of the public ballot may send
POST = (
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 6\r\n\r\nvote=a"
)


@asynccontextmanager
async def running(servers: tuple[str, str], *services: str, **given: object) -> AsyncIterator[int]:
    """Run services, yield the port of vote, then stop the services as SIGTERM does."""
    common = {"redis_url": servers[0], "database_url": servers[1], "metrics_listen": "127.0.0.1:0"}
    common |= {"host": "127.0.0.1", "secret_key": "k" * 32, "worker_name": "w1"}
    values = common | {"otel_exporter_otlp_endpoint": "http://127.0.0.1:1", "otel_traces_sampler_arg": 1.0} | given
    stop, public = Stop(), listen("127.0.0.1:0")
    any_port = {"result_port": 0}
    parts: dict[str, Callable[[], Coroutine[None, None, None]]] = {
        "vote": lambda: vote.main(VoteSettings.model_validate(values), stop, public, listen("127.0.0.1:0")),
        "worker": lambda: worker.main(WorkerSettings.model_validate(values), stop),
        "result": lambda: result.main(ResultSettings.model_validate(values).model_copy(update=any_port), stop),
    }
    port: int = public.getsockname()[1]
    tasks = [asyncio.create_task(parts[service]()) for service in services]
    try:
        if "vote" in services:
            await until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200)
        with redis.Redis.from_url(servers[0]) as broker:
            await until(lambda: bool(broker.exists(STREAM)))
        yield port
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*tasks)
        public.close()


@pytest.fixture
def both(redis_url: str, database_url: str) -> tuple[str, str]:
    return redis_url, database_url


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Return the exporter that all services use in place of a collector."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(trace_exporter, "OTLPSpanExporter", lambda *_, **__: exporter)
    return exporter


def named(recorded: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in recorded.get_finished_spans() if span.name == name]


def context(span: ReadableSpan) -> SpanContext:
    found: SpanContext | None = span.get_span_context()
    assert found
    return found


async def test_one_trace_leads_from_the_post_over_commit_to_the_snapshot(
    both: tuple[str, str], recorded: InMemorySpanExporter
) -> None:
    async with running(both, *ALL) as port, httpx.AsyncClient() as client:
        headers = {"accept": "application/json", "traceparent": FOREIGN}
        answer = await client.post(f"http://127.0.0.1:{port}/", data={"vote": "b"}, headers=headers)
        assert answer.status_code == 200
        names = ["POST /", "XADD", "count", "snapshot"]
        await until(lambda: all(named(recorded, name) for name in [*names, "count batch"]))
        (post,), (add,), (count,), (snapshot,) = (named(recorded, name) for name in names)
        (batch,) = named(recorded, "count batch")
        with psycopg.connect(both[1]) as database:
            stored = database.execute("SELECT voter FROM votes WHERE choice = 'b'").fetchone()
    path = [post, add, count, snapshot]
    assert {context(span).trace_id for span in path} == {context(post).trace_id}
    assert [span.parent and span.parent.span_id for span in path] == [
        None,
        *(context(span).span_id for span in path[:3]),
    ]
    assert [span.resource.attributes["service.name"] for span in path] == ["vote", "vote", "worker", "result"]
    for inner, outer in ((add, post), (count, batch)):
        assert (outer.start_time or 0) <= (inner.start_time or 0) <= (inner.end_time or 0) <= (outer.end_time or 0)
    assert (add.start_time or 0) <= (count.start_time or 0) <= (snapshot.start_time or 0) <= (snapshot.end_time or 0)
    assert [(link.context.trace_id, link.context.span_id) for link in batch.links] == [
        (context(add).trace_id, context(add).span_id)
    ]
    assert {**(post.attributes or {})} == {
        "http.request.method": "POST",
        "http.route": "/",
        "http.response.status_code": 200,
    }
    assert {**(add.attributes or {})} == {"voting.poll": "default"}
    assert not count.attributes
    assert not snapshot.attributes
    assert stored
    cookie = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
    for span in (*path, batch):
        text = span.to_json()
        for secret in (FOREIGN[3:35], answer.json()["receipt"], cookie, stored[0].hex(), '"b"', "127.0.0.1"):
            assert secret not in text
        assert not span.events


async def test_a_refused_vote_says_why_in_its_trace(both: tuple[str, str], recorded: InMemorySpanExporter) -> None:
    await open_poll(both[0])
    async with running(both, "vote") as port, httpx.AsyncClient() as client:
        with redis.Redis.from_url(both[0]) as broker:
            broker.delete(STREAM)
        answer = await client.post(f"http://127.0.0.1:{port}/", data={"vote": "b"})
        assert answer.status_code == 503
        answer = await client.post(f"http://127.0.0.1:{port}/p/nowhere", data={"vote": "b"})
        assert answer.status_code == 404
        await until(lambda: bool(named(recorded, "POST /p/{poll}")))
    (add,), (post,), (lost,) = (named(recorded, name) for name in ("XADD", "POST /", "POST /p/{poll}"))
    assert add.status.description == "no_stream"
    assert (post.attributes or {})["http.response.status_code"] == 503
    assert not post.status.is_ok
    assert (lost.attributes or {})["http.response.status_code"] == 404
    assert "nowhere" not in lost.to_json()


async def open_poll(redis_url: str) -> None:
    async with redis_client(redis_url, timeout=5) as client:
        await stream.Consumer(client, "w1").ensure_group(EntryId(0, 0))
        await publish_polls(client, (Poll("default", "?", (Option("a", "A"), Option("b", "B"))),))


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_only_the_entry_of_a_traced_vote_has_one_more_field(
    both: tuple[str, str], recorded: InMemorySpanExporter, share: float
) -> None:
    await open_poll(both[0])
    async with running(both, "vote", otel_traces_sampler_arg=share) as port, httpx.AsyncClient() as client:
        await client.post(f"http://127.0.0.1:{port}/", data={"vote": "a"}, headers={"traceparent": FOREIGN})
    with redis.Redis.from_url(both[0]) as broker:
        ((_, fields),) = broker.xrange(STREAM)
    ended = {span.name: span for span in recorded.get_finished_spans()}
    more = {b"traceparent": spans.inject(NonRecordingSpan(context(ended["XADD"]))).encode()} if share else {}
    assert fields == {b"poll": b"default", b"voter": fields[b"voter"], b"choice": b"a"} | more
    assert set(ended) == ({"POST /", "XADD"} if share else set())


@pytest.mark.parametrize("collector", ["", "http://127.0.0.1:1"])
async def test_a_worker_counts_traced_votes_whether_it_traces_or_not(
    both: tuple[str, str], recorded: InMemorySpanExporter, collector: str
) -> None:
    await open_poll(both[0])
    async with connect(both[1], name="test", timeout=60) as database:
        await database.execute(f"LISTEN {NOTIFY_CHANNEL}")
        async with running(both, "worker", otel_exporter_otlp_endpoint=collector):
            with redis.Redis.from_url(both[0]) as broker:
                broker.xadd(STREAM, {"poll": "default", "voter": "v" * 16, "choice": "a", "traceparent": FOREIGN})
            heard = [notice.payload async for notice in database.notifies(timeout=60, stop_after=1)]
        assert {state.votes["a"] for state in (await poll_states(database, ["default"]))[0]} == {1}
    counts = [context(span) for span in named(recorded, "count")]
    assert heard == ([f"default {spans.inject(NonRecordingSpan(counts[0]))}"] if collector else ["default"])
    assert [f"{count.trace_id:x}" for count in counts] == (["a" * 32] if collector else [])


@contextmanager
def silent_collector() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:  # accepts connections, and never answers
        yield sock.getsockname()[1]


@contextmanager
def absent_collector() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # without listening
        yield sock.getsockname()[1]


async def vote_on(port: int, number: int) -> None:
    """Send votes one after the other until `number` of them are accepted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.closing(writer):
        while number:
            writer.write(POST)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length
            await reader.readexactly(int(length[1]))
            number -= head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("collector", [silent_collector, absent_collector])
async def test_a_collector_that_takes_no_spans_delays_neither_votes_nor_the_end(
    both: tuple[str, str], collector: Callable[[], AbstractContextManager[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voting.service.spans.FLUSH_SECONDS", 0.5)
    monkeypatch.setattr("voting.service.spans.QUEUE", 256)
    with collector() as dead:
        async with running(both, *ALL, otel_exporter_otlp_endpoint=f"http://127.0.0.1:{dead}") as port:
            async with asyncio.timeout(60):  # if spans were sent one by one, each of 400 would wait 2 s
                await asyncio.gather(*(vote_on(port, 40) for _ in range(5)))
            with redis.Redis.from_url(both[0]) as broker:
                await until(lambda: broker.xlen(STREAM) == 0)
            ending = time.monotonic()
        took = time.monotonic() - ending
    assert took < 15  # the provider's own shutdown may take 30 s for each service
    with psycopg.connect(both[1]) as database:
        (counted,) = database.execute("SELECT sum(votes) FROM tallies").fetchone() or (0,)
    assert spans.QUEUE < 2 * 40 * 5  # so some were dropped
    assert counted >= 40 * 5  # a vote that was answered 503 may be on the stream


class Collector(Handler):
    """Keeps the requests that it gets."""

    seen: list[tuple[str, str | None, ExportTraceServiceRequest]]

    def answer(self) -> None:
        request = ExportTraceServiceRequest.FromString(self.body())
        self.seen.append((self.path, self.headers["authorization"], request))
        self.send_response(200)
        self.end_headers()


async def test_a_collector_gets_the_trace_over_otlp_with_the_configured_headers(both: tuple[str, str]) -> None:
    Collector.seen = []
    with serving(Collector) as url:
        headers = "authorization=Bearer%20t,x-more=1"
        given = {"otel_exporter_otlp_endpoint": f"{url}/otlp/", "otel_exporter_otlp_headers": headers}
        async with running(both, *ALL, **given) as port, httpx.AsyncClient() as client:
            await client.post(f"http://127.0.0.1:{port}/", data={"vote": "a"})
            with redis.Redis.from_url(both[0]) as broker:
                await until(lambda: broker.xlen(STREAM) == 0)
    assert {seen[:2] for seen in Collector.seen} == {("/otlp/v1/traces", "Bearer t")}
    traces: dict[bytes, list[str]] = {}
    for _, _, request in Collector.seen:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    traces.setdefault(span.trace_id, []).append(span.name)
    ours = next(names for names in traces.values() if "POST /" in names)
    assert {"POST /", "XADD", "count"} <= set(ours)
