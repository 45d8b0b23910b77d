"""The log of PostgreSQL has slow and failing statements, without values of votes and without passwords."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from tests.integration.cluster import Cluster
from voting.database import counting
from voting.database.connection import connect
from voting.polls.vote import EntryId, Vote

VOTER, CHOICE = bytes(range(100, 116)), "zebra"
PASSWORD = "neither-shown-nor-logged"  # noqa: S105


def test_statements_are_logged_without_voters_choices_and_passwords(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, log_min_duration_statement="0", log_statement="ddl")
    try:
        cluster.migrate(("worker", PASSWORD))
        with psycopg.connect(cluster.url_of("voting_worker", PASSWORD)):
            pass
        asyncio.run(_count_and_fail(cluster.url))
    finally:
        cluster.stop()
    log = (tmp_path / "log" / "postgres.log").read_text()
    assert "duration: " in log
    assert "INSERT INTO votes" in log
    assert 'violates check constraint "old_only"' in log
    assert 'violates unique constraint "votes_pkey"' in log
    assert "CREATE ROLE" in log
    for value in (VOTER.hex(), CHOICE, PASSWORD):
        assert value not in log


def test_parameters_are_not_logged_even_by_a_server_that_logs_details(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, log_min_duration_statement="0", log_error_verbosity="default")
    try:
        cluster.migrate()
        asyncio.run(_count(cluster.url))
    finally:
        cluster.stop()
    log = (tmp_path / "log" / "postgres.log").read_text()
    assert "INSERT INTO votes" in log
    for value in (VOTER.hex(), CHOICE):
        assert value not in log


async def _count(url: str) -> None:
    async with connect(url, name="test", timeout=10) as connection:
        await counting.count(connection, [Vote("default", VOTER, CHOICE, EntryId(1, 0))], [])


async def _count_and_fail(url: str) -> None:
    await _count(url)
    async with connect(url, name="test", timeout=10) as connection:
        with pytest.raises(psycopg.errors.UniqueViolation, match=VOTER.hex()):
            await connection.execute("INSERT INTO votes VALUES (%s, %s, %s, 1, 1)", ["default", VOTER, CHOICE])
        await connection.execute("ALTER TABLE votes ADD CONSTRAINT old_only CHECK (entry_ms < 2)")
        with pytest.raises(psycopg.errors.CheckViolation, match=VOTER.hex()):
            await counting.count(connection, [Vote("default", VOTER, CHOICE, EntryId(2, 0))], [])
