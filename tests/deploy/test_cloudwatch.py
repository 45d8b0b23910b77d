"""deploy/cloudwatch on a real engine: what the agent is given, read by Prometheus in its place."""

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.conftest import Aws
from tests.e2e.compose import ROOT, Compose, docker
from tests.e2e.stack import free_port
from tests.waiting import eventually

NAME = f"voting-cloudwatch-{os.getpid()}"
FOLDER = ROOT / "deploy" / "cloudwatch"


@pytest.fixture
def compose(engine: None) -> Iterator[Compose]:  # noqa: ARG001
    """Two workers without stores, and the container that looks for them."""
    project = Compose(NAME, files=("deploy/cloudwatch/compose.yaml",), VOTING_VERSION=NAME)
    try:
        project.run("build", "worker", timeout=900)
        project.run("run", "--rm", "secrets")
        project.run("up", "-d", "--no-deps", "--scale", "worker=2", "worker", "cloudwatch-targets")
        yield project
    finally:
        project.run("down", "-v", "--remove-orphans")
        docker("image", "rm", "-f", project.image)


def test_the_agent_finds_every_replica_from_the_network_of_the_host(compose: Compose, tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text((FOLDER / "prometheus.yml").read_text().replace("1m", "1s").replace("10s", "1s"))
    tmp_path.chmod(0o755)
    port, name = free_port(), f"{NAME}-agent"
    docker(
        "run", "-d", "--name", name, "--network", "host", "-v", f"{config}:/etc/prometheus/prometheus.yml:ro",
        "-v", f"{NAME}_cloudwatch-targets:/targets:ro", "prom/prometheus:v3.5.0",
        "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip

    def watched() -> dict[str, str]:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": "sum by (job) (up)"})
        except httpx.TransportError:
            return {}
        if answer.status_code != 200:
            return {}
        return {each["metric"]["job"]: each["value"][1] for each in answer.json()["data"]["result"]}

    try:
        eventually(lambda: watched() == {"worker": "2"}, within=60)
        compose.run("up", "-d", "--no-deps", "--scale", "worker=1", "worker")
        eventually(lambda: watched() == {"worker": "1"}, within=60)
    finally:
        docker("rm", "-fv", name)


def test_the_log_group_is_made_once_and_kept_for_a_month(aws: Aws) -> None:
    for _ in range(2):
        done = aws.run(FOLDER / "log-group.sh", "eu-central-1")
        assert done.returncode == 0, done.stderr
    groups = aws("logs", "describe-log-groups", "--log-group-name-prefix", "voting-metrics")["logGroups"]
    assert [(each["logGroupName"], each["retentionInDays"]) for each in groups] == [("voting-metrics", 30)]
