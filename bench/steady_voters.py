"""Votes at a steady rate, each from a new voter.

python -m bench.steady_voters PORT RATE SECONDS      prints when each was due (monotonic clock), in order, as JSON
"""

import asyncio
import json
import sys
import time

import uvloop
from tests.wire import Client, post

CONNECTIONS = 32


async def main(port: int, rate: float, seconds: float) -> None:
    """Send each vote when it is due, answered or not the one before: no coordinated omission."""
    clients = [await Client.connect(port) for _ in range(CONNECTIONS)]
    began = time.monotonic() + 0.2
    number = int(rate * seconds)
    next_vote = iter(range(number))
    late: list[float] = []

    async def use(client: Client) -> None:
        for vote in next_vote:
            due = began + vote / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            late.append(time.monotonic() - due)
            answer = await client.ask(post(port))
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer[:200].decode())

    cpu = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(use(client))
    cpu = (time.process_time() - cpu) / (time.monotonic() - began)
    print(json.dumps({"began": began, "rate": rate, "votes": number, "cpu": cpu, "latest": max(late)}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
