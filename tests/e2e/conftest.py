"""Shared fixtures: a running `voting up`, which tests must leave running; Chromium; a Docker engine."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from tests.conftest import require
from tests.e2e.stack import Stack

QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-sandbox"]
expect.set_options(timeout=30_000)  # like `eventually`: it only ends a test that hangs


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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser a module: Playwright's event loop runs until it ends, and asynchronous tests need their own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require("chromium", "chromium"), args=QUIET)
        yield browser
        browser.close()


OpenBrowser = Callable[..., BrowserContext]
NETWORK = ("Failed to load resource", "WebSocket connection to")  # messages of Chromium when a test cuts the network


@pytest.fixture
def open_browser(chromium: Browser) -> Iterator[OpenBrowser]:
    """Open separate browser contexts; fail if a page writes to the console, as for each CSP violation."""
    opened: list[BrowserContext] = []
    complaints: list[str] = []

    def open_one(**options: Any) -> BrowserContext:
        context = chromium.new_context(**options)
        context.on("console", lambda message: complaints.append(message.text))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        opened.append(context)
        return context

    yield open_one
    for context in opened:
        context.close()
    assert [each for each in complaints if not each.startswith(NETWORK)] == []


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Return the folder for screenshots."""
    folder = Path("test-artefacts")
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def context(open_browser: OpenBrowser) -> BrowserContext:
    return open_browser()
