"""`voting backup` and `voting restore`: after the loss of the database, a restore gives exactly the same rows."""

import asyncio
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.e2e.load import LoadGenerator
from tests.e2e.stack import Stack
from tests.integration.cluster import Cluster
from tests.waiting import eventually
from voting.operate import backup
from voting.operate.archive import BadArchive
from voting.operate.backup import CannotRestore
from voting.polls.vote import EntryId

TABLES = {
    "polls": "slug, question, options, entry_ms, entry_seq, created, state, ticket",  # a revision may only grow
    "votes": "*",
    "tallies": "*",
    "dead_letters": "*",
}


def voting(*arguments: str, data: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "voting", *arguments]
    settings = os.environ | environment  # noqa: TID251
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60, env=settings)


def fingerprint(stack: Stack) -> object:
    tables = [f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t" for table in TABLES]  # noqa: S608
    return stack.rows(" UNION ALL ".join(tables))


def contents(stack: Stack) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(stack.rows(f"SELECT {columns} FROM {table}"), key=repr) for table, columns in TABLES.items()}  # noqa: S608


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a second poll, from before the database checked them, revotes, dead letters and many votes."""
    stack = Stack(tmp_path_factory.mktemp("backup") / "data").start()
    with psycopg.connect(stack.state["database_url"], autocommit=True) as connection:
        options = json.dumps([{"key": "a", "label": "Tab\there"}, {"key": "b", "label": "back\\slash, ünïcode"}])
        connection.execute("ALTER TABLE polls DISABLE TRIGGER check_poll")
        connection.execute(
            "INSERT INTO polls (slug, question, options) VALUES ('lunch', 'Line\nbreak?', %s)", [options]
        )
        connection.execute("ALTER TABLE polls ENABLE TRIGGER check_poll")
    with stack.broker() as broker:
        broker.xadd("votes", {"poll": "default", "voter": b"\0\\\t\n" * 3, "choice": b"\xff"})
    eventually(lambda: httpx.post(f"{stack.vote_url}/p/lunch", data={"vote": "b"}).status_code == 200)
    with stack.broker() as broker, broker.pipeline(transaction=False) as pipe:
        for number in range(20_000):  # more than one piece of the file
            pipe.xadd("votes", {"poll": "default", "voter": number.to_bytes(16), "choice": "ab"[number % 3 // 2]})
        pipe.execute()
    with LoadGenerator(stack.vote_url, voters=8).running() as load:
        load.wait_for_votes(300)
    eventually(stack.drained, within=30)
    yield stack
    assert stack.stop() == 0


@pytest.fixture(scope="module")
def saved(loaded: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    file = tmp_path_factory.mktemp("saved") / "votes.tar.gz"
    file.write_bytes(b"of an earlier version, for all to read")
    file.chmod(0o644)
    run = voting("backup", str(file), "--data", str(loaded.data))
    assert run.returncode == 0, run.stderr
    assert b"in 2 polls, 1 dead letters" in run.stderr
    return file


def test_a_backup_is_private_and_any_tar_can_list_it(saved: Path) -> None:
    assert saved.stat().st_mode & 0o077 == 0
    assert list(saved.parent.iterdir()) == [saved]
    names = subprocess.run(["tar", "-tzf", str(saved)], capture_output=True, text=True, check=True).stdout.split()
    assert names[0] == "backup.json"
    assert names[-1] == "manifest.json"


def test_backup_destroy_restore_gives_identical_tallies_and_rows_and_voting_goes_on(loaded: Stack, saved: Path) -> None:
    before, tally = contents(loaded), loaded.tally()
    with httpx.Client(base_url=loaded.vote_url) as browser:
        browser.post("/", data={"vote": "a"})  # after the backup: this vote is lost with the database
        eventually(lambda: loaded.tally()["a"] == tally["a"] + 1)
        revision = loaded.results()["revision"]
        assert loaded.stop() == 0
        shutil.rmtree(loaded.data / "postgres")
        loaded.start()
        assert loaded.tally() == {"a": 0, "b": 0}
        with loaded.frozen("worker-1", "worker-2"):
            assert browser.post("/", data={"vote": "b"}).status_code == 200  # waits on the stream
            assert "none is counted" in loaded.output.read_text()
            run = voting("restore", str(saved), "--data", str(loaded.data))
            assert run.returncode == 0, run.stderr
            assert contents(loaded) == before
            eventually(lambda: loaded.tally() == tally)
            assert loaded.results()["revision"] > revision  # or open pages would take it for old
        eventually(lambda: loaded.tally() == {"a": tally["a"], "b": tally["b"] + 1}, within=30)
        browser.post("/", data={"vote": "a"})
        eventually(lambda: loaded.tally() == {"a": tally["a"] + 1, "b": tally["b"]})


def test_with_replace_it_goes_back_while_everything_runs(loaded: Stack, saved: Path) -> None:
    eventually(loaded.drained)
    assert voting("restore", str(saved), "--data", str(loaded.data), "--replace").returncode == 0
    first = contents(loaded)
    httpx.post(loaded.vote_url, data={"vote": "b"})
    eventually(lambda: contents(loaded) != first)
    eventually(loaded.drained)
    assert voting("restore", str(saved), "--data", str(loaded.data), "--replace").returncode == 0
    assert contents(loaded) == first
    tally = {choice: votes for poll, choice, votes in first["tallies"] if poll == "default"}
    eventually(lambda: loaded.tally() == tally)


def test_after_a_restore_polls_are_as_open_as_in_the_backup_and_later_ones_are_gone(loaded: Stack, saved: Path) -> None:
    def vote(slug: str) -> int:
        return httpx.post(f"{loaded.vote_url}/p/{slug}", data={"vote": "a"}).status_code

    with psycopg.connect(loaded.state["database_url"], autocommit=True) as connection:
        connection.execute("UPDATE polls SET state = 'closed', closed = now() WHERE slug = 'lunch'")
        connection.execute(
            "INSERT INTO polls (slug, question, options) SELECT 'later', '?', options FROM polls LIMIT 1"
        )
    eventually(lambda: (vote("lunch"), vote("later")) == (409, 200))
    eventually(loaded.drained)
    assert voting("restore", str(saved), "--data", str(loaded.data), "--replace").returncode == 0
    eventually(lambda: (vote("lunch"), vote("later")) == (200, 404))
    assert httpx.get(f"{loaded.result_url}/p/later/api/results").status_code == 404


def test_a_database_that_is_not_empty_is_left_alone_without_replace(loaded: Stack, saved: Path) -> None:
    eventually(loaded.drained)
    before = contents(loaded)
    run = voting("restore", str(saved), "--data", str(loaded.data))
    assert run.returncode == 1
    assert b"--replace" in run.stderr
    assert contents(loaded) == before


def damaged(saved: Path, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The backup with other members."""
    with tarfile.open(saved) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    change(members)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def swap_choice(members: dict[str, bytes]) -> None:
    members["tallies/00000.copy"] = members["tallies/00000.copy"].replace(b"\ta\t", b"\tc\t")


