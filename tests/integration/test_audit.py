"""The audit log: nobody changes a row, and who does it by force is found."""

import asyncio
import hashlib
import json

import httpx
import psycopg
import pytest

from tests.integration.admin import PASSWORD, Admin, make, patch
from voting.database.audit import Head, find_fault, fingerprint, read_head
from voting.database.connection import connect
from voting.database.roles import define_role
from voting.operate.installation import adopt

pytestmark = pytest.mark.anyio
CHANGES = (
    "UPDATE audit SET actor = 'host'",
    "DELETE FROM audit WHERE id = 1",
    "TRUNCATE audit",
    "INSERT INTO audit (actor, action) VALUES ('admin', 'x') ON CONFLICT (id) DO UPDATE SET actor = 'x'",
)


async def fault(admin: Admin) -> tuple[int, int | None]:
    async with connect(admin.url, name="test", timeout=10) as connection:
        return await find_fault(connection)


async def head(admin: Admin) -> Head:
    async with connect(admin.url, name="test", timeout=10) as connection:
        return await read_head(connection)


def force(admin: Admin, statement: str) -> None:
    """Run a statement as somebody who has all rights of the owner and switches the triggers off."""
    admin.owner("ALTER TABLE audit DISABLE TRIGGER USER")
    admin.owner(statement)
    admin.owner("ALTER TABLE audit ENABLE ALWAYS TRIGGER append_audit, ENABLE ALWAYS TRIGGER keep_audit")


@pytest.mark.parametrize("role", ["worker", "result", "admin", "owner"])
async def test_no_role_changes_or_removes_a_row(admin: Admin, client: httpx.AsyncClient, role: str) -> None:
    await make(client)
    url = admin.url
    if role != "owner":
        async with connect(url, name="test", timeout=10) as connection:
            await define_role(connection, role, PASSWORD)  # type: ignore[arg-type]
        url = url.replace("//voting@", f"//voting_{role}:{PASSWORD}@")
    before = admin.owner("SELECT * FROM audit ORDER BY id")
    for settings in ("", "SET session_replication_role = replica; ") if role == "owner" else ("",):
        for statement in CHANGES:
            with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"{settings}{statement}".encode())
    assert admin.owner("SELECT * FROM audit ORDER BY id") == before


async def test_a_writer_cannot_choose_number_time_or_hash_of_a_row(admin: Admin, client: httpx.AsyncClient) -> None:
    await make(client)
    with psycopg.connect(admin.url.replace("//voting@", f"//voting_admin:{PASSWORD}@"), autocommit=True) as connection:
        row = "INSERT INTO audit (id, at, actor, action, hash) VALUES (9, '2001-01-01', 'admin', 'x', '\\x01')"
        connection.execute(row.encode())
    assert admin.owner("SELECT id, now() - at < '1 minute' FROM audit ORDER BY id DESC LIMIT 1") == [(2, True)]
    assert await fault(admin) == (2, None)


async def test_rows_of_many_writers_have_all_numbers_and_one_chain(admin: Admin, client: httpx.AsyncClient) -> None:
    slugs = await asyncio.gather(*(make(client) for _ in range(12)))
    await asyncio.gather(*(patch(client, slug, state="open", closes_in=1) for slug in slugs))
    admin.owner("UPDATE polls SET closes_at = now() WHERE state = 'open' AND slug <> 'default'")
    admin.owner("SELECT apply_schedule()")
    numbers = admin.owner("SELECT id FROM audit ORDER BY at")
    assert numbers == [(number,) for number in range(1, 37)]
    assert await fault(admin) == (36, None)


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("UPDATE audit SET actor = 'host' WHERE id = 3", 3),
        ("UPDATE audit SET at = at + interval '1 microsecond' WHERE id = 1", 1),
        ("UPDATE audit SET detail = '{}' WHERE id = 5", 5),
        ("DELETE FROM audit WHERE id = 2", 3),
        ("DELETE FROM audit WHERE id = 1", 2),
        ("UPDATE audit AS a SET action = b.action, hash = b.hash FROM audit AS b WHERE a.id = 4 AND b.id = 3", 4),
        ("INSERT INTO audit (id, actor, action, hash) VALUES (6, 'admin', 'open', sha256('x'))", 6),
    ],
)
async def test_the_first_row_that_was_not_written_so_is_named(
    admin: Admin, client: httpx.AsyncClient, statement: str, first: int
) -> None:
    for question in "abcde":
        await make(client, question=question)
    assert await fault(admin) == (5, None)
    force(admin, statement)
    assert (await fault(admin))[1] == first


async def test_an_export_can_be_checked_without_this_program(
    admin: Admin, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voting.admin.audit_export.CHUNK", 2)
    slug = await make(client, question='Grüße, "ça" \\ 🎉?', options=["<Ja>", "Nein\u00a0!"])
    for state in ("open", "closed", "draft"):
        await patch(client, slug, state=state)
    answer = await client.get("/api/audit.jsonl")
    assert answer.headers["content-type"] == "application/jsonl"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    digest = bytes(32)
    for line in lines:
        digest = hashlib.sha256(digest + line["text"].encode()).digest()
        assert line["hash"] == digest.hex()
    assert await head(admin) == (4, digest.hex())
    entries = (await client.get("/api/audit")).json()["entries"]
    assert [entry["hash"] for entry in entries] == [line["hash"] for line in reversed(lines)]
    assert json.loads(lines[0]["text"])[2:] == ["admin", "create", slug, None, {"question": 'Grüße, "ça" \\ 🎉?'}]
    page = (await client.get("/audit")).text
    assert fingerprint(digest.hex()) in page


async def test_a_host_gets_no_export(admin: Admin, client: httpx.AsyncClient) -> None:
    made = await client.post("/api/sessions", json={"title": "All hands"})
    host = await admin.client(made.json()["host_url"].rpartition("/")[2])
    assert (await host.get("/api/audit.jsonl")).status_code == 403


async def test_a_draft_that_misses_its_opening_is_recorded(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client)
    times = "opens_at = now() - interval '2 min', closes_at = now() - interval '1 min'"
    admin.owner(f"UPDATE polls SET {times} WHERE slug = %s", slug)  # noqa: S608
    admin.owner("SELECT apply_schedule()")
    rows = admin.owner("SELECT actor, action, poll, detail FROM audit WHERE id = 2")
    assert rows == [("schedule", "edit", slug, {"opens_at": None})]


async def test_an_installation_is_adopted_once_and_recorded(admin: Admin) -> None:
    identifier = "00000000-0000-4000-8000-000000000001"
    for _ in range(2):
        await adopt(admin.url, identifier)
    rows = admin.owner("SELECT actor, action, detail FROM audit")
    assert rows == [("operator", "adopt", {"installation": identifier})]
