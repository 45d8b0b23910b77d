"""Whatever is sent to vote and result, they answer or close, and nothing is wrong in their logs.

One server of each for all examples, on the event loop that they have in production. The number of examples is bounded,
so all of this takes about 20 seconds.
"""

import asyncio
import base64
import http.client
import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.integration.broker import Broker
from tests.integration.test_hub import find_nothing, show, state
from tests.integration.test_producer import POLL, open_poll
from tests.measured import value_of
from tests.waiting import background, eventually
from voting.broker.connection import redis_client
from voting.broker.poll_hash import POLLS, read_polls
from voting.polls.poll import Poll
from voting.polls.vote import EntryId, Vote
from voting.polls.vote_parser import Malformed, VoteParser
from voting.result import app as result_app
from voting.result.hub import Hub
from voting.result.metrics import ResultMetrics
from voting.result.record_endpoints import RecordEndpoints
from voting.result.viewer_server import ViewerServer
from voting.service import health
from voting.settings.services import ResultSettings, VoteSettings
from voting.vote import app as vote_app
from voting.vote.endpoint import VoteEndpoint
from voting.vote.metrics import VoteMetrics
from voting.web.rate_limit import with_rate_limit
from voting.web.rendering import Pages
from voting.web.server import connection_limit, listen, serve

FORM = {"content-type": "application/x-www-form-urlencoded"}
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
QUICK = settings(max_examples=200, suppress_health_check=list(HealthCheck))
ANSWER_SECONDS = 2.0


class Complaints(logging.Handler):
    """Collects what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.found.append(self.format(record))


@dataclass
class Services:
    """Both web services and the private port of one, in a thread of their own."""

    broker: Broker
    complaints: Complaints
    vote_port: int = 0
    result_port: int = 0
    private_port: int = 0
    viewers: list[ResultMetrics] = field(default_factory=list)

    def ports(self) -> tuple[int, int, int]:
        """Where they are."""
        return self.vote_port, self.result_port, self.private_port

    def are_well(self) -> None:
        """A vote is taken, the result is shown, and nothing was complained of."""
        found, self.complaints.found = self.complaints.found, []
        assert found == []
        eventually(lambda: ask(self.vote_port, "POST", "/", b"vote=a") == 200)  # 503 if the disk is slow
        assert ask(self.result_port, "GET", "/api/results") == 200


def ask(port: int, method: str, path: str, body: bytes = b"") -> int:
    """One good request; return the status."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    client.request(method, path, body or None, FORM)
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer.status


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    broker = Broker(tmp_path_factory.mktemp("fuzz"), "--maxmemory", "64mb")
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    found, started = Services(broker, complaints), threading.Event()
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(lambda _, context: complaints.found.append(str(context)))
    stop = asyncio.Event()

    async def run() -> None:
        await open_poll(broker.url)
        pages = Pages("voting.vote"), Pages("voting.result")
        given = VoteSettings.model_validate({"redis_url": broker.url, "secret_key": "k" * 32, "trusted_proxies": 1})
        endpoint = VoteEndpoint(given, pages[0], VoteMetrics(CollectorRegistry()))
        vote = with_rate_limit(vote_app.create_app(given, pages[0], endpoint, stop), given, pages[0], lambda: None)
        measures = ResultMetrics(CollectorRegistry())
        hub = Hub(measures)
        show(hub, state(1, 0))
        shown = ResultSettings.model_validate({"database_url": "postgresql://nowhere/none", "trusted_proxies": 1})
        result = result_app.create_app(shown, pages[1], hub, RecordEndpoints(shown, pages[1], hub), stop)
        viewer_server = ViewerServer(shown, hub, measures)
        sockets = [listen("127.0.0.1:0") for _ in range(3)]
        found.vote_port, found.result_port, found.private_port = (sock.getsockname()[1] for sock in sockets)
        found.viewers.append(measures)
        async with background(endpoint.run()), asyncio.TaskGroup() as tasks:
            tasks.create_task(hub.run(stop))
            tasks.create_task(find_nothing(hub, stop))
            limits = [connection_limit(1000, shared=True) for _ in sockets]
            tasks.create_task(serve(vote, sockets[0], stop, limit=limits[0]))
            tasks.create_task(serve(result, sockets[1], stop, limit=limits[1], ws=viewer_server.viewer))
            tasks.create_task(serve(health.private_app(lambda: True, CollectorRegistry()), sockets[2], stop))
            while not endpoint.ready:
                await asyncio.sleep(0.01)
            started.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert started.wait(60)
    yield found
    loop.call_soon_threadsafe(stop.set)
    thread.join(15)
    loop.close()
    logging.getLogger().removeHandler(complaints)
    broker.kill()


