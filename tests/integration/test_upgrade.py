"""A database of commit 954ea8d, with votes in it: it is migrated, and new votes are counted beside the old ones.

tests/data/954ea8d.sql is that database, as pg_dump wrote it, and tests/data/954ea8d.tar.gz its backup.
"""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.conftest import Servers
from tests.waiting import until
from voting.broker import stream
from voting.broker.connection import redis_client
from voting.broker.stream import STREAM
from voting.database import migrations
from voting.database.connection import connect
from voting.database.definition import Definition, poll_problems
from voting.database.poll_state import read_definitions
from voting.operate import backup
from voting.operate.migrate import definition_of
from voting.polls.vote import EntryId
from voting.service.lifecycle import Stop
from voting.settings.services import MigrateSettings, WorkerSettings
from voting.worker import app

pytestmark = pytest.mark.anyio

DATA = Path(__file__).parents[1] / "data"
VERSION = "954ea8d"
TALLIES = [
    *(("default", "a", 22), ("default", "b", 18), ("lunch", "a", 7), ("lunch", "b", 7), ("lunch", "c", 6)),
    ("unchecked", "long-key_1", 4),
]
KEPT = {
    "polls": "slug, question, options, entry_ms, entry_seq, created",
    "votes": "*",
    "tallies": "*",
    "dead_letters": "*",
    "installation": "*",
}


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def contents(url: str, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(rows(url, f"SELECT {KEPT[table]} FROM {table}"), key=repr)  # noqa: S608
        for table in tables or KEPT
    }


@pytest.fixture
def old(servers: Servers) -> Iterator[str]:
    """The URL of a database that commit 954ea8d made and filled."""
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE old")
        url = servers.database_url.replace("/voting?", "/old?")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute((DATA / f"{VERSION}.sql").read_bytes())
        yield url
        admin.execute("DROP DATABASE old WITH (FORCE)")


async def migrate(url: str, definition: Definition | None = None) -> list[str]:
    async with connect(url, name="migrate", timeout=30) as connection:
        settings = definition_of(MigrateSettings(database_url=url))
        return await migrations.migrate(connection, definition or settings)


async def test_migrating_keeps_votes_tallies_and_revisions_and_every_poll_is_open_in_its_first_round(old: str) -> None:
    before = contents(old)
    revisions = rows(old, "SELECT slug, revision FROM polls ORDER BY slug")
    applied = await migrate(old)
    assert applied == [name for name in migrations.known_migrations() if name > "0004_installation.sql"]
    assert contents(old) == before
    assert rows(old, "SELECT * FROM tallies ORDER BY poll, choice") == TALLIES
    assert rows(old, "SELECT slug, revision FROM polls ORDER BY slug") == revisions
    states = rows(old, "SELECT DISTINCT kind, state, round, results, closes_at, changed > 0 FROM polls")
    assert states == [("single", "open", 1, "live", None, True)]
    async with connect(old, name="test", timeout=30) as connection:
        polls, bad = await read_definitions(connection)
    assert poll_problems(polls, bad) == []
    assert [poll.slug for poll in polls] == ["default", "empty", "lunch", "unchecked"]
    assert await migrate(old) == []


async def test_the_settings_of_that_version_may_be_given_again_and_renaming_goes_on(old: str) -> None:
    await migrate(old, Definition("Cats or dogs?", ("Cats", "Dogs")))
    await migrate(old, Definition(renames={"Cats": "Kittens"}))
    ((options,),) = rows(old, "SELECT options FROM polls WHERE slug = 'default'")
    assert options == [{"key": "a", "label": "Kittens"}, {"key": "b", "label": "Dogs"}]
    assert rows(old, "SELECT * FROM tallies ORDER BY poll, choice") == TALLIES


