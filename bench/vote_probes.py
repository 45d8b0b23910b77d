"""Asks every process of the vote service again and again, to see when each answers in a new way.

python -m bench.vote_probes PORT PATH PID...    prints "open", then reads commands from standard input, one a line:
    expect PATTERN  look for a pattern in the answers from now on
    answered        wait, ten seconds at most, until each process has answered so; then print as JSON when the last one
                    did (monotonic clock), how many seconds that answer took, and how many later answers were others

Each request is a vote in PATH, always of the same voter.
"""

import asyncio
import json
import re
import sys
import time

import psutil  # type: ignore[import-untyped]
import uvloop
from tests.wire import Client, post

EVERY = 0.004  # seconds between two requests to a process


class Probe:
    """A connection to one process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.expect(re.compile(b""))

    def expect(self, pattern: re.Pattern[bytes]) -> None:
        """Forget what was seen."""
        self._pattern = pattern
        self.seen = self.took = 0.0
        self.back = 0

    async def run(self, request: bytes) -> None:
        """Ask until cancelled."""
        while True:
            began, pattern = time.monotonic(), self._pattern
            answer = await self._client.ask(request)
            if pattern is self._pattern:
                if not pattern.search(answer):
                    self.back += self.seen > 0
                elif not self.seen:
                    self.seen = time.monotonic()
                    self.took = self.seen - began
            await asyncio.sleep(began + EVERY - time.monotonic())


async def connect_to_each(port: int, pids: list[int]) -> list[Client]:
    """Return one connection to each process; the kernel decides which one accepts a connection."""
    found: dict[int, Client] = {}
    for _ in range(200):
        client = await Client.connect(port)
        await client.ask(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)  # it is accepted now
        pid = next(pid for pid in pids if client.port in _peers(pid))
        if pid in found:
            client.close()
        found.setdefault(pid, client)
        if len(found) == len(pids):
            return list(found.values())
    raise RuntimeError(f"200 connections reached only {len(found)} of {len(pids)} processes")


def _peers(pid: int) -> set[int]:
    return {each.raddr.port for each in psutil.Process(pid).net_connections("tcp") if each.raddr}


async def main(port: int, path: str, pids: list[int]) -> None:
    """Connect, then execute commands."""
    probes = [Probe(client) for client in await connect_to_each(port, pids)]
    request = post(port, key=b"probe-of-the-benchmark", path=path.encode())
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(probe.run(request)) for probe in probes]
        print("open", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            word, _, pattern = line.strip().partition(" ")
            if word == "expect":
                compiled = re.compile(pattern.encode())
                for probe in probes:
                    probe.expect(compiled)
                print("expecting", flush=True)
                continue
            end = time.monotonic() + 10
            while not all(probe.seen for probe in probes) and time.monotonic() < end:
                await asyncio.sleep(0.001)
            if not all(probe.seen for probe in probes):
                raise RuntimeError("a process does not answer as expected")
            last, took = max((probe.seen, probe.took) for probe in probes)
            print(json.dumps({"last": last, "took": took, "back": sum(probe.back for probe in probes)}), flush=True)
        for task in asking:
            task.cancel()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], [int(pid) for pid in sys.argv[3:]]))
