"""Real servers for the tests: one Valkey and one PostgreSQL for each test process, on private sockets.

A test that needs a program which may be missing calls `require`; it then says what is missing when it skips. Where
VOTING_TEST_REQUIRE=all is set, as in CI, a skip is a failure.
"""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from typing import NamedTuple

import hypothesis
import psycopg
import pytest
import redis

from tests.waiting import eventually
from voting.database import migrations
from voting.database.connection import connect
from voting.local import servers as local
from voting.local.datadir import DataDir
from voting.operate.migrate import definition_of
from voting.settings.services import MigrateSettings

# No time limit for an example: on a busy machine it would fail tests.
hypothesis.settings.register_profile("voting", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("voting")


class Servers(NamedTuple):
    """Addresses of the two stores."""

    redis_url: str
    database_url: str


def require(program: str, package: str) -> str:
    """The path of a program; where it is missing the test skips and says which package has it."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is missing (Debian: apt install {package})")
    return path


def pytest_configure() -> None:
    """End as Ctrl-C does when told to stop, so that fixtures end what they have started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where everything is required."""
    report = yield
    if report.skipped and os.environ.get("VOTING_TEST_REQUIRE") == "all":  # noqa: TID251 - a switch of the tests
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} skipped in {call.when}, though VOTING_TEST_REQUIRE=all: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the services do


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Started once, as `voting up` starts them."""
    data = DataDir(tmp_path_factory.mktemp("servers"))
    data.open()
    (valkey, redis_url), (postgres, database_url) = local.valkey(data), local.postgres(data)
    processes = []
    for part in (valkey, postgres):
        with data.log_file(part.name).open("ab") as log:
            processes.append(subprocess.Popen(part.command, cwd="/", stdout=log, stderr=log, **part.options))
    for part in (valkey, postgres):
        eventually(lambda part=part: asyncio.run(part.is_ready()))  # type: ignore[misc]
    yield Servers(redis_url, database_url)
    for part, process in zip((valkey, postgres), processes, strict=True):
        process.send_signal(part.end)
        process.wait(10)
    data.close()


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
        url = servers.database_url.replace("/voting?", f"/{name}?")

        async def migrate() -> None:
            async with connect(url, name="migrate", timeout=30) as connection:
                await migrations.migrate(connection, definition_of(MigrateSettings(database_url=url)))

        asyncio.run(migrate())
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
