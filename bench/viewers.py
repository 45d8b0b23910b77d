"""Many open WebSockets in one process that costs little, so that the server is what is measured.

python -m bench.viewers PORT NUMBER [PATH]      prints "open", then reads commands from standard input, one a line:
    reset           forget what was seen
    wait N          wait until N frames were seen by every viewer since; then print as JSON
    total N         wait until each viewer who is read has seen a total of N; then print as JSON
    expect PATTERN  forget what was seen, and look for a pattern in the frames of all viewers from now on
    matched         wait until every viewer has seen it; then print as JSON when the last one did (monotonic clock)
                    (these wait ten seconds at most)
"""

import asyncio
import base64
import json
import os
import re
import sys
import time

import uvloop

from bench import machine

SAMPLE = 100  # viewers whose frames are read; those of the others are counted
TOTAL = re.compile(rb'"total":(\d+)')
OPENING = (
    b"GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class ViewerStats:
    """What all viewers together have received."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.step = max(1, number // SAMPLE)  # one in so many viewers is read, so early and late ones are
        self.open = 0
        self.lost = 0
        self.pattern: re.Pattern[bytes] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget what was seen."""
        self.frames = 0
        self.last = 0.0
        self.seen: list[tuple[float, int, int]] = []  # when, which viewer, what total
        self.shown: dict[int, int] = {}  # viewer -> total
        self.matched: dict[int, float] = {}  # viewer -> when it has seen the pattern

    def has(self, word: str, wanted: int) -> bool:
        """Whether all viewers have received what a command waits for."""
        if word == "wait":
            return self.frames >= self.number * wanted
        if word == "matched":
            return len(self.matched) == self.number
        return len(self.shown) == len(range(0, self.number, self.step)) and min(self.shown.values()) >= wanted


class Viewer(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, stats: ViewerStats, port: int, path: bytes, number: int) -> None:
        self._stats, self._port, self._path, self._number = stats, port, path, number
        self._buffer = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Send the upgrade request."""
        self._transport = transport
        transport.write(OPENING % (self._path, self._port, base64.b64encode(os.urandom(16))))

    def data_received(self, data: bytes) -> None:
        """Split the buffer into frames, which a server sends unmasked."""
        buffer = self._buffer + data if self._buffer else data
        if not self._is_open:
            head, end, rest = buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = buffer
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._transport.abort()
                return
            self._is_open = True
            self._stats.open += 1
            buffer = rest
        while len(buffer) >= 2:
            size, start = buffer[1], 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            if len(buffer) < start + size:
                break
            self._receive(buffer[0], buffer[start : start + size])
            buffer = buffer[start + size :]
        self._buffer = buffer

    def _receive(self, kind: int, payload: bytes) -> None:
        if kind == 0x89:
            self._transport.write(bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
        elif kind == 0x81:
            stats = self._stats
            stats.frames += 1
            stats.last = time.monotonic()
            if stats.pattern and self._number not in stats.matched and stats.pattern.search(payload):
                stats.matched[self._number] = stats.last
            if self._number % stats.step == 0 and (total := TOTAL.search(payload)):
                stats.seen.append((stats.last, self._number, int(total[1])))
                stats.shown[self._number] = int(total[1])

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it; no connection should be lost."""
        del exc
        self._stats.lost += 1


async def main(port: int, number: int, path: str = "/ws") -> None:
    """Open the WebSockets a hundred at a time, then execute commands."""
    machine.allow_many_files()
    loop = asyncio.get_running_loop()
    stats = ViewerStats(number)
    for start in range(0, number, 100):
        batch = [Viewer(stats, port, path.encode(), n) for n in range(start, min(start + 100, number))]
        await asyncio.gather(*(loop.create_connection(lambda each=each: each, "127.0.0.1", port) for each in batch))  # type: ignore[misc]
    while stats.open < number:
        if stats.lost:
            raise RuntimeError(f"{stats.lost} of {number} viewers were not let in")
        await asyncio.sleep(0.05)
    print("open", flush=True)
    cpu, began = time.process_time(), time.monotonic()
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, _, argument = line.strip().partition(" ")
        if word in {"reset", "expect"}:
            stats.reset()
            stats.pattern = re.compile(argument.encode()) if argument else None
            cpu, began = time.process_time(), time.monotonic()
            print(word, flush=True)
            continue
        wanted, end = int(argument or 0), time.monotonic() + 10
        while time.monotonic() < end and not stats.has(word, wanted):
            await asyncio.sleep(0.001)
        took = time.process_time() - cpu
        found = {"frames": stats.frames, "last": stats.last, "lost": stats.lost, "seen": stats.seen}
        if word == "matched":
            if len(stats.matched) < number:
                raise RuntimeError(f"{number - len(stats.matched)} of {number} viewers do not have the frame")
            found = {"last": max(stats.matched.values()), "frames": stats.frames}
        found |= {"cpu": took, "busy": took / (time.monotonic() - began)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
