"""A backup has everything that admin made, and a restore is noticed by everyone who has read what was there before."""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.conftest import Servers
from voting.database.audit import find_fault
from voting.database.connection import connect
from voting.operate import backup, backup_tables
from voting.operate.archive import BadArchive

pytestmark = pytest.mark.anyio

MADE = r"""
CREATE FUNCTION options() RETURNS jsonb RETURN '[{"key": "a", "label": "A"}, {"key": "b", "label": "B"}]'::jsonb;
INSERT INTO polls (slug, question, options, kind, max_choices, results, timer)
    VALUES ('many', 'Which?', options(), 'multiple', 2, 'hidden', 60);
INSERT INTO polls (slug, question, options, kind, scale, state, results, closes_at)
    VALUES ('rated', 'How?', options(), 'rating', 5, 'closed', 'after_vote', now());
INSERT INTO polls (slug, question, options, state, opens_at)
    VALUES ('late', 'Then?', options(), 'draft', now() - interval '1 minute'),
           ('soon', 'Soon?', options(), 'draft', now() + interval '1 day'),
           ('gone', 'Gone?', options(), 'open', NULL);
INSERT INTO votes VALUES ('many', repeat('v', 16)::bytea, 'ab', 1, 0), ('many#2', repeat('w', 16)::bytea, 'b', 2, 0);
INSERT INTO tallies VALUES ('many', 'ab', 1), ('many#2', 'b', 1);
INSERT INTO rounds SELECT slug, round, question, options, kind, max_choices, scale FROM polls WHERE slug = 'many';
UPDATE polls SET round = 2, state = 'open', opened = now(), publish = true, erase_days = 3 WHERE slug = 'many';
INSERT INTO polls (slug, question, options) VALUES ('decided', 'Then?', options());
INSERT INTO votes VALUES ('decided', repeat('x', 16)::bytea, 'a', 3, 0);
INSERT INTO tallies VALUES ('decided', 'a', 1);
UPDATE polls SET publish = true WHERE slug = 'decided';
UPDATE polls SET state = 'closed' WHERE slug = 'decided';
SELECT seal_round('decided', 1, 3, 0), list_ballots('decided', 1);
SELECT finish_round('decided', 1, closed, '{"total": 1}') FROM closings WHERE poll = 'decided';
INSERT INTO sessions (code, title, polls, current, host_hash, keep_days)
    VALUES ('ACDEFG', 'Évening', '{many,rated}', 'many', '\x00ff', 30);
INSERT INTO code_lists (owner, key, issued, changes) VALUES ('ACDEFG', repeat('0a', 32), 50, '{"7": -1}');
INSERT INTO audit (actor, action, poll, detail)
    VALUES ('admin', 'open', 'many', '{"text": "tab\t"}'), ('host', 'next', NULL, '{}');
DELETE FROM polls WHERE slug = 'gone';
"""
KEPT = {
    "polls": (
        "slug, question, options, created, kind, max_choices, scale, state, round, results, "
        "closes_at, timer, opened, closed, ticket, publish, erase_days"
    ),
    "sessions": "code, title, polls, current, host_hash, created, keep_days, kept_from",
    "deletions": "kind, name, rounds, entry_ms, entry_seq, deleted",
    "audit": "* FROM (SELECT * FROM audit WHERE action <> 'restore')",
} | dict.fromkeys(
    ("rounds", "votes", "tallies", "dead_letters", "closings", "ballots", "code_lists", "tracker_keys"), "*"
)


def run(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    for table, columns in KEPT.items():
        query = f"SELECT {columns}" if " FROM " in columns else f"SELECT {columns} FROM {table}"  # noqa: S608
        found[table] = sorted(run(url, query), key=repr)
    return found


async def saved(url: str) -> bytes:
    file = io.BytesIO()
    await backup.dump(url, file)
    return file.getvalue()


def numbers(url: str) -> list[int]:
    """Return the number of each change that workers look for."""
    found = run(
        url, "SELECT changed FROM polls UNION ALL SELECT changed FROM sessions UNION ALL SELECT changed FROM deletions"
    )
    return [number for (number,) in found]


def test_every_table_is_saved_but_those_that_only_say_what_happens_now() -> None:
    assert set(KEPT) == set(backup_tables.COLUMNS)


async def test_all_columns_are_saved_but_those_that_a_trigger_sets(database_url: str) -> None:
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    there = {(table, column) for table, column in run(database_url, query) if table in backup_tables.COLUMNS}
    listed = {(table, column) for table, columns in backup_tables.COLUMNS.items() for column in columns}
    by_triggers = {("polls", "changed"), ("polls", "defined"), ("polls", "codes_version"), ("sessions", "changed")}
    assert there - listed == by_triggers
    assert listed <= there
    unsaved = {table for table, _ in run(database_url, query)} - set(backup_tables.COLUMNS) - set(backup_tables.CLEARED)
    assert unsaved == {"audiences", "installation", "schema_migrations", "workers"}


@pytest.fixture
def empty(servers: Servers) -> Iterator[str]:
    """The URL of a database without a schema."""
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE empty")
        yield servers.database_url.replace("/voting?", "/empty?")
        admin.execute("DROP DATABASE empty WITH (FORCE)")


async def test_polls_rounds_sessions_deletions_and_the_audit_log_come_back_as_they_were(
    database_url: str, empty: str
) -> None:
    run(database_url, MADE)
    before = contents(database_url)
    summary = await backup.restore(empty, io.BytesIO(await saved(database_url)), replace=False)
    assert "; still drafts, though their time to open has passed: late (open them in admin)" in str(summary)
    assert contents(empty) == before


async def test_rounds_that_an_older_backup_has_as_closed_are_closing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database_url, MADE)
    run(database_url, "DELETE FROM polls WHERE slug = 'decided'")
    newer = ("closings", "ballots", "code_lists", "tracker_keys")
    older = {table: columns for table, columns in backup_tables.COLUMNS.items() if table not in newer}
    with monkeypatch.context() as patch:
        patch.setattr(backup, "COLUMNS", older)
        file = await saved(database_url)
    await backup.restore(database_url, io.BytesIO(file), replace=True)
    closings = run(
        database_url, "SELECT poll, round FROM closings WHERE cut_ms IS NULL AND final IS NULL ORDER BY 1, 2"
    )
    assert closings == [("many", 1), ("rated", 1)]
    keys = run(database_url, "SELECT poll, round FROM tracker_keys ORDER BY 1, 2")
    assert keys == [("default", 1), ("late", 1), ("many", 2), ("rated", 1), ("soon", 1)]


