"""`voting doctor` finds each fault that a test makes in real servers, and nothing if there is none."""

import asyncio
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.integration.broker import Broker
from tests.integration.cluster import Cluster
from tests.published import publish_polls
from tests.waiting import eventually
from voting.broker import stream
from voting.broker.connection import redis_client
from voting.database.connection import connect
from voting.database.poll_state import read_definitions
from voting.operate.addresses import Addresses
from voting.operate.doctor import app, broker, database
from voting.operate.doctor.report import Report
from voting.polls.vote import EntryId


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    started = Broker(tmp_path_factory.mktemp("valkey"), "--maxmemory", "64mb")
    yield started
    started.kill()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(tmp_path_factory.mktemp("postgres"))
    started.migrate(("worker", "password"), ("result", "password"), ("admin", "password"))
    yield started
    started.stop()


FINAL = """
    INSERT INTO closings (poll, round, closed, publish, final, record)
    VALUES ('default', 7, now() - interval '1 hour', {publish}, {final}, '{record}');
    INSERT INTO ballots VALUES ('default#7', '', 'a')
"""


@pytest.fixture(autouse=True)
def addresses(valkey: Broker, postgres: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Addresses:
    """An installation without a fault."""
    for name in list(os.environ):  # noqa: TID251
        if name.endswith(("_URL", "_URL_FILE")):
            monkeypatch.delenv(name)

    async def make() -> None:
        async with redis_client(valkey.url, timeout=5) as client:
            await stream.Consumer(client, "w1").ensure_group(EntryId(0, 0))
            async with connect(postgres.url, name="test", timeout=5) as connection:
                await publish_polls(client, (await read_definitions(connection))[0])

    asyncio.run(make())
    return Addresses(valkey.url, postgres.url, {}, tmp_path)


def examine(addresses: Addresses) -> Report:
    return asyncio.run(app.check(addresses))


def found(addresses: Addresses) -> list[str]:
    return [each.what for each in examine(addresses).findings]


def one(addresses: Addresses, *words: str, kind: str = "problem") -> None:
    """Assert that there is exactly one finding, with these words."""
    findings = examine(addresses).findings
    assert len(findings) == 1, findings
    assert findings[0].kind == kind
    assert findings[0].fix
    for word in words:
        assert word in f"{findings[0].about}: {findings[0].what} {findings[0].fix}"


def test_where_nothing_is_wrong_nothing_is_found_and_each_part_is_named(addresses: Addresses) -> None:
    report = examine(addresses)
    assert report.findings == []
    assert [line.split(":")[0] for line in report.passed] == ["settings", "database", "broker", "clock", "disk"]
    assert report.as_text().endswith("Nothing found.")


def test_addresses_that_are_not_set_are_advice_and_no_finding(addresses: Addresses) -> None:
    report = examine(addresses._replace(data=None))
    assert report.findings == []
    (advice,) = report.advice
    assert "VOTE_URL, RESULT_URL" in advice.what
    assert "advice     addresses: not set here" in report.as_text()
    assert report.as_text().endswith("Nothing found.")
    assert examine(addresses).advice == []


@pytest.mark.parametrize(
    ("bind", "url", "words"),
    [
        ("0.0.0.0", "", "it listens on 0.0.0.0: without a proxy for HTTPS"),  # noqa: S104
        ("0.0.0.0", "https://admin.test:1", ""),  # noqa: S104 - behind a proxy
        ("127.0.0.1", "http://admin.test:1", "http://admin.test:1 is not HTTPS"),
        ("127.0.0.1", "http://localhost:1", ""),
        ("::1", "", ""),
        ("127.0.0.2", "unix:/run/admin.sock", ""),
    ],
)
def test_an_admin_service_that_can_be_reached_without_https_is_advice(
    addresses: Addresses, bind: str, url: str, words: str
) -> None:
    services = {"admin": url} if url else {}
    advice = [each.what for each in examine(addresses._replace(services=services, admin_bind=bind)).advice]
    assert [each[: len(words)] for each in advice] == ([words] if words else [])


def test_a_webhook_without_a_key_is_found(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ADMIN_KEY": "k" * 32, "WEBHOOK_URL": "https://hooks.test/"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", addresses.database_url)
    one(addresses, "settings: WEBHOOK_URL needs WEBHOOK_KEY")


def test_a_key_that_has_ended_is_advice(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", addresses.redis_url)
    monkeypatch.setenv("SECRET_KEY", "s" * 32)
    monkeypatch.setenv("SECRET_KEY_OLD", f"{'o' * 32},{'p' * 32} until 2020-02-29")
    (advice,) = examine(addresses).advice
    assert "key 2 ended on 2020-02-29" in advice.what
    assert "p" * 32 not in examine(addresses).as_json()


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("appendonly", "no", "appendonly is no"),
        ("appendfsync", "everysec", "appendfsync is everysec"),
        ("no-appendfsync-on-rewrite", "yes", "no-appendfsync-on-rewrite is yes"),
        ("maxmemory", "0", "maxmemory is not set"),
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
    ],
)
def test_each_setting_of_the_broker_that_could_lose_a_vote_is_found(
    addresses: Addresses, name: str, bad: str, words: str
) -> None:
    with redis.Redis.from_url(addresses.redis_url) as client:
        (good,) = client.config_get(name).values()
        client.config_set(name, bad)
        try:
            one(addresses, "broker: ", words, name)
        finally:
            client.config_set(name, good)
    assert found(addresses) == []


def test_a_broker_short_of_memory_is_found(addresses: Addresses) -> None:
    with redis.Redis.from_url(addresses.redis_url) as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
        try:
            one(addresses, "% of maxmemory is used: votes are refused", "start workers")
        finally:
            client.config_set("maxmemory", "64mb")


def test_a_broker_that_is_a_replica_is_found(addresses: Addresses) -> None:
    with redis.Redis.from_url(addresses.redis_url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            one(addresses, "it is a replica", "REDIS_URL")
        finally:
            client.replicaof("NO", "ONE")


def test_a_file_that_the_broker_could_not_rewrite_is_found(valkey: Broker, addresses: Addresses) -> None:
    files, away = valkey.folder / "appendonlydir", valkey.folder / "away"
    with redis.Redis.from_url(addresses.redis_url) as client:
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        files.rename(away)
        files.touch()  # in the place of the directory
        try:
            with pytest.raises(redis.ResponseError):
                client.bgrewriteaof()
            one(addresses, "rewriting the append-only file failed", "free some space")
        finally:
            files.unlink()
            away.rename(files)
        client.bgrewriteaof()
        eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    eventually(lambda: found(addresses) == [])


def test_polls_that_vote_does_not_have_and_a_stream_that_is_gone_are_found(addresses: Addresses) -> None:
    with redis.Redis.from_url(addresses.redis_url) as client:
        client.hset("polls", "old", '{"question": "?", "options": []}')
        one(addresses, "its polls are not those of the database", "start a worker")
        client.delete("votes")
        one(addresses, "there is no stream", "start a worker")
        client.flushdb()


@pytest.mark.parametrize(
    ("right", "words"),
    [
        ("-info", ["could not check: INFO is refused", "+info"]),
        ("-config", ["could not check: appendfsync", "could not check: no-appendfsync-on-rewrite"]),
        ("-xinfo", ["could not check: stream and polls"]),
    ],
)
def test_what_the_brokers_user_may_not_see_is_said_to_be_unchecked(
    addresses: Addresses, valkey: Broker, right: str, words: list[str]
) -> None:
    with redis.Redis.from_url(addresses.redis_url) as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", "resetpass", ">password", "~*", "+@all", right)
        findings = examine(
            addresses._replace(redis_url=f"unix://limited:password@{valkey.folder}/valkey.sock")
        ).findings
        client.execute_command("ACL", "DELUSER", "limited")
    assert {each.kind for each in findings} == {"unchecked"}
    said = str(findings)
    assert all(word in said for word in words), said


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_database_that_may_forget_is_found(addresses: Addresses, postgres: Cluster, name: str) -> None:
    postgres.alter_system(name, "off")
    try:
        one(addresses, f"database: {name} is off", f"set {name} = on")
    finally:
        postgres.alter_system(name, None)


@pytest.mark.parametrize(
    ("break_it", "repair", "words"),
    [
        (
            "REVOKE INSERT ON tallies FROM voting_worker",
            "GRANT INSERT ON tallies TO voting_worker",
            "voting_worker lacks INSERT on tallies",
        ),
        (
            "REVOKE SELECT ON polls FROM voting_result",
            "GRANT SELECT ON polls TO voting_result",
            "voting_result lacks SELECT on polls",
        ),
        (
            "GRANT SELECT ON votes TO voting_result",
            "REVOKE SELECT ON votes FROM voting_result",
            "voting_result has SELECT on votes, which it does not need",
        ),
        (
            "REVOKE INSERT ON audit FROM voting_admin",
            "GRANT INSERT ON audit TO voting_admin",
            "voting_admin lacks INSERT on audit",
        ),
        (
            "GRANT SELECT ON votes TO voting_admin",
            "REVOKE SELECT ON votes FROM voting_admin",
            "voting_admin has SELECT on votes, which it does not need",
        ),
        (
            "GRANT TEMPORARY ON DATABASE voting TO PUBLIC",
            "REVOKE TEMPORARY ON DATABASE voting FROM PUBLIC",
            "PUBLIC has TEMPORARY on DATABASE voting, which it does not need",
        ),
        (
            "INSERT INTO tallies VALUES ('default', 'a', 3)",
            "DELETE FROM tallies",
            "the tally of a in default is 3, but there are 0 votes",
        ),
        (
            FINAL.format(final="NULL", record="{}", publish="false"),
            "DELETE FROM closings; DELETE FROM ballots",
            "round 7 of default has been closed for a minute and is not final",
        ),
        (
            FINAL.format(final="now()", record='{"tally": {"a": 2}}', publish="false"),
            "DELETE FROM closings; DELETE FROM ballots",
            "the tallies of round 7 of default are not those of its final record",
        ),
        (
            FINAL.format(final="now()", record='{"tally": {}}', publish="true"),
            "DELETE FROM closings; DELETE FROM ballots",
            "the published ballots of round 7 of default are not those of its final record",
        ),
        (
            "ALTER TABLE audit DISABLE TRIGGER USER; INSERT INTO audit (id, actor, action) VALUES (2, 'admin', 'x')",
            "DELETE FROM audit; ALTER TABLE audit ENABLE ALWAYS TRIGGER append_audit, ENABLE ALWAYS TRIGGER keep_audit",
            "row 2 of the audit log is not the one that was written, or rows before it were changed",
        ),
        (
            "INSERT INTO schema_migrations VALUES ('9999_future.sql')",
            "DELETE FROM schema_migrations WHERE name = '9999_future.sql'",
            "the schema has 9999_future.sql of a newer version",
        ),
        (
            "UPDATE schema_migrations SET name = 'x' WHERE name = '0001_votes.sql'",
            "UPDATE schema_migrations SET name = '0001_votes.sql' WHERE name = 'x'",
            "the schema lacks 0001_votes.sql",
        ),
    ],
)
def test_wrong_grants_tallies_and_schema_are_found(
    addresses: Addresses, postgres: Cluster, break_it: str, repair: str, words: str
) -> None:
    postgres.execute(break_it)
    try:
        assert words in found(addresses)
    finally:
        postgres.execute(repair)
    assert found(addresses) == []


def test_a_database_without_a_schema_is_found(addresses: Addresses, postgres: Cluster) -> None:
    postgres.execute("CREATE DATABASE empty")
    one(
        addresses._replace(database_url=postgres.url.replace("/voting?", "/empty?")),
        "the schema lacks",
        "voting migrate",
    )


def test_the_newest_row_of_the_audit_log_is_named_also_to_a_worker(addresses: Addresses, postgres: Cluster) -> None:
    postgres.execute("INSERT INTO audit (actor, action) VALUES ('admin', 'x')")
    report = examine(addresses._replace(database_url=postgres.url_of("voting_worker", "password")))
    assert re.search(r"1 rows in the audit log, the newest is 1, fingerprint ([0-9a-f]{4}-){3}", str(report.passed))


def test_a_role_with_less_than_a_workers_rights_is_told_what_it_lacks(addresses: Addresses, postgres: Cluster) -> None:
    said = found(addresses._replace(database_url=postgres.url_of("voting_result", "password")))
    assert said == ["this role may not read which migrations were applied"]
    assert found(addresses._replace(database_url=postgres.url_of("voting_worker", "password"))) == []


def test_a_database_that_is_a_replica_is_found(addresses: Addresses, tmp_path: Path) -> None:
    replica = Cluster(tmp_path, wal_level="replica", hot_standby="on")
    try:
        replica.migrate()
        replica.stop()
        replica.demote()
        first, second = examine(addresses._replace(database_url=replica.url)).findings
        assert (first.what, first.fix) == (
            "it is a replica, which accepts no votes",
            "use the primary in DATABASE_URL",
        )
        assert second.what == "its polls are not those of the database"  # which is another database
    finally:
        replica.stop()


def test_stores_that_do_not_answer_are_found_with_no_password_in_what_is_said(
    addresses: Addresses, tmp_path: Path
) -> None:
    noaddresses = addresses._replace(
        redis_url=f"unix://user:hunter2@{tmp_path}/none.sock",
        database_url=f"postgresql://user:hunter2@/none?host={tmp_path}",
    )
    said = examine(noaddresses).as_text()
    assert "broker: unix:// does not answer" in said or "broker: unix://" in said
    assert "database: postgresql:///none does not answer" in said
    assert "2 found." in said
    assert "hunter2" not in said


@pytest.mark.parametrize(("module", "words"), [(broker, "is too old"), (database, "is too old")])
def test_a_server_older_than_needed_is_found(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch, module: Any, words: str
) -> None:
    monkeypatch.setattr(module, "MIN_VERSION", 99)
    one(addresses, f"{module.ABOUT}: ", words, "99 or newer")


@pytest.mark.parametrize("seconds", [-30, 30])
def test_a_clock_that_is_off_is_found(addresses: Addresses, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)  # ours, as both servers see it
    said = found(addresses)
    direction = "behind" if seconds > 0 else "ahead of"
    assert len(said) == 2
    assert all(f"{direction} ours" in each for each in said)


def test_a_full_disk_is_found(addresses: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "FREE_BYTES", 1 << 60)
    one(addresses, "disk: ", "GiB", "--data")


def test_a_bad_setting_of_any_service_is_found_and_one_that_stands_elsewhere_is_not_missed(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT", "fast")
    one(addresses, "settings: RATE_LIMIT")


def test_a_service_that_is_not_ready_is_found(addresses: Addresses, tmp_path: Path) -> None:
    one(addresses._replace(services={"vote": f"unix:{tmp_path}/none.sock"}), "vote: is not ready", "log")


@pytest.mark.parametrize(
    ("url", "is_found"),
    [
        ("postgresql://u@db.example.org/voting?connect_timeout=1", True),
        ("postgresql://u@db.example.org/voting?sslmode=require", True),
        ("postgresql://u@db.example.org/voting?sslmode=verify-full&sslrootcert=ca.pem", False),
        ("postgresql://u@db:5432,db.example.org:5433/voting", True),
        ("postgresql:///voting?host=db.example.org", True),
        ("postgresql://u@db/voting", False),
        ("postgresql://u@127.0.0.1/voting", False),
        ("postgresql:///voting?host=/run/postgres.d", False),
    ],
)
def test_a_connection_that_anybody_could_answer_is_found(url: str, is_found: bool) -> None:  # noqa: FBT001
    assert bool(database._unverified(url)) == is_found