def exchange(port: int, pieces: list[bytes], requests: int) -> bytes:
    """Send pieces, and, after as many answers as there are requests, nothing more; return all that comes back.

    Raises:
        TimeoutError: it does neither answer nor close.
    """
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.03) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
            while len(STATUS.findall(got)) < requests and (data := sock.recv(65536)):
                got += data
        except TimeoutError:  # it waits for the rest of the request
            pass
        except OSError:
            return got  # cut off while we were still sending
        sock.settimeout(ANSWER_SECONDS)
        try:
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                got += data
        except TimeoutError:
            raise
        except OSError:
            pass
    return got


def pieces(data: bytes, shares: list[float]) -> list[bytes]:
    """Cut a request."""
    cuts = sorted(int(share * len(data)) for share in shares)
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


BYTES = st.binary(max_size=200)
LINE = BYTES.map(lambda value: bytes(byte if byte > 31 and byte != 127 else 33 for byte in value))
METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"get", b"PRI", b"CONNECT"]) | LINE
PATHS = [b"/", b"/p/default", b"/p/default/present", b"/present", b"/results", b"/vote", b"/api/results", b"/ws"]
PATHS += [b"/style.css", b"/livez", b"/readyz", b"/p/x/ws", b"*", b"http://x/", b"//", b"/p/", b"/p/%2e%2e/present"]
SLUGS = st.binary(max_size=40).map(lambda slug: b"/p/" + b"".join(b"%%%02x" % byte for byte in slug))
QUERIES = st.sampled_from([b"", b"?lang=de", b"?lang=xx", b"?vote=a", b"?%ff", b"?a=b&&=;"])
PLACES = st.tuples(st.sampled_from(PATHS) | SLUGS, QUERIES).map(lambda parts: b"".join(parts).replace(b" ", b"+"))
TARGETS = PLACES | LINE
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.2", b"", b"HTTQ/1.1"])
VALUES = {
    b"Host": [b"x", b"", b"[::1]:80", b"[::g]", b"a b", b"x:99999", b"x" * 300, b"\xff", b"x/y", b"x@y", b"127.0.0.1"],
    b"Cookie": [
        b"voter_id=",
        b"voter_id=a.b",
        b"voter_id=" + b"A" * 22 + b"." + b"A" * 43,
        b"lang=de",
        b"lang=\xff",
        b";",
    ],
    b"Accept": [b"application/json", b"text/html", b"*/*", b"application/json;q=0", b"\xff", b","],
    b"Accept-Language": [
        b"de",
        b"zh-Hant-TW",
        b"en;q=x",
        b"de;q=nan",
        b"*;q=inf",
        b"ar;q=-1",
        b"-",
        b"_",
        b"\xff-\xfe",
        b"a-" * 90,
    ],
    b"Origin": [b"null", b"http://x", b"://", b"\xff"],
    b"Sec-Fetch-Site": [b"same-origin", b"cross-site", b"none", b"\xff"],
    b"Content-Type": [
        b"application/x-www-form-urlencoded",
        b"application/json",
        b"multipart/form-data; boundary=x",
        b";",
        b"\xff",
    ],
    b"Content-Length": [
        b"0",
        b"6",
        b"5",
        b"-1",
        b"+6",
        b"6, 6",
        b"99999999999999999999",
        b"0x6",
        b"16385",
        b" 6 ",
        b"",
    ],
    b"Transfer-Encoding": [
        b"chunked",
        b"gzip, chunked",
        b"chunked, gzip",
        b"identity",
        b"CHUNKED",
        b"xchunked",
        b"\x0bchunked",
    ],
    b"Connection": [b"close", b"keep-alive", b"Upgrade", b"upgrade, close", b"TE"],
    b"Upgrade": [b"websocket", b"h2c", b"WebSocket", b"", b"\xff"],
    b"Expect": [b"100-continue", b"200-ok", b""],
    b"X-Forwarded-For": [b"1.2.3.4", b"::1", b"a, b", b"fe80::1%eth0", b",", b"\xff", b"1.2.3.4:80", b"2001:db8::/64"],
    b"Idempotency-Key": [b"12345678", b'"12345678"', b"short", b"\xff" * 20, b"x" * 129, b'"'],
    b"traceparent": [b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00", b"\xff"],
    b"Sec-WebSocket-Key": [b"dGhlIHNhbXBsZSBub25jZQ==", b"x", b"\xff"],
    b"Sec-WebSocket-Version": [b"13", b"12", b"x"],
    b"Sec-WebSocket-Extensions": [
        b"permessage-deflate",
        b"permessage-deflate; server_max_window_bits=99",
        b";;",
        b"\xff",
    ],
}
FRAMING = {b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect"}


def fields(names: list[bytes]) -> st.SearchStrategy[bytes]:
    """Return header fields with these names, and with values that are good, odd, or anything."""
    one = st.sampled_from(sorted(names)).flatmap(
        lambda name: st.sampled_from(VALUES[name] * 3 + [b""]).flatmap(
            lambda value: (st.just(value) if value else LINE).map(lambda value: b"%b: %b\r\n" % (name, value))
        )
    )
    return st.lists(one, max_size=5).map(b"".join)


CONTENT = fields([name for name in VALUES if name not in FRAMING and name != b"Host"])
HOST = st.sampled_from([b"x"] * 5 + VALUES[b"Host"]).map(lambda value: b"Host: %b\r\n" % value)
ODD = fields([*FRAMING]) | LINE.map(lambda line: line + b"\r\n")
FORMS = [
    b"",
    b"vote=a",
    b"vote=z",
    b"vote=%00",
    b"vote=a&vote=b",
    b"vote=%ff%fe",
    b"vote",
    b"&&&=",
    b"ballot=1&vote=a",
    b"vote=" + b"a" * 5000,
]
CHUNKS = [
    b"0\r\n\r\n",
    b"6\r\nvote=a\r\n0\r\n\r\n",
    b"-1\r\n",
    b"ffffffffffffffff\r\n",
    b"6;a=b\r\nvote=a\r\n0\r\nA: b\r\n\r\n",
    b"zz\r\n",
]
BODIES = st.sampled_from(FORMS + CHUNKS) | BYTES


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a request whose framing is right in two of three cases, and whatever it says else may be odd."""
    good = draw(st.integers(0, 2))
    body = draw(st.sampled_from(FORMS) | BYTES) if draw(st.booleans()) else b""
    parts = [draw(HOST), draw(CONTENT)]
    if body:
        parts.append(b"Content-Length: %d\r\nContent-Type: application/x-www-form-urlencoded\r\n" % len(body))
    method, version = b"POST" if body else b"GET", b"HTTP/1.1"
    target = draw(TARGETS if not good else PLACES) if draw(st.booleans()) else b"/"
    if not good:
        parts.append(draw(ODD))
        method, version, body = draw(METHODS), draw(VERSIONS), draw(BODIES)
        parts = draw(st.permutations(parts))
    return b"%b %b %b\r\n%b\r\n%b" % (method, target, version, b"".join(parts), body)


CUTS = st.lists(st.floats(0, 1), max_size=3)
ANYTHING = st.binary(max_size=2000)
STREAMS = st.integers(0, 9).flatmap(
    lambda die: st.lists(requests(), min_size=1, max_size=3).map(b"".join) if die else ANYTHING
)


@QUICK
@given(data=STREAMS, cuts=CUTS)
def test_no_request_is_answered_with_a_500_or_not_at_all(services: Services, data: bytes, cuts: list[float]) -> None:
    for port in services.ports():
        answers = exchange(port, pieces(data, cuts), data.count(b" HTTP/1"))
        for found in STATUS.finditer(answers):
            status = int(found[1])
            assert status in {100, 101} or 200 <= status < 500 or (status == 503 and b"retry-after:" in answers), (
                answers
            )
    services.are_well()


KEY = base64.b64encode(b"k" * 16)
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b\r\n"
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Return a frame of RFC 6455 whose parts need not go together."""
    payload = draw(st.binary(max_size=130) | st.sampled_from([b"\x03\xe8", b"\x03\xe8\xff", b"\x00\x00", b"\x03"]))
    first = draw(st.sampled_from([0x80, 0, 0xC0, 0xF0])) | draw(st.integers(0, 15))
    length = draw(st.sampled_from([len(payload), 0, 1, 125, 126, 127]))
    masked = draw(st.sampled_from([0x80, 0x80, 0x80, 0]))
    size = b""
    if length > 125:
        size = draw(st.binary(min_size=2, max_size=8))
    return (
        bytes([first, masked | min(length, 127)])
        + size
        + (draw(st.binary(min_size=4, max_size=4)) if masked else b"")
        + payload
    )


@QUICK
@given(
    sent=st.lists(frames() | st.binary(max_size=700), max_size=6).map(b"".join),
    extra=CONTENT,
    cuts=CUTS,
)
def test_no_frame_harms_the_viewers(services: Services, sent: bytes, extra: bytes, cuts: list[float]) -> None:
    answer = exchange(services.result_port, pieces(UPGRADE % (KEY, extra) + sent, cuts), 1)
    status = STATUS.match(answer)
    assert status, answer
    assert status[1] != b"500", answer
    services.are_well()


def test_all_viewers_leave(services: Services) -> None:
    eventually(lambda: value_of(services.viewers[0].viewers) == 0)
    services.are_well()


TEXTS = st.text(min_size=1, max_size=10) | st.sampled_from(["A", "\ud800", " "])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
OPTIONS = st.lists(
    st.fixed_dictionaries({"key": st.sampled_from("abcdefgh"), "label": TEXTS}),
    min_size=2,
    max_size=3,
    unique_by=lambda option: option["key"],
)
ODD_OPTIONS = st.lists(st.fixed_dictionaries({"key": LEAVES, "label": LEAVES}) | LEAVES, max_size=3) | LEAVES
DEFINITIONS = st.fixed_dictionaries({"question": TEXTS, "options": OPTIONS})
DEFINITION = DEFINITIONS | st.fixed_dictionaries(
    {}, optional={"question": LEAVES, "options": OPTIONS | ODD_OPTIONS, "more": LEAVES}
)
PUBLISHED = (DEFINITION | LEAVES | st.lists(LEAVES, max_size=3)).map(lambda value: json.dumps(value).encode()) | BYTES


@settings(QUICK, max_examples=100)
@given(published=st.dictionaries(st.sampled_from([b"x", b"lunch", b"tea"]) | BYTES, PUBLISHED, max_size=4))
def test_one_poll_that_cannot_be_read_takes_no_other_away(services: Services, published: dict[Any, Any]) -> None:
    published.pop(b"default", None)

    async def read() -> tuple[dict[str, Poll], dict[str, str]]:
        async with redis_client(services.broker.url, timeout=5) as client:
            if published:
                await client.hset(POLLS, mapping=published)
            try:
                return await read_polls(client)
            finally:
                if published:
                    await client.hdel(POLLS, *published)

    good, bad = asyncio.run(read())
    assert good["default"] == POLL
    assert {*good, *bad} == {"default"} | {slug.decode(errors="replace") for slug in published}
    for slug, poll in good.items():
        assert Poll.from_json(slug, poll.to_json()) == poll
        for text in (slug, poll.question, *(part for option in poll.options for part in (option.key, option.label))):
            text.encode()  # half of a surrogate pair could be on no page


CHOICES = st.sampled_from([b"a", b"b", b"c", b"", b"\xff"]) | BYTES
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        b"poll": st.sampled_from([b"default", b"default", b"other", b"\xff"]) | BYTES,
        b"voter": st.sampled_from([b"v" * 16, b"\xff" * 16, b"v" * 15]) | BYTES,
        b"choice": CHOICES,
        b"traceparent": BYTES,
        b"": BYTES,
    },
).flatmap(lambda given: st.permutations([*given.items()]))


@QUICK
@given(pairs=ENTRIES, entry=st.tuples(st.integers(0), st.integers(0)))
def test_an_entry_is_a_vote_of_the_poll_or_malformed(pairs: list[tuple[bytes, bytes]], entry: tuple[int, int]) -> None:
    register = VoteParser((POLL,))
    flat = [part for pair in pairs for part in pair]
    given = dict(pairs)
    is_vote = (
        given.get(b"poll") == b"default"
        and len(given.get(b"voter", b"")) == 16
        and given.get(b"choice") in {b"a", b"b"}
    )
    if is_vote:
        found = register.read(EntryId(*entry), flat)
        assert found == Vote("default", given[b"voter"], given[b"choice"].decode(), EntryId(*entry))
    else:
        with pytest.raises(Malformed, match=r"[ -~]+"):
            register.read(EntryId(*entry), flat)