def repeat_rows(members: dict[str, bytes]) -> None:
    members["votes/00000.copy"] *= 2


def add_table(members: dict[str, bytes]) -> None:
    members["workers/00000.copy"] = b""
    members["manifest.json"] = members.pop("manifest.json")


def forge_tally(members: dict[str, bytes]) -> None:
    """Change a tally, and the manifest to match."""
    rows = members["tallies/00000.copy"].replace(b"\ta\t", b"\ta\t1")
    members["tallies/00000.copy"] = rows
    manifest = json.loads(members["manifest.json"])
    manifest["tallies"] |= {"bytes": len(rows), "sha256": hashlib.sha256(rows).hexdigest()}
    members["manifest.json"] = json.dumps(manifest).encode()


def later_version(members: dict[str, bytes]) -> None:
    about = json.loads(members["backup.json"])
    about["migrations"].append("9999_future.sql")
    members["backup.json"] = json.dumps(about).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda members: members.pop("manifest.json"), "its end is missing"),
        (lambda members: members.pop("votes/00000.copy"), "do not match its manifest"),
        (lambda members: members.pop("backup.json"), "not a file that `voting backup` made"),
        (lambda members: members.update({"votes/00000.copy": b"\n"}), "cannot be read"),
        (repeat_rows, "cannot be read"),
        (lambda members: members.update({"workers/0.copy": b""}), "data after its end"),
        (add_table, "unexpected table: workers"),
        (swap_choice, "do not match its manifest"),
        (forge_tally, "tallies and votes do not match"),
        (later_version, "update voting first"),
    ],
)
def test_a_backup_that_is_not_whole_or_does_not_add_up_changes_nothing(
    loaded: Stack, saved: Path, change: Callable[[dict[str, bytes]], None], reason: str
) -> None:
    before = fingerprint(loaded)
    with pytest.raises((BadArchive, CannotRestore), match=re.escape(reason)):
        asyncio.run(backup.restore(loaded.state["database_url"], io.BytesIO(damaged(saved, change)), replace=True))
    assert fingerprint(loaded) == before


@pytest.mark.parametrize("keep", [0, 1, 100, 100_000, -1])
def test_a_file_that_was_cut_short_or_damaged_changes_nothing(loaded: Stack, saved: Path, keep: int) -> None:
    before = fingerprint(loaded)
    whole = saved.read_bytes()
    flipped = bytes([whole[keep] ^ 1])
    for data in (whole[:keep], whole[:keep] + flipped + whole[keep:][1:]):
        with pytest.raises(BadArchive):
            asyncio.run(backup.restore(loaded.state["database_url"], io.BytesIO(data), replace=True))
    assert fingerprint(loaded) == before


