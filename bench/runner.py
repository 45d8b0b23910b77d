"""What measures run on: a stack of their own, the load generator, CPU times, and progress messages."""

import contextlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psycopg
from tests.e2e.stack import Stack, free_port, listening

from bench import machine

FORM = "application/x-www-form-urlencoded"
_IN_TURN = """local requests, number = {}, 0
function init()
    for _, path in ipairs({%s}) do
        for _, body in ipairs({%s}) do requests[#requests + 1] = wrk.format(nil, path, nil, body) end
    end
end
function request() number = number %% #requests + 1; return requests[number] end
"""
_POST = f'wrk.method = "POST"\nwrk.body = "vote=a"\nwrk.headers["Content-Type"] = "{FORM}"\n'
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


@dataclass
class Load:
    """The figures of one run of wrk."""

    rate: float
    requests: int
    failed: int
    p50: float  # milliseconds
    p99: float
    busy: float  # share of a core that wrk took; near 1, wrk was the bottleneck


@dataclass
class Runner:
    """Runs measures; with `quick` short ones, which show only that all works."""

    quick: bool
    rounds: int

    def log(self, line: str) -> None:
        """Print a progress message."""
        print(f"  {line}", file=sys.stderr, flush=True)

    def quick_or_full(self, quick: float, full: float) -> float:
        """Return the value for this kind of run."""
        return quick if self.quick else full

    @property
    def backlog(self) -> int:
        """Number of votes to count from a backlog."""
        return int(self.quick_or_full(50_000, 500_000))

    @contextlib.contextmanager
    def stack(self, workers: int = 1, **environment: str) -> Iterator[Stack]:
        """Run the whole application on free ports, with its data in a temporary directory."""
        with tempfile.TemporaryDirectory(prefix="voting-bench-") as folder:
            environment["VIEWERS_PER_ADDRESS"] = "0"  # all viewers have one address
            environment["PYTHONDONTWRITEBYTECODE"] = ""  # a second start finds compiled modules, as for users
            stack = Stack(Path(folder) / "data", workers=workers, **environment).start()
            try:
                yield stack
            finally:
                stack.stop()

    @contextlib.contextmanager
    def limit_server(self, stack: Stack, processes: int = 1) -> Iterator[tuple[str, int]]:
        """Run the limit for accepting; yield its URL and process id."""
        port = free_port()
        page = stack.data / "page.html"
        page.write_bytes(httpx.post(stack.vote_url, data={"vote": "a"}).content)
        command = [sys.executable, "-m", "bench.limit_accept", str(port), str(processes), str(page)]
        with listening(command, port) as process:
            yield f"http://127.0.0.1:{port}/", process.pid

    def wrk(
        self,
        url: str,
        seconds: float,
        connections: int = 64,
        delay: float = 0,
        *,
        paths: Sequence[str] = (),
        bodies: Sequence[str] = (),
    ) -> Load:
        """Vote with wrk: as fast as votes are answered, or `delay` milliseconds later on average on each connection.

        With `paths` or `bodies`, requests have them in turn.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:  # wrk takes whole milliseconds
            script.write(
                _POST + (f"function delay() return math.floor({delay} + math.random()) end\n" if delay else "")
            )
            if paths or bodies:
                script.write(_IN_TURN % (_lua(paths or [urlsplit(url).path]), _lua(bodies or ["vote=a"])))
            script.flush()
            before, began = _children(), time.monotonic()
            command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", script.name, url]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            busy = (_children() - before) / (time.monotonic() - began)
        requests = int(find(r"(\d+) requests in", output))
        failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", output)))
        failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", output)))
        rate = float(find(r"Requests/sec:\s+([\d.]+)", output))
        return Load(rate, requests, failed, _time("50%", output), _time("99%", output), busy)

    def run_program(self, *words: str) -> Any:
        """Run a Python program; return the JSON that it printed."""
        run = subprocess.run([sys.executable, *words], stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(run.stdout)


def _lua(texts: Sequence[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts)


def _children() -> float:
    """Return the CPU seconds of the programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def find(pattern: str, text: str) -> str:
    """Return what the group of a pattern matches in a program's output."""
    found = re.search(pattern, text, re.MULTILINE)
    if not found:
        raise RuntimeError(f"nothing like {pattern} in:\n{text}")
    return found[1]


def _time(share: str, text: str) -> float:
    found = re.search(rf"{share}\s+([\d.]+)(us|ms|s|m)\b", text)
    return float(found[1]) * UNITS[found[2]] if found else float("nan")


class CpuMeter:
    """Measures the CPU seconds of processes and the wall time inside a `with` block."""

    def __init__(self, **pids: int) -> None:
        self._pids = pids

    def __enter__(self) -> Self:
        self._before = {name: machine.cpu_seconds(pid) for name, pid in self._pids.items()}
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.cpu = {name: machine.cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}

    def add_round(self, cpu: dict[str, list[float]], votes: float, limit: str = "") -> None:
        """Add a round to the CPU times: seconds for a thousand votes, which is milliseconds for one."""
        for name, seconds in self.cpu.items():
            cpu.setdefault(limit + name, []).append(1000 * seconds / votes)


def process_ids(stack: Stack) -> dict[str, int]:
    """Return the process ids of a stack's parts by name."""
    names = [file.stem for file in (stack.data / "run").glob("*.pid") if file.stem != "up"]
    return {name: stack.pid(name) for name in sorted(names)}


def delete_votes(stack: Stack) -> None:
    """Delete all votes."""
    with psycopg.connect(stack.state["database_url"]) as database:
        database.execute("TRUNCATE votes")
        database.execute("UPDATE tallies SET votes = 0")
        database.commit()
        database.autocommit = True
        database.execute("VACUUM votes")
        database.execute("CHECKPOINT")


def voters(stack: Stack) -> int:
    """Return the number of counted voters."""
    found: int = stack.rows("SELECT count(*) FROM votes")[0][0]
    return found
