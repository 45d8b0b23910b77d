"""Viewers that reconnect as the page does, viewers that never read, and a probe of how soon a vote is shown."""

import asyncio
import contextlib
import json
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator

import httpx
from websockets.sync.client import connect

from tests.faults.cluster import ROOT
from tests.faults.system import SystemUnderTest
from tests.waiting import eventually

OPENING = (
    b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RECONNECT_RULE = (
    "setTimeout(connect, Math.random() * Math.min(10_000, 1000 * 2 ** attempts))"  # as `_watch_always` does
)
POLL = """
    INSERT INTO polls (slug, question, options)
    VALUES ('probe', '?', '[{"key": "a", "label": "A"}, {"key": "b", "label": "B"}]') RETURNING 1
"""
PONG = b"\x8a\x80\0\0\0\0"


def page_reconnects_by_the_same_rule() -> bool:
    """Return whether the page waits by the same rule as `Viewers` before it reconnects."""
    return RECONNECT_RULE in (ROOT / "src/voting/result/pages/feed.js").read_text()


def allow_many_files() -> None:
    """Raise the limit of open files to the maximum."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Viewers:
    """Viewers in a thread of their own that reconnect when they are cut off.

    Args:
        port: of result.
        number: of viewers.
        seed: of their random waits.
    """

    def __init__(self, port: int, number: int, seed: int) -> None:
        allow_many_files()
        self._port, self._number = port, number
        self._random = random.Random(seed)  # noqa: S311 - has to be the same for the same seed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.open = 0
        self.arrived: list[float] = []  # when a viewer was connected or reconnected

    @contextlib.contextmanager
    def connected(self) -> Iterator["Viewers"]:
        """Connect all; in the end disconnect all."""
        self._thread.start()
        try:
            eventually(lambda: self.open == self._number, within=60)
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        viewers = [self._loop.create_task(self._watch_always()) for _ in range(self._number)]
        self._loop.run_forever()
        for viewer in viewers:
            viewer.cancel()
        self._loop.run_until_complete(asyncio.gather(*viewers, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0.05))  # connections close in the next iterations of the loop
        self._loop.close()

    async def _watch_always(self) -> None:
        attempts = 0
        while True:
            began = time.monotonic()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._watch()
            attempts = 0 if time.monotonic() - began > 5 else attempts + 1
            await asyncio.sleep(self._random.random() * min(10, 2**attempts))

    async def _watch(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4096)
        try:
            writer.write(OPENING % (b"/ws", self._port))
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head:
                return
            self.open += 1
            self.arrived.append(time.monotonic())
            try:
                while True:
                    kind, size = await reader.readexactly(2)
                    if size == 126:
                        size = int.from_bytes(await reader.readexactly(2), "big")
                    await reader.readexactly(size)
                    if kind == 0x89:
                        writer.write(PONG)
            finally:
                self.open -= 1
        finally:
            writer.transport.abort()


@contextlib.contextmanager
def unread_viewers(port: int, number: int) -> Iterator[None]:
    """Connect viewers that never read a byte."""
    allow_many_files()
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            viewer = stack.enter_context(socket.socket())
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            viewer.connect(("127.0.0.1", port))
            viewer.sendall(OPENING % (b"/ws", port))
        yield


class FreshnessProbe(threading.Thread):
    """Votes in a poll of its own ten times a second, and times each vote until a viewer is shown it."""

    def __init__(self, system: SystemUnderTest) -> None:
        super().__init__(daemon=True)
        self._system = system
        self._done = threading.Event()
        self.times: list[float] = []
        system.rows(POLL)
        for url in (system.vote_url, system.result_url):
            eventually(lambda url=url: httpx.get(f"{url}/p/probe").status_code == 200)  # type: ignore[misc]

    def run(self) -> None:
        """Vote until stopped."""
        url = f"ws://127.0.0.1:{self._system.result_port}/p/probe/ws"
        headers = {"accept": "application/json"}
        with connect(url) as viewer, httpx.Client(base_url=self._system.vote_url, headers=headers) as voter:
            voter.get("/p/probe")
            choice = "a"
            while not self._done.wait(0.1):
                began = time.monotonic()
                answer = voter.post("/p/probe", data={"vote": choice})
                if answer.status_code == 503:  # the disk is slow
                    continue
                answer.raise_for_status()
                while not self._shows(json.loads(viewer.recv(timeout=20)), choice):
                    pass
                self.times.append(time.monotonic() - began)
                choice = "ab"[choice == "a"]

    @staticmethod
    def _shows(snapshot: dict[str, list[dict[str, object]]], choice: str) -> bool:
        return any(option["key"] == choice and option["votes"] == 1 for option in snapshot["options"])

    def stop(self) -> float:
        """Stop; return the 99th percentile of the times in seconds, or infinity if there are too few."""
        self._done.set()
        self.join(30)
        return sorted(self.times)[int(0.99 * len(self.times))] if len(self.times) > 20 else float("inf")
