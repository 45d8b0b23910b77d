"""A burst of voters: each opens a connection, gets the ballot and its cookie, and votes.

python -m bench.burst_voters PORT VOTERS SECONDS      prints failures and times in seconds as JSON
"""

import asyncio
import json
import sys
import time

import uvloop
from tests.wire import COOKIE, Client, get, post

from bench import machine
from bench.report import percentile


async def main(port: int, voters: int, seconds: float) -> None:
    """Spread the arrivals evenly; time each voter from when it was due."""
    machine.allow_many_files()
    began = time.monotonic() + 0.2
    times: list[float] = []
    failed = 0

    async def vote(number: int) -> None:
        nonlocal failed
        due = began + seconds * number / voters
        await asyncio.sleep(due - time.monotonic())
        try:
            client = await Client.connect(port)
            page = await client.ask(get(port))
            cookie = COOKIE.search(page)
            answer = await client.ask(post(port, cookie[1] if cookie else b""))
            client.close()
        except OSError:
            failed += 1
            return
        failed += not (cookie and answer.startswith(b"HTTP/1.1 200"))
        times.append(time.monotonic() - due)

    cpu, opened = time.process_time(), time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(voters):
            tasks.create_task(vote(number))
    cpu, took = time.process_time() - cpu, time.monotonic() - opened
    p99 = percentile(times, 0.99)
    print(json.dumps({"failed": failed, "began": began, "p99": p99, "cpu": cpu, "seconds": took}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