async def test_a_restored_log_ends_with_the_restore_and_the_newest_row_that_it_replaced(database_url: str) -> None:
    run(database_url, MADE)
    ((newest,),) = run(database_url, "SELECT max(id) FROM audit")
    file = await saved(database_url)
    run(database_url, "INSERT INTO audit (actor, action) VALUES ('admin', 'later')")
    replaced = run(database_url, "SELECT id, hash FROM audit_head()")[0]
    await backup.restore(database_url, io.BytesIO(file), replace=True)
    ((number, actor, detail),) = run(database_url, "SELECT id, actor, detail FROM audit WHERE action = 'restore'")
    assert (number, actor) == (newest + 1, "operator")
    assert detail["replaced"] == {"id": replaced[0], "hash": replaced[1]}
    assert detail["missed"] == ["late"]
    async with connect(database_url, name="test", timeout=10) as connection:
        assert await find_fault(connection) == (number, None)
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            run(database_url, statement)


async def test_the_log_of_a_backup_without_hashes_is_chained(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database_url, MADE)
    columns = backup_tables.COLUMNS["audit"]
    monkeypatch.setitem(backup_tables.COLUMNS, "audit", columns[:-1])
    file = await saved(database_url)
    monkeypatch.setitem(backup_tables.COLUMNS, "audit", columns)
    before = contents(database_url)["audit"]
    await backup.restore(database_url, io.BytesIO(file), replace=True)
    assert contents(database_url)["audit"] == before


async def test_a_restore_raises_every_number_that_workers_and_pages_compare(database_url: str) -> None:
    run(database_url, MADE)
    file = await saved(database_url)
    newest, revisions = max(numbers(database_url)), dict(run(database_url, "SELECT slug, revision FROM polls"))
    run(database_url, "INSERT INTO polls (slug, question, options) VALUES ('later', 'Later?', options())")
    newest = max(newest, *numbers(database_url))
    async with connect(database_url, name="test", timeout=10) as connection:
        await connection.execute("LISTEN definitions")
        await backup.restore(database_url, io.BytesIO(file), replace=True)
        missing = {"poll default", "poll many", "poll later", "session ACDEFG"}
        async for note in connection.notifies(timeout=30):
            missing.discard(note.payload)
            if not missing:
                break
    assert not missing
    assert min(numbers(database_url)) > newest
    for slug, revision, defined in run(database_url, "SELECT slug, revision, defined FROM polls"):
        assert revision == defined > revisions[slug]  # `defined` is the revision that hidden results show


async def test_a_draft_whose_time_has_passed_does_not_open_and_one_whose_time_comes_does(database_url: str) -> None:
    run(database_url, MADE)
    await backup.restore(database_url, io.BytesIO(await saved(database_url)), replace=True)
    wait = run(database_url, "SELECT apply_schedule()")[0][0]
    assert 86_000 < wait <= 86_400
    states = dict(run(database_url, "SELECT slug, state FROM polls"))
    assert states == {
        "decided": "final",
        "default": "open",
        "late": "draft",
        "many": "open",
        "rated": "closed",
        "soon": "draft",
    }


async def test_webhooks_of_what_was_replaced_are_not_sent(database_url: str) -> None:
    file = await saved(database_url)
    run(database_url, "UPDATE polls SET state = 'closed'")
    assert run(database_url, "SELECT count(*) FROM webhook_events") == [(1,)]
    await backup.restore(database_url, io.BytesIO(file), replace=True)
    assert run(database_url, "SELECT count(*) FROM webhook_events") == [(0,)]


@pytest.mark.parametrize("table", ["polls", "workers"])
async def test_a_column_that_this_version_does_not_have_is_refused_by_name(database_url: str, table: str) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        about = json.dumps({"format": 1, "migrations": [], "columns": {table: ["pg_sleep"]}}).encode()
        member = tarfile.TarInfo("backup.json")
        member.size = len(about)
        tar.addfile(member, io.BytesIO(about))
    file.seek(0)
    with pytest.raises(BadArchive, match=re.escape(f"unexpected column: {table}.pg_sleep")):
        await backup.restore(database_url, file, replace=True)