def test_a_backup_is_private_from_its_first_byte(loaded: Stack, tmp_path: Path) -> None:
    with psycopg.connect(loaded.state["database_url"]) as connection:
        connection.execute("LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE")
        command = [sys.executable, "-m", "voting", "backup", str(tmp_path / "file"), "--data", str(loaded.data)]
        process = subprocess.Popen(command, umask=0)
        draft = eventually(lambda: next(tmp_path.iterdir(), None))
        assert draft
        assert draft.name != "file"
        assert draft.stat().st_mode & 0o777 == 0o600
    assert process.wait(30) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_backup_does_not_replace_a_pipe(loaded: Stack, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    run = voting("backup", str(tmp_path / "pipe"), "--data", str(loaded.data))
    assert run.returncode == 1
    assert b"use - for standard output" in run.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_a_backup_of_a_version_without_an_installation_id_can_be_restored(loaded: Stack, saved: Path) -> None:
    def earlier(members: dict[str, bytes]) -> None:
        about = json.loads(members["backup.json"])
        del about["installations"]
        members["backup.json"] = json.dumps(about).encode()

    before = loaded.rows("SELECT id FROM installation")
    data = damaged(saved, earlier)
    asyncio.run(backup.restore(loaded.state["database_url"], io.BytesIO(data), replace=True))
    assert loaded.rows("SELECT id FROM installation") == before


def test_a_file_that_is_not_a_backup_is_refused_with_a_message(loaded: Stack) -> None:
    run = voting("restore", "-", "--data", str(loaded.data), data=gzip.compress(b"something else"))
    assert run.returncode == 1
    assert run.stderr.startswith(b"voting restore: it is damaged, or not a backup (")
    assert run.stderr.endswith(b"Nothing was changed.\n")


def test_a_backup_of_tallies_that_somebody_changed_is_refused(loaded: Stack, tmp_path: Path) -> None:
    with psycopg.connect(loaded.state["database_url"], autocommit=True) as connection:
        connection.execute("UPDATE tallies SET votes = votes + 1 WHERE poll = 'lunch'")
        run = voting("backup", str(tmp_path / "file"), "--data", str(loaded.data))
        connection.execute("UPDATE tallies SET votes = votes - 1 WHERE poll = 'lunch'")
    assert run.returncode == 1
    assert b"tallies and votes do not match (lunch b: tally 2, votes 1)" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_worker_may_save_but_only_the_owner_restores_and_an_installation_moves_through_a_pipe(
    loaded: Stack, tmp_path: Path
) -> None:
    there = Cluster(tmp_path)
    try:
        there.migrate(("worker", "password"))
        whole = voting("backup", "-", DATABASE_URL=loaded.state["database_url"])
        assert whole.returncode == 0, whole.stderr
        worker = there.url_of("voting_worker", "password")
        refused = voting("restore", "-", data=whole.stdout, DATABASE_URL=worker)
        assert refused.returncode == 1
        assert b"use the database's owner" in refused.stderr
        (tmp_path / "url").write_text(there.url)
        assert voting("restore", "-", data=whole.stdout, DATABASE_URL_FILE=str(tmp_path / "url")).returncode == 0
        again = voting("backup", "-", DATABASE_URL=worker)
        assert again.returncode == 0, again.stderr
        rows = {
            table: sorted(there.execute(f"SELECT {columns} FROM {table}"), key=repr)  # noqa: S608
            for table, columns in TABLES.items()
        }
        assert rows == contents(loaded)
    finally:
        there.stop()


def test_after_a_restore_from_a_broker_whose_clock_was_ahead_a_new_vote_still_wins(loaded: Stack) -> None:
    with httpx.Client(base_url=loaded.vote_url) as browser:
        browser.post("/", data={"vote": "a"})
        eventually(loaded.drained)
        ahead = EntryId(int(1000 * time.time()) + 20 * 3_600_000, 7)  # as far as a clock may be wrong, nearly
        with psycopg.connect(loaded.state["database_url"], autocommit=True) as connection:
            connection.execute("UPDATE votes SET entry_ms = %s, entry_seq = %s", ahead)
            connection.execute("UPDATE polls SET entry_ms = %s, entry_seq = %s", ahead)
        with loaded.broker() as broker:
            eventually(lambda: broker.xinfo_stream("votes")["last-generated-id"] == str(ahead).encode())
        before = loaded.settled_tally()
        receipt = httpx.post(loaded.vote_url, data={"vote": "a"}, headers={"accept": "application/json"}).json()[
            "receipt"
        ]
        assert receipt > str(ahead)
        browser.post("/", data={"vote": "b"})
        eventually(lambda: loaded.tally() == {"a": before["a"], "b": before["b"] + 1})
