"""Real servers for the tests: one Valkey and one PostgreSQL for each test process, on private sockets."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
import pytest
import redis

from voting.core import store
from voting.core.config import MigrateSettings


class Servers(NamedTuple):
    redis_url: str
    database_url: str


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    yield Servers("unix:///tmp/dev/v.sock?db=1", "postgresql://voting@/postgres?host=/tmp/dev/pgs")


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """A broker with nothing in it."""
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushdb()
    return servers.redis_url


_numbers = itertools.count()


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """A database of its own for each test, with the schema and the default poll in it."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        url = servers.database_url.replace("/postgres?", f"/{name}?")

        async def migrate() -> None:
            async with store.connect(url, name="migrate", patience=30) as connection:
                await store.migrate(connection, MigrateSettings(database_url=url).poll)

        asyncio.run(migrate())
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
