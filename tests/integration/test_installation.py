"""The id of the installation: workers do not count into a database that does not belong to the broker."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from tests.waiting import until
from voting.broker import stream
from voting.broker.installation import InstallationMismatch, check_installation, read_installation
from voting.database.connection import Connection, connect
from voting.database.installations import add_installations, installations
from voting.operate import installation
from voting.operate.secrets import ACL
from voting.polls.vote import EntryId
from voting.service import metrics
from voting.service.lifecycle import Backoff, Stop
from voting.settings.services import WorkerSettings
from voting.worker.app import Worker
from voting.worker.installation import wait_for_match
from voting.worker.metrics import WorkerMetrics

pytestmark = pytest.mark.anyio
OTHER = str(uuid.UUID(int=7))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Connection]:
    async with connect(database_url, name="test", timeout=5) as connection:
        yield connection


async def test_a_broker_without_an_id_gets_that_of_the_database_and_keeps_it(
    database: Connection, redis: Redis
) -> None:
    (ours,) = await installations(database)
    await check_installation(redis, await installations(database))
    assert await read_installation(redis) is None
    for _ in range(2):
        await check_installation(redis, await installations(database), claim=True)
        assert await read_installation(redis) == ours
    await add_installations(database, [OTHER])
    await check_installation(redis, await installations(database), claim=True)
    assert await read_installation(redis) == ours


async def test_a_broker_of_another_installation_is_detected_and_the_error_says_how_to_adopt_it(
    database: Connection, redis: Redis, database_url: str, redis_url: str
) -> None:
    await redis.set("installation", OTHER)
    with pytest.raises(InstallationMismatch, match=f"voting adopt {OTHER}"):
        await check_installation(redis, await installations(database), claim=True)
    assert f"installation {OTHER}" in (await installation.find_mismatch(redis_url, database_url) or "")
    await installation.adopt(database_url, OTHER)
    assert await installation.find_mismatch(redis_url, database_url) is None
    await redis.set("installation", b"\xff no id")
    assert await installation.find_mismatch(redis_url, database_url) is not None


async def test_a_worker_counts_nothing_into_the_wrong_database_and_starts_when_it_is_the_right_one(
    database: Connection,
    redis: Redis,
    database_url: str,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await stream.Consumer(redis, "earlier").ensure_group(EntryId(0, 0))
    await redis.set("installation", OTHER)
    await redis.hset("polls", "default", "as the right database has it")
    await redis.xadd("votes", {"poll": "default", "voter": b"v" * 16, "choice": "a"})
    settings = WorkerSettings(redis_url=redis_url, database_url=database_url, worker_name="w")
    worker, stop = Worker(settings, WorkerMetrics(metrics.registry("worker"))), Stop()

    said = ""

    async def warned() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return said.count("installation.mismatch") >= 2

    async def reported() -> bool:
        cursor = await database.execute("SELECT lag FROM workers WHERE name = 'w'")
        return await cursor.fetchone() == (1,)

    async def counted() -> bool:
        cursor = await database.execute("SELECT choice, votes FROM tallies")
        return await cursor.fetchall() == [("a", 1)]

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.count(stop))
        tasks.create_task(worker.report(stop))
        await until(warned)
        await until(reported)
        assert not worker.ready
        assert not await counted()
        assert await redis.hgetall("polls") == {b"default": b"as the right database has it"}
        await add_installations(database, [OTHER])
        await until(counted)
        assert worker.ready
        assert b"default" in await redis.hgetall("polls")
        stop.set()
    assert f"voting adopt {OTHER}" in said


async def test_a_worker_that_waits_for_the_right_database_stops_at_once(
    redis: Redis,
    database_url: str,
    redis_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voting.worker.installation.Backoff", lambda *_: Backoff(3600, 3600))

    async def warned() -> bool:
        return "installation.mismatch" in capsys.readouterr().out

    await redis.set("installation", OTHER)
    settings = WorkerSettings(redis_url=redis_url, database_url=database_url, worker_name="w")
    stop = Stop()
    counting = asyncio.create_task(Worker(settings, WorkerMetrics(metrics.registry("worker"))).count(stop))
    await until(warned)
    assert not counting.done()
    stop.set()
    await asyncio.wait_for(counting, 10)
    assert not await redis.exists("votes")


async def test_the_worker_user_may_read_the_id_and_one_of_an_earlier_version_logs_the_fix(
    database: Connection, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def log_in(rights: str) -> Redis:
        with BlockingRedis.from_url(redis_url) as admin:
            admin.execute_command("ACL", "SETUSER", "test", "reset", "on", ">test", *rights.split(" "))
        return Redis.from_url(redis_url, username="test", password="test")  # noqa: S106

    try:
        async with log_in(ACL["worker"]) as worker:
            await check_installation(worker, await installations(database), claim=True)
            assert await read_installation(worker) == (await installations(database))[0]
            for command in (("SET", "polls", "x"), ("GET", "votes"), ("DEL", "installation")):
                with pytest.raises(NoPermissionError):
                    await worker.execute_command(*command)  # type: ignore[no-untyped-call]
        async with log_in(ACL["worker"].partition(" (")[0]) as earlier:
            assert await wait_for_match(Stop(), database, earlier)
        assert "installation.unchecked" in capsys.readouterr().out
    finally:
        with BlockingRedis.from_url(redis_url) as admin:
            admin.acl_deluser("test")


async def test_an_unreachable_store_is_not_a_mismatch(database_url: str, redis_url: str, tmp_path: Path) -> None:
    assert await installation.find_mismatch(f"unix://{tmp_path}/none.sock", database_url) is None
    assert await installation.find_mismatch(redis_url, f"postgresql:///x?host={tmp_path}") is None
