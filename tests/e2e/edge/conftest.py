"""One stack behind Caddy with HTTPS for three host names: three vote, two result services, admin, Prometheus."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.compose import Compose
from tests.e2e.stack import free_port

VOTE, RESULT, ADMIN = "vote.test", "result.test", "admin.test"
NEW_VOTERS = 20  # of one address in an hour, at each replica
# Not Grafana: its files are checked, the program is not run.
SERVICES = ["vote", "result", "admin", "worker", "caddy", "certificate", "prometheus"]


class LocalTransport(httpx.HTTPTransport):
    """Connects to a local port for any host name, and verifies the certificate for that name."""

    def __init__(self, port: int, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify)
        self._port = port

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the local port, with its own Host header."""
        there = request.url.copy_with(host="127.0.0.1", port=self._port)
        extensions = request.extensions | {"sni_hostname": request.url.host}
        sent = httpx.Request(
            request.method, there, headers=request.headers, stream=request.stream, extensions=extensions
        )
        return super().handle_request(sent)


class Edge(Compose):
    """The stack behind Caddy."""

    def __init__(self, name: str, folder: Path) -> None:
        self.http_port, self.https_port, self.prometheus_port = free_port(), free_port(), free_port()
        self.authority = folder / "root.crt"
        super().__init__(
            name,
            files=(),  # so many containers: more probes would cost more than they save
            BIND="",
            VOTE_PORT="",
            RESULT_PORT="",
            VOTE_HOST=VOTE,
            RESULT_HOST=RESULT,
            ADMIN_PORT="",
            ADMIN_HOST=ADMIN,
            CERTIFICATES="internal",
            HTTPS_BIND="127.0.0.1",
            HTTP_PORT=str(self.http_port),
            HTTPS_PORT=str(self.https_port),
            PROMETHEUS_PORT=str(self.prometheus_port),
            NEW_VOTERS_PER_HOUR=str(NEW_VOTERS),
            WEB_CONCURRENCY="1",
            VOTE_CPUS="1",
            DB_CPUS="1",
        )

    def tls(self) -> ssl.SSLContext:
        """Return a context that trusts the authority of this Caddy alone."""
        return ssl.create_default_context(cafile=str(self.authority))

    def client(self, host: str, verify: ssl.SSLContext | None = None) -> httpx.Client:
        """Return a client of one of the host names."""
        transport = LocalTransport(self.https_port, verify or self.tls())
        return httpx.Client(base_url=f"https://{host}", transport=transport, timeout=10)

    def voter(self) -> httpx.Client:
        """Return the client of a voter of `LoadGenerator`."""
        return self.client(VOTE)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Run a query in Prometheus; return labels and value of each series."""
        answer = self._ask("query", query=expression)
        return [(found["metric"], float(found["value"][1])) for found in answer["result"]]

    def series(self) -> set[str]:
        """Return the names of all series in Prometheus."""
        return set(self._ask("label/__name__/values"))

    def alerts(self) -> dict[str, str]:
        """Return the state, firing or pending, of each alert by name."""
        return {alert["labels"]["alertname"]: alert["state"] for alert in self._ask("alerts")["alerts"]}

    def rules(self) -> list[dict[str, str]]:
        """Return the alert rules as Prometheus has read them."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _ask(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"http://127.0.0.1:{self.prometheus_port}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@pytest.fixture(scope="package")
def edge(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:  # noqa: ARG001
    folder = tmp_path_factory.mktemp("edge")
    folder.chmod(0o755)
    project = Edge(f"voting-edge-{os.getpid()}", folder)
    project.run("build", timeout=900)
    try:
        project.up("--scale", "vote=3", "--scale", "result=2", *SERVICES)
        project.authority.write_text(project.execute("caddy", "cat", "/data/caddy/pki/authorities/local/root.crt"))
        yield project
    finally:
        project.run("--profile", "https", "--profile", "monitoring", "down", "-v", check=False)
