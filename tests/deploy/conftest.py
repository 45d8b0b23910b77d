"""What the tests of deploy/ and .github/ share: a Docker engine, and the tools of requirements/cloud-checks.txt."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import engine
from tests.e2e.stack import free_port, listening

__all__ = ["Aws", "Tool", "aws", "engine", "tool"]

BIN = Path(__file__).parents[2] / ".venv-checks" / "bin"

Tool = Callable[[str], str]


@pytest.fixture(scope="session")
def tool() -> Tool:
    """Return the path of a tool of requirements/cloud-checks.txt, or skip the test if it is not installed."""

    def find(name: str) -> str:
        if not (BIN / name).exists():
            pytest.skip("requirements/cloud-checks.txt is not installed (./voting test installs it)")
        return str(BIN / name)

    return find


class Aws:
    """AWS's own command line, and moto in place of AWS."""

    def __init__(self, program: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            "PATH": f"{Path(program).parent}:{os.environ['PATH']}",  # noqa: TID251
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program that uses the command line."""
        environment = os.environ | self.environment  # noqa: TID251
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=180, **options
        )

    def __call__(self, *arguments: str) -> Any:
        """`aws ...`, and what it answers."""
        done = self.run("aws", *arguments, "--output", "json")
        assert done.returncode == 0, f"aws {' '.join(arguments)}: {done.stderr}"
        return json.loads(done.stdout or "null")

    def ssm(self, action: str, **request: str | bool) -> None:
        """Ask Systems Manager without the command line, which is slow to start and fetches a value that is a URL."""
        headers = {
            "X-Amz-Target": f"AmazonSSM.{action}",
            "Content-Type": "application/x-amz-json-1.1",
            "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/eu-central-1/ssm/aws4_request",
        }
        answer = httpx.post(self.url, content=json.dumps(request), headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text

    def allow(self, requests: int) -> None:
        """From now on, so many requests are not checked for the right to make them; then all are."""
        assert httpx.post(f"{self.url}/moto-api/reset-auth", content=str(requests), timeout=60).status_code == 200


@pytest.fixture(scope="session")
def aws(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    port = free_port()
    stand_in = Aws(tool("aws"), port)
    command = [tool("moto_server"), "-p", str(port)]
    log_file = tmp_path_factory.mktemp("moto") / "log"
    with log_file.open("w") as log, listening(command, port, stdout=log, stderr=log):
        yield stand_in
