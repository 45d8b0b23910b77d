"""`voting status` on real stores."""

import json
import time

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
        await connection.execute("UPDATE workers SET seen = now() + interval '1 hour'")
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


async def test_a_few_of_many_polls_are_listed_open_ones_and_new_changes_first_and_it_stays_quick(
    redis_url: str, database_url: str
) -> None:
    options = '[{"key": "a", "label": "A"}, {"key": "b", "label": "B"}]'
    async with connect(database_url, name="test", timeout=60) as connection:
        await connection.execute(
            "INSERT INTO polls (slug, question, options, state) SELECT 'p' || n, '?', %s, 'draft' "
            "FROM generate_series(1, 10000) AS n",
            [options],
        )
        await connection.execute("UPDATE polls SET state = 'closed', round = 3 WHERE slug = 'p7'")
        await connection.execute("UPDATE polls SET state = 'open' WHERE slug = 'p8'")
        await connection.execute("INSERT INTO tallies VALUES ('p7', 'a', 5), ('p7#3', 'a', 1200), ('p7#3', 'b', 34)")
    took = []
    for _ in range(3):  # the machine may be busy
        began = time.monotonic()
        found = await status.check(redis_url, database_url, {})
        took.append(time.monotonic() - began)
        if "does not answer" not in str(found.problems):
            break
    assert min(took) < status.TIMEOUT_SECONDS
    assert "does not answer" not in str(found.problems)
    assert found.polls[:3] == [
        {"slug": "p8", "state": "open", "round": 1, "votes": 0},
        {"slug": "default", "state": "open", "round": 1, "votes": 0},
        {"slug": "p7", "state": "closed", "round": 3, "votes": 1234},
    ]
    assert len(found.polls) == 20
    assert json.loads(found.as_json())["more_polls"] == 9981
    text = found.as_text()
    assert "p7       closed      3  1,234" in text
    assert "and 9,981 more" in text


async def test_of_many_invalid_polls_only_some_are_named(redis_url: str, database_url: str) -> None:
    async with connect(database_url, name="test", timeout=60) as connection:
        await connection.execute("ALTER TABLE polls DISABLE TRIGGER USER")
        await connection.execute(
            "INSERT INTO polls (slug, question, options) SELECT 'p' || n, '?', '[]' FROM generate_series(1, 30) AS n"
        )
    found = await status.check(redis_url, database_url, {})
    assert sum("is left out" in problem for problem in found.problems) == 10
    assert "20 more polls are left out; correct their rows in the table polls." in found.problems
