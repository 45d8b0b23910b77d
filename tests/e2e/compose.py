"""`docker compose` as a user runs it, in a project of its own on free ports."""

import os
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.stack import free_port
from tests.waiting import PLAIN

ROOT = Path(__file__).parents[2]


class Compose:
    """One Compose project, of compose.yaml and other files."""

    def __init__(
        self, name: str, *, files: tuple[str, ...] = ("tests/e2e/quick-probes.yaml",), **environment: str
    ) -> None:
        self.name = name
        self.vote_port, self.result_port, self.admin_port = free_port(), free_port(), free_port()
        self.vote_url, self.result_url = f"http://127.0.0.1:{self.vote_port}", f"http://127.0.0.1:{self.result_port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        ports = {"VOTE_PORT": self.vote_port, "RESULT_PORT": self.result_port, "ADMIN_PORT": self.admin_port}
        settings = {"BIND": "127.0.0.1"} | {name: str(port) for name, port in ports.items()}
        project = {"COMPOSE_FILE": ":".join(["compose.yaml", *files])}
        self._environment = os.environ | settings | project | environment  # noqa: TID251
        self.image = f"voting:{self._environment.get('VOTING_VERSION', '0.1.0')}"

    def run(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        """Run `docker compose ...`; return its output.

        Raises:
            RuntimeError: it failed, and `check` is set; with its output.
        """
        command = ["docker", "compose", "-p", self.name, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + ("" if check else done.stderr)

    def pipe(self, *arguments: str, source: Path = Path(os.devnull), target: Path = Path(os.devnull)) -> str:
        """Run `docker compose ... < source > target`; return its standard error."""
        command = ["docker", "compose", "-p", self.name, *arguments]
        with source.open("rb") as stdin, target.open("wb") as stdout:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                check=False,
                timeout=300,
            )
        output = done.stderr.decode()
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{output}")
        return output

    def up(self, *arguments: str) -> None:
        """Start everything and wait until it is healthy."""
        try:
            self.run("up", "-d", "--wait", "--wait-timeout", "120", *arguments)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.run('logs', '--tail', '20', check=False)}") from None

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in a service's container."""
        return self.run("exec", "-T", service, *command, check=check)

    def python(self, service: str, program: str, *, check: bool = True) -> str:
        """Run a Python program in a container of our image."""
        return self.execute(service, "python", "-c", program, check=check)

    def metrics(self, container: str) -> dict[str, float]:
        """Return the metrics of a container's service: series -> value."""
        read = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100/metrics').read().decode())"
        lines = docker("exec", container, "python", "-c", read).splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1].isalpha())}

    def sql(self, query: str) -> list[list[str]]:
        """Run a query as the owner of the database; return rows of text."""
        found = self.execute("db", "psql", "-U", "voting", "-AtXc", query)
        return [line.split("|") for line in found.splitlines()]

    def tally(self) -> dict[str, int]:
        """Return votes by key, as the result service shows them."""
        answer = httpx.get(f"{self.result_url}/api/results", verify=PLAIN)
        assert answer.status_code == 200
        return {option["key"]: option["votes"] for option in answer.json()["options"]}

    def rows(self) -> dict[bytes, tuple[str, str]]:
        """Return every counted vote: voter -> choice and entry id."""
        query = "SELECT encode(voter, 'hex'), choice, entry_ms || '-' || entry_seq FROM votes"
        return {bytes.fromhex(voter): (choice, entry) for voter, choice, entry in self.sql(query)}

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers, stopped ones included."""
        return self.run("ps", "-aq", service).split()

    def drained(self) -> bool:
        """Return whether no vote waits to be counted, by `voting status`."""
        return '"lag": 0' in (found := self.execute("worker", "voting", "status", "--json", check=False)) and (
            '"pending": 0' in found
        )


def docker(*arguments: str) -> str:
    """Run `docker ...`; return its output."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


def inspect(container: str, template: str) -> Any:
    """Return a field of `docker inspect`."""
    return docker("inspect", "--format", template, container).strip()
