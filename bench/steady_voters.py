"""Votes at a steady rate, each from a new voter.

python -m bench.steady_voters PORT RATE SECONDS [POLLS [CLOSING]]
    votes in the default poll, or in turn in the polls /p/p0, /p/p1, and so on. It prints as JSON when each vote was due
    (monotonic clock), in order. With CLOSING it accepts that a poll is not open.
"""

import asyncio
import json
import sys
import time

import uvloop
from tests.wire import Client, post

CONNECTIONS = 32


async def main(port: int, rate: float, seconds: float, polls: int = 0, closing: str = "") -> None:
    """Send each vote when it is due, answered or not the one before: no coordinated omission."""
    clients = [await Client.connect(port) for _ in range(CONNECTIONS)]
    began = time.monotonic() + 0.2
    number = int(rate * seconds)
    next_vote = iter(range(number))
    late: list[float] = []
    requests = [post(port, path=b"/p/p%d" % poll) for poll in range(polls)] or [post(port)]
    accepted = 0

    async def use(client: Client) -> None:
        nonlocal accepted
        for vote in next_vote:
            due = began + vote / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            late.append(time.monotonic() - due)
            answer = await client.ask(requests[vote % len(requests)])
            is_accepted = answer.startswith(b"HTTP/1.1 200")
            accepted += is_accepted
            if not is_accepted and not (closing and answer.startswith(b"HTTP/1.1 409")):
                raise RuntimeError(answer[:200].decode())

    cpu = time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(use(client))
    cpu = (time.process_time() - cpu) / (time.monotonic() - began)
    print(
        json.dumps(
            {"began": began, "rate": rate, "votes": number, "accepted": accepted, "cpu": cpu, "latest": max(late)}
        )
    )


if __name__ == "__main__":
    chosen, rest = int(sys.argv[4]) if len(sys.argv) > 4 else 0, sys.argv[5:]
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), chosen, *rest))
