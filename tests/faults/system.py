"""The system under test: every part is a process that can be stopped, killed, cut off, slowed and started again."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from tests.e2e.stack import free_port
from tests.faults.clocks import Clocks
from tests.faults.cluster import ROOT, cluster_files, is_ready
from tests.faults.proxy import Proxy
from tests.waiting import PLAIN, eventually
from voting.local import servers
from voting.local.datadir import DataDir
from voting.service import probe

RECLAIM = 2  # seconds after which a worker claims the entries of a dead one
STORES = ("valkey", "postgres")


def _send(signum: signal.Signals, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # a child that has ended
        os.kill(pid, signum)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class SystemUnderTest:
    """Valkey, PostgreSQL, workers, vote, result and perhaps admin, each in a process of its own.

    Args:
        folder: for data, logs and sockets; made if it is missing.
        workers: how many.
        votes: how many vote processes, `vote`, `vote-2` and so on, each with a port of its own.
        admin: run the admin service, too.
        source: another `src` than ours, for mutants.
        proxy_database: put `database_proxy` between the workers and the database.
        proxy_result: put `result_proxy` between result and the database.
        proxy_admin: put `admin_proxy` between admin and the database.
        proxy_broker: put `broker_proxies` between the vote processes and the broker, one for each.
        proxy_workers: put `worker_proxy` between the workers and the broker.
        clocks: give each service and the broker a clock of its own, in `clocks`.
        valkey: more arguments for Valkey; of two for one setting, the last counts.
        settings: more settings for the services.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 3,
        votes: int = 1,
        admin: bool = False,
        source: Path | None = None,
        proxy_database: bool = False,
        proxy_result: bool = False,
        proxy_admin: bool = False,
        proxy_broker: bool = False,
        proxy_workers: bool = False,
        clocks: bool = False,
        valkey: tuple[str, ...] = (),
        **settings: str,
    ) -> None:
        self.data = DataDir(folder)
        self.data.open()
        self.vote_ports = [free_port() for _ in range(votes)]
        self.vote_port, self.result_port, self.admin_port = self.vote_ports[0], free_port(), free_port()
        self.vote_url, self.result_url = f"http://127.0.0.1:{self.vote_port}", f"http://127.0.0.1:{self.result_port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        broker, self.redis_url = servers.valkey(self.data)
        broker.command += valkey
        self.data.postgres.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(cluster_files()), str(self.data.postgres)], check=True)
        database, self.database_url = servers.postgres(self.data)
        self._stores = {"valkey": broker, "postgres": database}
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        self.votes = ["vote", *(f"vote-{number}" for number in range(2, votes + 1))]
        self.services = (*self.workers, *self.votes, "result", *(["admin"] if admin else []))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._source = source
        self._settings = settings
        self._proxies: list[Proxy] = []
        self._worker_database_url = self._result_database_url = self._admin_database_url = self.database_url
        self._vote_redis_urls = dict.fromkeys(self.votes, self.redis_url)
        self._worker_redis_url = self.redis_url
        self.clocks = Clocks(folder / "clocks") if clocks else None
        postgres = self.data.sockets / "postgres" / ".s.PGSQL.5432"
        if proxy_database:
            self.database_proxy = self._add_proxy(postgres)
            self._worker_database_url = f"postgresql://voting@127.0.0.1:{self.database_proxy.port}/voting"
        if proxy_result:
            self.result_proxy = self._add_proxy(postgres)
            self._result_database_url = f"postgresql://voting@127.0.0.1:{self.result_proxy.port}/voting"
        if proxy_admin:
            self.admin_proxy = self._add_proxy(postgres)
            self._admin_database_url = f"postgresql://voting@127.0.0.1:{self.admin_proxy.port}/voting"
        if proxy_broker:
            self.broker_proxies = [self._add_proxy(self.data.sockets / "valkey.sock") for _ in self.votes]
            urls = [f"redis://127.0.0.1:{proxy.port}" for proxy in self.broker_proxies]
            self._vote_redis_urls = dict(zip(self.votes, urls, strict=True))
        if proxy_workers:
            self.worker_proxy = self._add_proxy(self.data.sockets / "valkey.sock")
            self._worker_redis_url = f"redis://127.0.0.1:{self.worker_proxy.port}"

    def _add_proxy(self, target: Path) -> Proxy:
        self._proxies.append(Proxy(target))
        return self._proxies[-1]

    @contextlib.contextmanager
    def running(self, *, services: bool = True) -> Iterator["SystemUnderTest"]:
        """Start everything, or only the stores; in the end stop everything."""
        try:
            self.start(*STORES)
            self.wait_ready(*STORES)
            if services:
                self.start(*self.services)
                self.wait_ready(*self.services)
            yield self
        finally:
            for names in (self.services, STORES):
                started = [name for name in names if name in self.processes]
                for name in started:
                    self._terminate(name)
                for name in started:
                    self.processes[name].wait(30)
                    self._remove_clock(name)
            for proxy in self._proxies:
                proxy.close()
            self.data.close()

    def start(self, *names: str, failpoint: str = "", **settings: str) -> None:
        """Start parts; a worker or admin may have a failpoint (see `failpoints`) or settings of its own."""
        for name in names:
            if name in self.processes:
                self._remove_clock(name)  # of a process that has ended by itself
            if name in self._stores:
                part = self._stores[name]
                with self.data.log_file(name).open("ab") as log:
                    options: dict[str, Any] = part.options | {"cwd": "/", "start_new_session": True}
                    if name == "valkey" and self.clocks:
                        options["env"] = {"PATH": os.defpath} | self._clock(name)
                    self.processes[name] = subprocess.Popen(part.command, stdout=log, stderr=log, **options)
            else:
                self.processes[name] = self._run(name, failpoint=failpoint, **self._environment(name) | settings)

    def _environment(self, name: str) -> dict[str, str]:
        own = {"METRICS_LISTEN": f"unix:{self.data.sockets / name}.sock"} | self._settings
        if name in self.votes:
            port = self.vote_ports[self.votes.index(name)]
            ports = {"VOTE_PORT": str(port), "RESULT_PORT": str(self.result_port)}
            return ports | own | {"REDIS_URL": self._vote_redis_urls[name], "SECRET_KEY": self.secret_key}
        if name == "admin":
            key = {"ADMIN_KEY": self.admin_key, "ADMIN_PORT": str(self.admin_port)}
            return key | own | {"DATABASE_URL": self._admin_database_url}
        if name == "result":
            return own | {"DATABASE_URL": self._result_database_url, "RESULT_PORT": str(self.result_port)}
        urls = {"REDIS_URL": self._worker_redis_url, "DATABASE_URL": self._worker_database_url}
        return {"WORKER_NAME": name, "RECLAIM_SECONDS": str(RECLAIM)} | own | urls

    def _clock(self, name: str) -> dict[str, str]:
        return self.clocks.environment(name) if self.clocks else {}

    def _remove_clock(self, name: str) -> None:
        if self.clocks:
            self.clocks.remove(self.processes[name].pid)

    @property
    def secret_key(self) -> str:
        """Return the key that signs the voters' cookies."""
        return self.data.key_file("secret_key").read_text()

    @property
    def admin_key(self) -> str:
        """Return the key of the admin service."""
        return self.data.key_file("admin_key").read_text()

    def _run(self, name: str, failpoint: str = "", **environment: str) -> subprocess.Popen[bytes]:
        failpoints = "tests.faults.admin_failpoints" if name == "admin" else "tests.faults.failpoints"
        module = (failpoints, failpoint) if failpoint else ("voting",)
        common = {"PATH": os.defpath, "HOST": "127.0.0.1", "PYTHONPATH": self._path, "LOG_FORMAT": "json"}
        with self.data.log_file(name).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *module, name.partition("-")[0]],
                stdout=log,
                stderr=log,
                env=common | self._clock(name) | environment,
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def _path(self) -> str:
        return str(self._source or ROOT / "src")

    def run(self, module: str, *arguments: str, within: float) -> str:
        """Run a module of the harness with the same build of the product; return its output."""
        command = [sys.executable, "-m", module, *arguments]
        environment = {"PATH": os.defpath, "PYTHONPATH": self._path}
        ended = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=within, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{module} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
        return ended.stdout

    def wait_ready(self, *names: str, within: float = 30) -> None:
        """Wait until parts are ready."""
        for name in names:
            eventually(lambda name=name: self.is_ready(name), within=within)  # type: ignore[misc]

    def is_ready(self, name: str) -> bool:
        """Return whether a part is ready.

        Raises:
            RuntimeError: it has ended.
        """
        if self.processes[name].poll() is not None:
            raise RuntimeError(f"{name} ended with {self.processes[name].returncode}:\n{self.log(name)[-2000:]}")
        if name in self._stores:
            return asyncio.run(is_ready(self._stores[name]))
        return asyncio.run(probe.is_ready(f"unix:{self.data.sockets / name}.sock"))

    def metric(self, name: str, metric: str) -> float:
        """Return the sum of a metric's series, from the service's own endpoint."""
        with httpx.Client(
            transport=httpx.HTTPTransport(uds=f"{self.data.sockets / name}.sock", verify=PLAIN)
        ) as client:
            lines = client.get("http://part/metrics", timeout=5).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(metric))

    def memory(self, name: str) -> float:
        """Return the memory of a service in MiB."""
        return self._memory(name, "VmRSS")

    def reset_peak_memory(self) -> None:
        """Reset `peak_memory` of all services.

        https://docs.kernel.org/filesystems/proc.html (clear_refs)
        """
        for name in self.services:
            Path(f"/proc/{self.processes[name].pid}/clear_refs").write_text("5")

    def peak_memory(self, name: str) -> float:
        """Return the most memory of a service since `reset_peak_memory`, in MiB."""
        return self._memory(name, "VmHWM")

    def _memory(self, name: str, field: str) -> float:
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+)", status)
        assert found, f"{name} does not run"
        return int(found[1]) / 1024

    def restart_until_ready(self, *names: str) -> None:
        """Start parts that have ended by themselves, as their supervisor does, until they are ready."""

        def is_up(name: str) -> bool:
            if self.processes[name].poll() is not None:
                self.start(name)
            return self.processes[name].poll() is None and self.is_ready(name)

        for name in names:
            eventually(lambda name=name: is_up(name), within=30, every=0.3)  # type: ignore[misc]

    def kill(self, *names: str) -> None:
        """Kill parts (-9), with the children of PostgreSQL."""
        pids = [self.processes[name].pid for name in names]
        children = [child for pid in pids for child in _children(pid)]  # those of PostgreSQL lead their own groups
        for pid in pids:
            os.killpg(pid, signal.SIGKILL)
        for pid in children:
            _send(signal.SIGKILL, pid)
        for name in names:
            self.processes[name].wait(10)
            self._remove_clock(name)

    @contextlib.contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """Stop parts (SIGSTOP), with the children of PostgreSQL, and let them continue after the block."""
        pids: list[int] = []
        try:
            for name in names:
                pids.append(pid := self.processes[name].pid)
                os.kill(pid, signal.SIGSTOP)  # first, so that it starts no more children
                pids += _children(pid)
            for pid in pids:
                _send(signal.SIGSTOP, pid)
            yield
        finally:
            for pid in reversed(pids):
                _send(signal.SIGCONT, pid)

    def is_stopped(self, name: str) -> bool:
        """Return whether a part is stopped (SIGSTOP)."""
        stat = Path(f"/proc/{self.processes[name].pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def stop(self, name: str, *, wait: float) -> int:
        """Stop a part as its supervisor does; return its exit code."""
        self._terminate(name)
        return self.processes[name].wait(wait)

    def _terminate(self, name: str) -> None:
        process = self.processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(self._stores[name].stop_signal if name in self._stores else signal.SIGTERM)

    def signal(self, signum: signal.Signals, *names: str) -> None:
        """Send a signal to parts."""
        for name in names:
            self.processes[name].send_signal(signum)

    def log(self, name: str) -> str:
        """Return the log of a part."""
        return self.data.log_file(name).read_text(errors="replace")

    def pids(self) -> dict[str, int]:
        """Check that each service still runs; return their process ids."""
        services = {name: process for name, process in self.processes.items() if name not in self._stores}
        for name, process in services.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name)[-2000:]}"
        return {name: process.pid for name, process in services.items()}

    def broker(self) -> redis.Redis:
        """Return a client of the broker."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=5)

    def database(self) -> "psycopg.Connection[tuple[Any, ...]]":
        """Return a connection to the database."""
        return psycopg.connect(self.database_url, autocommit=True, connect_timeout=5)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query; return its rows."""
        with self.database() as database:
            return database.execute(query.encode()).fetchall()

    def backlog(self) -> tuple[int, int]:
        """Return the number of entries on the stream, and of those that are pending."""
        with self.broker() as client:
            try:
                return client.xlen("votes"), client.xpending("votes", "workers")["pending"]
            except (redis.ConnectionError, redis.ResponseError, redis.TimeoutError) as error:
                raise AssertionError(error) from None

    def results(self) -> dict[str, Any]:
        """Return the snapshot of the result service."""
        found: dict[str, Any] = httpx.get(f"{self.result_url}/api/results", timeout=3, verify=PLAIN).json()
        return found
