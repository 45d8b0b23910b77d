"""A running `voting up`, shared by the tests that leave it running, and a Docker engine."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("stack") / "data").start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="session")
def engine() -> None:
    require("docker", "docker.io")
    found = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    running = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if found.returncode or running.returncode:
        pytest.skip("needs a running Docker engine with the Compose plugin (https://docs.docker.com/engine/install/)")
