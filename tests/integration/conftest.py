"""What several of these tests need."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from tests.integration.admin import Admin, serving
from tests.integration.broker import Broker
from voting.broker.connection import redis_client


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A Valkey with room for 64 MB, to do with as a test likes."""
    started = Broker(tmp_path, "--maxmemory", "64mb")
    yield started
    started.resume()
    started.kill()


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty broker that the test shares with others."""
    async with redis_client(redis_url, timeout=5) as client:
        yield client


@pytest.fixture
async def admin(database_url: str) -> AsyncIterator[Admin]:
    """The admin service, as its role, on a new database."""
    async with serving(database_url) as running:
        yield running


@pytest.fixture
async def client(admin: Admin) -> httpx.AsyncClient:
    """A client with the admin key."""
    return await admin.client()
