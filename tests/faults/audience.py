"""Viewers: some that come back as the page does, some that never read, and one who times how soon a vote is seen."""

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

from tests.faults.plant import ROOT, Plant
from tests.waiting import eventually

OPENING = (
    b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
RULE = "setTimeout(connect, Math.random() * Math.min(10_000, 1000 * 2 ** tries))"  # what `comeback` does
POLL = """
    INSERT INTO polls (slug, question, options)
    VALUES ('witness', '?', '[{"key": "a", "label": "A"}, {"key": "b", "label": "B"}]') RETURNING 1
"""
PONG = b"\x8a\x80\0\0\0\0"


def the_page_keeps_the_rule() -> bool:
    """Whether the page waits as these viewers do before it connects again."""
    return RULE in (ROOT / "src/voting/result/pages/result.js").read_text()


def allow_many_files() -> None:
    """A shell's usual 1,024 are too few."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Audience:
    """A number of viewers in a thread of their own, who connect again when they are cut off.

    Args:
        port: of result.
        number: how many.
        seed: of the dice of their waits.
    """

    def __init__(self, port: int, number: int, seed: int) -> None:
        allow_many_files()
        self._port, self._number = port, number
        self._dice = random.Random(seed)  # noqa: S311 - has to be the same for the same seed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.open = 0
        self.arrived: list[float] = []  # when each viewer was let in, also again

    @contextlib.contextmanager
    def watching(self) -> Iterator["Audience"]:
        """Let all come; in the end all go."""
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
        self._loop.run_until_complete(asyncio.sleep(0.05))  # connections close in the next turns of the loop
        self._loop.close()

    async def _watch_always(self) -> None:
        tries = 0
        while True:
            began = time.monotonic()
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._watch()
            tries = 0 if time.monotonic() - began > 5 else tries + 1
            await asyncio.sleep(self._dice.random() * min(10, 2**tries))

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
def deaf(port: int, number: int) -> Iterator[None]:
    """Viewers that never read a byte."""
    allow_many_files()
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            viewer = stack.enter_context(socket.socket())
            viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            viewer.connect(("127.0.0.1", port))
            viewer.sendall(OPENING % (b"/ws", port))
        yield


class Witness(threading.Thread):
    """One who votes in a poll of its own ten times a second, and times each vote until a viewer sees it.

    Args:
        plant: where.
    """

    def __init__(self, plant: Plant) -> None:
        super().__init__(daemon=True)
        self._plant = plant
        self._done = threading.Event()
        self.times: list[float] = []
        plant.rows(POLL)
        for url in (plant.vote_url, plant.result_url):
            eventually(lambda url=url: httpx.get(f"{url}/p/witness").status_code == 200)  # type: ignore[misc]

    def run(self) -> None:
        """Until told to stop."""
        url = f"ws://127.0.0.1:{self._plant.result_port}/p/witness/ws"
        headers = {"accept": "application/json"}
        with connect(url) as viewer, httpx.Client(base_url=self._plant.vote_url, headers=headers) as voter:
            voter.get("/p/witness")
            choice = "a"
            while not self._done.wait(0.1):
                began = time.monotonic()
                voter.post("/p/witness", data={"vote": choice}).raise_for_status()
                while not self._shows(json.loads(viewer.recv(timeout=20)), choice):
                    pass
                self.times.append(time.monotonic() - began)
                choice = "ab"[choice == "a"]

    @staticmethod
    def _shows(snapshot: dict[str, list[dict[str, object]]], choice: str) -> bool:
        return any(option["key"] == choice and option["votes"] == 1 for option in snapshot["options"])

    def stop(self) -> float:
        """Enough; return the 99th percentile of the times, or infinity if it saw too few votes."""
        self._done.set()
        self.join(30)
        return sorted(self.times)[int(0.99 * len(self.times))] if len(self.times) > 20 else float("inf")
