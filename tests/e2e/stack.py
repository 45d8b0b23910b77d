"""`voting up` as a user starts it, on free ports and with a data directory of its own."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from tests.waiting import PLAIN, eventually

STARTED = "Ready in"


@contextmanager
def listening(command: list[str], port: int, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program that listens on a local port; yield when it accepts connections, terminate it in the end."""
    process = subprocess.Popen(command, **options)
    try:
        eventually(lambda: _answers(port), within=60)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    socket.create_connection(("127.0.0.1", port), timeout=2).close()
    return True


_PORTS = iter(random.SystemRandom().sample(range(10_000, 32_768), 20_000))


def free_port() -> int:
    """Return a port that nothing listens on now, and another one each time.

    Linux gives ports from 32768 on to clients, so that one of those may be taken before it is used.
    """
    for port in _PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is left")


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Stop processes (SIGSTOP) inside the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Stack:
    """A `voting up` that can be stopped and started again on the same data."""

    def __init__(self, data: Path, *, workers: int = 2, **environment: str) -> None:
        self.data = data
        self.vote_port, self.result_port, self.admin_port = free_port(), free_port(), free_port()
        self.vote_url, self.result_url = f"http://127.0.0.1:{self.vote_port}", f"http://127.0.0.1:{self.result_port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self._workers = workers
        self._environment = os.environ | environment  # noqa: TID251 - what a user's shell would pass on
        self.output = data.with_suffix(".out")

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run `voting up` without waiting for it."""
        command = [sys.executable, "-m", "voting", "up", "--data", str(self.data), "--workers", str(self._workers)]
        command += ["--vote-port", str(self.vote_port), "--result-port", str(self.result_port)]
        command += ["--admin-port", str(self.admin_port), *arguments]
        with self.output.open("wb") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=self._environment)

    def start(self) -> "Stack":
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it ended early; with its output.
        """
        self.process = self.launch()

        def is_ready() -> bool:
            output = self.output.read_text()
            if self.process.poll() is not None:
                raise RuntimeError(f"voting up ended with {self.process.returncode}:\n{output}")
            return STARTED in output

        eventually(is_ready, within=60)
        return self

    def stop(self) -> int:
        """Stop it with SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(45)

    def pid(self, name: str) -> int:
        """Return the process id of a part."""
        return int((self.data / "run" / f"{name}.pid").read_text())

    def kill(self, name: str) -> int:
        """Kill a part (-9); return the process id that it had."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Stop parts and their children (SIGSTOP) inside the block, so that they answer nothing."""
        parents = [self.pid(name) for name in names]
        with stopped(*parents):  # first, so that they get no more children
            command = ["ps", "-o", "pid=", "--ppid", ",".join(map(str, parents))]
            found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
            with stopped(*map(int, found)):
                yield

    @property
    def state(self) -> dict[str, Any]:
        """Return what `up` writes for `voting status`."""
        found: dict[str, Any] = json.loads((self.data / "run" / "state.json").read_text())
        return found

    @property
    def admin_key(self) -> str:
        """Return the key of the admin service."""
        return (self.data / "admin_key").read_text()

    def admin(self) -> httpx.Client:
        """Return a client of the admin service, with its key."""
        return httpx.Client(**self._admin)

    def async_admin(self) -> httpx.AsyncClient:
        """Return an asynchronous client of the admin service, with its key."""
        return httpx.AsyncClient(**self._admin)

    @property
    def _admin(self) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.admin_key}"}
        return {"base_url": self.admin_url, "headers": headers, "verify": PLAIN, "timeout": 30}

    def results(self, path: str = "") -> dict[str, Any]:
        """Return the current snapshot of the default poll, or of that at a path."""
        answer = httpx.get(f"{self.result_url}{path}/api/results", verify=PLAIN)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def tally(self) -> dict[str, int]:
        """Return votes by key, as the result service shows them."""
        return {option["key"]: option["votes"] for option in self.results()["options"]}

    def settled_tally(self) -> dict[str, int]:
        """Wait until each accepted vote is counted and shown; return votes by key."""
        eventually(self.drained)
        ((counted,),) = self.rows(
            "SELECT sum(votes) FROM tallies JOIN polls ON poll = poll_box(slug, round) WHERE slug = 'default'"
        )
        return eventually(lambda: tally if sum((tally := self.tally()).values()) == (counted or 0) else {})

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""
        with psycopg.connect(self.state["database_url"]) as connection:
            return connection.execute(query.encode()).fetchall()

    def broker(self) -> redis.Redis:
        """Return a client of the broker."""
        return redis.Redis.from_url(self.state["redis_url"])

    def drained(self) -> bool:
        """Return whether the stream is empty."""
        with self.broker() as client:
            try:
                return bool(client.xlen("votes") == 0)
            except redis.ConnectionError:
                return False
