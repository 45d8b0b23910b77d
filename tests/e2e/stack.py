"""`voting up` as a user starts it: a process of its own on free ports, with a data directory of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from tests.waiting import eventually

STARTED = "Ready in"


@contextmanager
def listening(command: list[str], port: int, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A program that listens on a port of this machine, from when it answers to its end."""
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


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Stack:
    """One run of `voting up`, which may be ended and started again on the same data."""

    def __init__(self, data: Path, *, workers: int = 2, **environment: str) -> None:
        self.data = data
        self.vote_port, self.result_port = free_port(), free_port()
        self.vote_url, self.result_url = f"http://127.0.0.1:{self.vote_port}", f"http://127.0.0.1:{self.result_port}"
        self._workers = workers
        self._environment = os.environ | environment  # noqa: TID251 - what a user's shell would pass on
        self.output = data.with_suffix(".out")

    def launch(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run `voting up` without waiting for it."""
        command = [sys.executable, "-m", "voting", "up", "--data", str(self.data), "--workers", str(self._workers)]
        command += ["--vote-port", str(self.vote_port), "--result-port", str(self.result_port), *arguments]
        with self.output.open("wb") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=self._environment)

    def start(self) -> "Stack":
        """Start it and wait until it is ready; if it ends early, its output is the error."""
        self.process = self.launch()

        def is_ready() -> bool:
            said = self.output.read_text()
            if self.process.poll() is not None:
                raise RuntimeError(f"voting up ended with {self.process.returncode}:\n{said}")
            return STARTED in said

        eventually(is_ready, within=60)
        return self

    def stop(self) -> int:
        """Stop it as Ctrl-C or an init system does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(45)

    def pid(self, name: str) -> int:
        """The process id of a part."""
        return int((self.data / "run" / f"{name}.pid").read_text())

    def kill(self, name: str) -> int:
        """End a part as a crash would; return the process id that it had."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    @contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Parts, and their children, that answer nothing for a while."""
        parents = [str(self.pid(name)) for name in names]
        command = ["ps", "-o", "pid=", "--ppid", ",".join(parents)]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
        everything = [int(pid) for pid in (*parents, *found)]
        for pid in everything:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in everything:
                os.kill(pid, signal.SIGCONT)

    @property
    def state(self) -> dict[str, Any]:
        """What `up` leaves for `voting status`."""
        found: dict[str, Any] = json.loads((self.data / "run" / "state.json").read_text())
        return found

    def results(self) -> dict[str, Any]:
        """The snapshot that the result service gives now."""
        answer = httpx.get(f"{self.result_url}/api/results")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def tally(self) -> dict[str, int]:
        """Votes by key, as the result service shows them."""
        return {option["key"]: option["votes"] for option in self.results()["options"]}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database directly."""
        with psycopg.connect(self.state["database_url"]) as connection:
            return connection.execute(query.encode()).fetchall()

    def broker(self) -> redis.Redis:
        """A client of the broker."""
        return redis.Redis.from_url(self.state["redis_url"])

    def drained(self) -> bool:
        """Whether nothing waits to be counted."""
        with self.broker() as client:
            try:
                return bool(client.xlen("votes") == 0)
            except redis.ConnectionError:
                return False
