"""What several tests share: a running `voting up` (they leave it running), Chromium, a Docker engine."""

import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import require
from tests.e2e.stack import Stack

QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-sandbox"]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    started = Stack(tmp_path_factory.mktemp("stack") / "a, 'b' & 50%20 ü").start()
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="session")
def engine() -> None:
    require("docker", "docker.io")
    found = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    running = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if found.returncode or running.returncode:
        pytest.skip("needs a running Docker engine with the Compose plugin (https://docs.docker.com/engine/install/)")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium", "chromium"), args=QUIET)
        yield browser
        browser.close()