async def test_a_poll_that_is_older_than_the_checks_can_be_closed_hidden_and_reset_but_not_edited(old: str) -> None:
    await migrate(old)
    rows(old, "UPDATE polls SET closes_at = now() RETURNING slug")
    assert rows(old, "SELECT apply_schedule()") == [(None,)]
    assert rows(old, "SELECT DISTINCT state FROM polls") == [("closed",)]
    rows(old, "UPDATE polls SET round = 2, state = 'draft', results = 'hidden' WHERE slug = 'unchecked' RETURNING slug")
    with pytest.raises(psycopg.errors.CheckViolation, match="no line breaks"):
        rows(old, "UPDATE polls SET options = options || '[]', question = question || '?' WHERE slug = 'unchecked'")


async def test_a_worker_counts_new_votes_and_changed_ones_beside_those_of_before(
    old: str, redis_url: str, tmp_path: Path
) -> None:
    await migrate(old)
    ((voter,),) = rows(old, "SELECT voter FROM votes WHERE poll = 'default' AND choice = 'a' ORDER BY voter LIMIT 1")
    revisions = dict(rows(old, "SELECT slug, revision FROM polls"))
    settings = WorkerSettings(
        redis_url=redis_url, database_url=old, worker_name="w1", metrics_listen=f"unix:{tmp_path}/worker.sock"
    )
    stop = Stop()
    running = asyncio.create_task(app.main(settings, stop))
    async with redis_client(redis_url, timeout=5) as client:

        async def has_stream() -> bool:
            return bool(await client.exists(STREAM))

        await until(has_stream)
        for poll, name, choice in (
            ("default", voter, "b"),
            ("default", b"n" * 16, "a"),
            ("lunch", b"n" * 16, "c"),
            ("unchecked", b"n" * 16, "B"),
        ):
            await client.xadd(STREAM, {"poll": poll, "voter": name, "choice": choice})

        async def counted() -> bool:
            backlog = await stream.backlog(client)
            return backlog is not None and not backlog.waiting and len(rows(old, "SELECT FROM votes")) == 67

        await until(counted)
    stop.set()
    await running
    changes = {("default", "b"): 1, ("lunch", "c"): 1, ("unchecked", "B"): 1}
    expected = {(poll, choice): votes for poll, choice, votes in TALLIES} | {("unchecked", "B"): 0}
    expected = {key: votes + changes.get(key, 0) for key, votes in expected.items()}
    assert {(poll, choice): votes for poll, choice, votes in rows(old, "SELECT * FROM tallies")} == expected
    assert len(rows(old, "SELECT FROM dead_letters")) == 1  # that of before
    after = dict(rows(old, "SELECT slug, revision FROM polls"))
    assert {slug for slug in after if after[slug] > revisions[slug]} == {"default", "lunch", "unchecked"}


async def test_a_backup_of_that_version_restores_into_a_new_and_into_the_migrated_database(
    old: str, database_url: str
) -> None:
    before = contents(old, "polls", "votes", "tallies", "dead_letters")
    newest = EntryId(*rows(old, "SELECT entry_ms, entry_seq FROM polls ORDER BY 1 DESC, 2 DESC LIMIT 1")[0])
    await migrate(old)
    file = (DATA / f"{VERSION}.tar.gz").read_bytes()
    for url in (database_url, old):
        changed = rows(url, "SELECT max(changed) FROM polls")[0][0]
        summary = await backup.restore(url, io.BytesIO(file), replace=url == old)
        assert str(summary) == f"64 votes in 4 polls, 1 dead letters; newest entry {newest}"
        assert contents(url, *before) == before
        states = rows(url, "SELECT DISTINCT kind, state, round, results FROM polls")
        assert states == [("single", "open", 1, "live")]
        assert rows(url, "SELECT min(changed) FROM polls")[0][0] > changed
        assert len({ticket for (ticket,) in rows(url, "SELECT ticket FROM polls")}) == 4
        ids = {str(identifier) for (identifier,) in rows(url, "SELECT id FROM installation")}
        assert "9a658456-fc92-41be-a505-bf5bc2036d30" in ids
