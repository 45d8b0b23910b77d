"""What several of these tests need."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.broker import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A Valkey with room for 64 MB, to do with as a test likes."""
    started = Broker(tmp_path, "--maxmemory", "64mb")
    yield started
    started.resume()
    started.kill()
