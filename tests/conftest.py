"""Real servers for the tests: one Valkey and one PostgreSQL for each test process, on private sockets.

A test that needs a system program calls `require`. If the program is missing, the test is skipped, and the summary
names the Debian package. If VOTING_TEST_REQUIRE=all is set, as in CI, a skip is a failure.
"""

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
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

TESTS = Path(__file__).parent
FAST = ("unit/", *(f"integration/test_{name}" for name in ("endpoint", "hub", "pipeline", "server", "stream")))

# No time limit for an example: on a busy machine it would fail tests.
hypothesis.settings.register_profile("voting", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("voting")


class Servers(NamedTuple):
    """The URLs of the two stores."""

    redis_url: str
    database_url: str


def require(program: str, package: str) -> str:
    """Return the path of a program, or skip the test and name the package that has it."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is missing (Debian: apt install {package})")
    return path


def pytest_addoption(parser: pytest.Parser) -> None:
    """Define `./voting test --fast`."""
    what = "Run only the tests that take about a minute together: unit tests, and a part of the integration tests."
    parser.getgroup("voting").addoption("--fast", action="store_true", help=what)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Skip the files that are not `FAST`, if --fast is given."""
    if not config.getoption("fast") or collection_path.suffix != ".py":
        return None
    name = collection_path.relative_to(TESTS).as_posix()
    return None if name.startswith(FAST) else True


def pytest_configure() -> None:
    """Handle SIGTERM as Ctrl-C, so that fixtures stop the processes that they have started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was missing, with the number of tests that each would have run."""
    reports = terminalreporter.stats.get("skipped", [])
    missing = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    if missing:
        terminalreporter.section("skipped tests, and what they need")
        for reason, tests in missing.most_common():
            terminalreporter.line(f"{tests:4} {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure if VOTING_TEST_REQUIRE=all is set."""
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
    """Start both stores once, as `voting up` does."""
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
        process.send_signal(part.stop_signal)
        process.wait(60)
    data.close()


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """The URL of an empty broker."""
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushdb()
    return servers.redis_url


_numbers = itertools.count()


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """The URL of a new database with the schema and the default poll, for one test."""
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
