"""Attacks on the limits of one connection, several at the same time, from one address.

python -m tests.faults.attacks GROUP VOTE_PORT RESULT_PORT SECONDS [NAME...]

Without names it runs all attacks of the group. It prints as JSON the number of each outcome by attack: the status of an
answer, the close code of a WebSocket, "cut" for a connection that ended without either, "left" for one that was still
open in the end. A process of its own, so that the voters of the load generator do not wait for it.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from tests.faults.attack_types import (
    CHUNKED,
    HEAD,
    PARALLEL,
    SLOW,
    UNREAD,
    Attack,
    at_once,
    frames,
    handshakes,
    pipelined_and_not_read,
    pipelined_and_read,
    read_slowly,
    repeated,
    requests,
    slow,
)
from tests.faults.viewers import allow_many_files


def _hosts() -> Iterator[Iterable[bytes]]:
    for number in itertools.count():
        yield [b"GET /present HTTP/1.1\r\nHost: h%d.example\r\nConnection: close\r\n\r\n" % number]


def _path(length: int) -> Callable[[], Iterable[bytes]]:
    request = b"GET /p/%s/present HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % (b"x" * length)
    return lambda: [request]


HOSTS = _hosts()
BOTH, VOTE, RESULT = ("vote", "result"), ("vote",), ("result",)
GROUPS: dict[str, dict[str, tuple[tuple[str, ...], Attack]]] = {
    "pipelined": {
        "one connection, read": (VOTE, at_once(1, pipelined_and_read, is_cut=False)),
        "many connections, read": (BOTH, at_once(PARALLEL, pipelined_and_read, is_cut=False)),
        "not read": (BOTH, at_once(UNREAD, pipelined_and_not_read)),
        "read slowly": (BOTH, at_once(SLOW, read_slowly)),
    },
    "endless": {
        "trailers": (BOTH, requests(repeated(CHUNKED, b"6\r\nvote=a\r\n0\r\n", then=b"A: b\r\n"))),
        "a long trailer": (BOTH, requests(repeated(CHUNKED, b"6\r\nvote=a\r\n0\r\nA: ", then=b"b"))),
        "chunk extensions": (BOTH, requests(repeated(CHUNKED, b"6;", then=b"a=b;"))),
        "chunks of a byte": (BOTH, requests(repeated(CHUNKED, then=b"1\r\na\r\n"))),
        "small header fields": (
            BOTH,
            requests(repeated(HEAD, b"a:\r\n" * 3500, b"Connection: close\r\n\r\n", then=b"", times=0)),
        ),
        "header fields": (BOTH, requests(repeated(HEAD, then=b"a: b\r\n"))),
        "a long header": (BOTH, requests(repeated(HEAD, b"A: ", then=b"b"))),
        "a long target": (BOTH, requests(repeated(b"GET /", then=b"a"))),
        "slow heads": (BOTH, slow(HEAD, b"X: x\r\n")),
        "slow bodies": (BOTH, slow(HEAD + b"Content-Length: 1000\r\n\r\nvote=", b"a")),
        "codes of long paths": (RESULT, requests(_path(2900), pace=0.05)),
        "codes of longer paths": (RESULT, requests(_path(4000), pace=0.05)),
        "codes of other hosts": (RESULT, requests(lambda: next(HOSTS), pace=0.05)),
    },
    "sockets": {
        "pings": (RESULT, frames(b"\x89\x80\0\0\0\0")),
        "pings, not read": (RESULT, frames(b"\x89\x80\0\0\0\0", reads=False)),
        "pongs": (RESULT, frames(b"\x8a\x80\0\0\0\0")),
        "continuations": (RESULT, frames(b"\x00\x81\0\0\0\0a")),
        "handshakes": (RESULT, handshakes(b"/ws", 0)),
        "refused handshakes": (RESULT, handshakes(b"/p/unknown/ws", 4000)),
    },
}


async def main(group: str, ports: dict[str, int], seconds: float, names: list[str]) -> None:
    """Run attacks of a group at the same time."""
    end = time.monotonic() + seconds
    running = {
        f"{name} ({service})": asyncio.ensure_future(attack(ports[service], end))
        for name, (services, attack) in GROUPS[group].items()
        for service in services
        if not names or name in names
    }
    await asyncio.gather(*running.values())
    print(json.dumps({name: task.result() for name, task in running.items()}))


if __name__ == "__main__":
    allow_many_files()
    os.nice(10)  # an attacker's CPU time is not the service's
    asyncio.run(
        main(sys.argv[1], {"vote": int(sys.argv[2]), "result": int(sys.argv[3])}, float(sys.argv[4]), sys.argv[5:])
    )
