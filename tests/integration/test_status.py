"""`voting status` on real stores."""

import pytest

from voting.broker.connection import redis_client
from voting.broker.stream import Consumer
from voting.database import counting
from voting.database.connection import connect
from voting.database.counting import DeadLetter
from voting.database.status import report_backlog
from voting.operate import status
from voting.polls.vote import EntryId

pytestmark = pytest.mark.anyio


async def test_old_dead_letters_are_a_problem_unless_only_new_ones_are_asked_for(
    redis_url: str, database_url: str
) -> None:
    async with redis_client(redis_url, timeout=5) as client:
        await Consumer(client, "w1").ensure_group(EntryId(0, 0))
    async with connect(database_url, name="test", timeout=5) as connection:
        await report_backlog(connection, "w1", lag=0, pending=0, oldest=0, is_counting=True, has_counted=True)
        await counting.count(connection, [], [DeadLetter(EntryId(1, 0), "no such option", [b"x"])])
        await connection.execute("UPDATE dead_letters SET arrived = arrived - interval '1 hour'")
        await counting.count(connection, [], [DeadLetter(EntryId(2, 0), "no such option", [b"x"])])

    async def problems(within: float | None) -> list[str]:
        found = await status.check(redis_url, database_url, {}, within)
        assert found.dead_letters == 2
        return [problem.split(":")[0] for problem in found.problems]

    assert await problems(None) == ["2 malformed entries became dead letters"]
    assert await problems(60) == ["1 malformed entries became dead letters"]
    assert await problems(0) == []


async def test_bad_polls_and_a_read_only_database_are_named(redis_url: str, database_url: str) -> None:
    async def problems() -> list[str]:
        found = await status.check(redis_url, database_url, {})
        return [problem.split(",")[0].split(":")[0] for problem in found.problems]

    assert await problems() == ["The stream does not exist", "No worker counts"]
    async with connect(database_url, name="test", timeout=5) as connection:
        await connection.execute("ALTER TABLE polls DISABLE TRIGGER USER")
        await connection.execute("UPDATE polls SET slug = 'odd', options = '[]'")
        switch = f"ALTER DATABASE {connection.info.dbname} SET default_transaction_read_only = on"
        await connection.execute(switch.encode())
    assert await problems() == [
        "The stream does not exist",
        "The database is read-only",
        "The poll odd is left out",
        "The default poll is missing",
    ]
