"""The admin service while the database is away: a clear "not now", and nothing half done."""

import asyncio
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.admin import Admin, make, make_session, patch, refusal, serving, shown
from tests.integration.cluster import Cluster
from tests.waiting import until
from voting.admin.database import Database
from voting.database.connection import Connection

pytestmark = pytest.mark.anyio


def waiting_for_lock(admin: Admin) -> bool:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'voting_admin' AND wait_event_type = 'Lock'"
    return bool(admin.owner(waits)[0][0])


def audit(admin: Admin) -> list[tuple[Any, ...]]:
    return admin.owner("SELECT action FROM audit ORDER BY id")


async def test_a_connection_that_ends_while_the_host_presses_open_leaves_nothing_half_done(admin: Admin) -> None:
    client = await admin.client()
    slug = await make(client)
    code, _ = await make_session(client, slug, "default")
    await client.post(f"/api/sessions/{code}/next")
    before, logged = await shown(client, slug), audit(admin)
    with psycopg.connect(admin.url) as blocker:
        blocker.execute("SELECT FROM polls WHERE slug = %s FOR UPDATE", [slug])
        opening = asyncio.create_task(patch(client, slug, state="open", results="hidden"))
        await until(lambda: waiting_for_lock(admin))
        admin.owner("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'voting_admin'")
        answer = await opening
    assert refusal(answer) == (503, "database_away")
    assert answer.headers["retry-after"] == "1"
    assert "Nothing was changed" in answer.json()["detail"]
    assert (await shown(client, slug), audit(admin)) == (before, logged)
    assert (await patch(client, slug, state="open")).status_code == 200
    with psycopg.connect(admin.url) as blocker:  # the session cannot be changed, after the poll was closed
        blocker.execute("SELECT FROM sessions FOR UPDATE")
        stepping = asyncio.create_task(client.post(f"/api/sessions/{code}/next"))
        await until(lambda: waiting_for_lock(admin))
        admin.owner("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'voting_admin'")
        assert refusal(await stepping) == (503, "database_away")
    assert (await shown(client, slug))["state"] == "open"
    assert (await client.post(f"/api/sessions/{code}/next")).json()["position"] == 2


async def test_no_request_waits_long_for_a_lock_or_for_the_requests_before_it(admin: Admin) -> None:
    client = await admin.client()
    slug = await make(client)
    with psycopg.connect(admin.url) as blocker:
        blocker.execute("SELECT lock_definitions()")
        began = time.monotonic()
        answers = await asyncio.gather(*(patch(client, slug, state="open") for _ in range(40)))
        assert {refusal(answer) for answer in answers} == {(503, "database_away")}
        assert time.monotonic() - began < 10  # one after another would take 12 s with six connections
    assert (await shown(client, slug))["state"] == "draft"


async def test_a_lost_answer_to_commit_is_reported_as_unknown(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await admin.client()
    slug = await make(client)
    execute: Any = psycopg.AsyncConnection.execute

    async def lose_answer(connection: Connection, query: Any, *values: Any, **more: Any) -> Any:
        answer = await execute(connection, query, *values, **more)
        if query == "COMMIT":
            await connection.close()
            raise psycopg.OperationalError("the connection is lost")
        return answer

    monkeypatch.setattr(psycopg.AsyncConnection, "execute", lose_answer)
    answer = await patch(client, slug, state="open")
    monkeypatch.undo()
    assert refusal(answer) == (503, "unknown")
    assert "Check whether" in answer.json()["detail"]
    assert (await shown(client, slug))["state"] == "open"


async def test_it_is_not_ready_while_the_database_is_stopped_and_works_again_after_it(tmp_path: Path) -> None:
    cluster = await asyncio.to_thread(Cluster, tmp_path)
    await asyncio.to_thread(cluster.migrate)
    async with serving(cluster.url) as admin:
        client = await admin.client()
        slug = await make(client)
        await asyncio.to_thread(cluster.stop)
        began = time.monotonic()
        for method, path in (("PATCH", f"/api/polls/{slug}"), ("POST", "/api/polls"), ("GET", "/api/polls")):
            body = {"PATCH": {"state": "open"}, "POST": {"question": "x", "options": ["a", "b"]}, "GET": None}[method]
            assert refusal(await client.request(method, path, json=body)) == (503, "database_away")
        token = "x" * 43
        assert refusal(await (await admin.client(token)).get("/api/polls")) == (503, "database_away")
        assert time.monotonic() - began < 10
        await until(lambda: not admin.services.database.ready)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/livez")).status_code == 200
        await asyncio.to_thread(cluster.start)
        await until(lambda: admin.services.database.ready)
        assert (await patch(client, slug, state="open")).status_code == 200
        assert await stopped_kept_connections_are_replaced(admin.services.database, cluster)
    await asyncio.to_thread(cluster.stop)


async def stopped_kept_connections_are_replaced(database: Database, cluster: Cluster) -> bool:
    """A request after a restart of the database is not refused because of the connections from before."""
    await asyncio.to_thread(cluster.end_sessions, "voting_admin")
    async with database.read() as connection:
        cursor = await connection.execute("SELECT true")
        row = await cursor.fetchone()
    return bool(row and row[0])
