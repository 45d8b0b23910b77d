"""Many open WebSockets, in one process that costs little enough not to be what is measured.

python -m bench.viewers PORT NUMBER      says "open", takes commands from standard input, a line each:
    mark     forget what was seen
    wait N   wait until N frames were seen by every viewer since; then print as JSON
    total N  wait until each viewer who is read has seen a total of N; then print as JSON
             (both wait ten seconds at most)
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

SAMPLE = 100  # of these viewers each frame is read; of the others it is counted
TOTAL = re.compile(rb'"total":(\d+)')
OPENING = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Crowd:
    """All viewers together: how many are open, and what they saw."""

    def __init__(self, number: int) -> None:
        self.step = max(1, number // SAMPLE)  # those who are read came early and late
        self.open = 0
        self.lost = 0
        self.mark()

    def mark(self) -> None:
        """Forget what was seen."""
        self.frames = 0
        self.last = 0.0
        self.seen: list[tuple[float, int, int]] = []  # when, by whom, what total
        self.shown: dict[int, int] = {}  # viewer -> total


class Viewer(asyncio.Protocol):
    """One of them."""

    def __init__(self, crowd: Crowd, port: int, number: int) -> None:
        self._crowd, self._port, self._number = crowd, port, number
        self._buffer = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask for the upgrade."""
        self._transport = transport
        transport.write(OPENING % (self._port, base64.b64encode(os.urandom(16))))

    def data_received(self, data: bytes) -> None:
        """Take the buffer apart into frames, which a server sends unmasked."""
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
            self._crowd.open += 1
            buffer = rest
        while len(buffer) >= 2:
            size, start = buffer[1], 2
            if size == 126:
                size, start = int.from_bytes(buffer[2:4], "big"), 4
            if len(buffer) < start + size:
                break
            self._take(buffer[0], buffer[start : start + size])
            buffer = buffer[start + size :]
        self._buffer = buffer

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == 0x89:
            self._transport.write(bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
        elif kind == 0x81:
            crowd = self._crowd
            crowd.frames += 1
            crowd.last = time.monotonic()
            if self._number % crowd.step == 0 and (total := TOTAL.search(payload)):
                crowd.seen.append((crowd.last, self._number, int(total[1])))
                crowd.shown[self._number] = int(total[1])

    def connection_lost(self, exc: Exception | None) -> None:
        """It should not be."""
        del exc
        self._crowd.lost += 1


async def main(port: int, number: int) -> None:
    """Open them in handfuls, then obey."""
    machine.allow_many_files()
    loop = asyncio.get_running_loop()
    crowd = Crowd(number)
    for start in range(0, number, 100):
        handful = range(start, min(start + 100, number))
        await asyncio.gather(
            *(loop.create_connection(lambda n=n: Viewer(crowd, port, n), "127.0.0.1", port) for n in handful)  # type: ignore[misc]
        )
    while crowd.open < number:
        if crowd.lost:
            raise RuntimeError(f"{crowd.lost} of {number} viewers were not let in")
        await asyncio.sleep(0.05)
    print("open", flush=True)
    readers = len(range(0, number, crowd.step))
    cpu, began = time.process_time(), time.monotonic()
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, _, argument = line.strip().partition(" ")
        if word == "mark":
            crowd.mark()
            cpu, began = time.process_time(), time.monotonic()
            print("marked", flush=True)
            continue
        wanted, end = int(argument), time.monotonic() + 10
        while time.monotonic() < end:
            if word == "wait" and crowd.frames >= number * wanted:
                break
            if word == "total" and len(crowd.shown) == readers and min(crowd.shown.values()) >= wanted:
                break
            await asyncio.sleep(0.001)
        took = time.process_time() - cpu
        found = {"frames": crowd.frames, "last": crowd.last, "lost": crowd.lost, "seen": crowd.seen}
        found |= {"cpu": took, "busy": took / (time.monotonic() - began)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
