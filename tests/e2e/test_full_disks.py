"""A full disk of Redis, then of PostgreSQL: votes are refused or wait, none is lost, and free space ends the fault."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.compose import Compose
from tests.waiting import eventually

OWNERS = {"redis": (999, 1000), "db": (70, 70)}


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disks")


@pytest.fixture(scope="module")
def small(engine: None, disks: Path) -> Iterator[Compose]:  # noqa: ARG001
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount small file systems")
    for name, (user, group) in OWNERS.items():
        (disks / name).mkdir()
        options = f"size=160m,uid={user},gid={group}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disks / name], check=True)
    files = ("tests/e2e/quick-probes.yaml", "tests/e2e/small-disks.yaml")
    project = Compose(f"voting-disks-{os.getpid()}", files=files, TEST_DISKS=str(disks))
    try:
        project.up()
        yield project
    finally:
        project.run("down", "-v", check=False)
        for name in OWNERS:
            subprocess.run(["umount", disks / name], check=True)


CLIENT = httpx.Client(headers={"accept": "application/json"}, timeout=5)


def vote(compose: Compose) -> httpx.Response:
    """Vote as a new voter."""
    CLIENT.cookies.clear()
    return CLIENT.post(compose.vote_url, data={"vote": "a"})


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass


def test_no_vote_is_lost_when_the_disk_of_redis_is_full_and_room_is_enough(small: Compose, disks: Path) -> None:
    receipts = {vote(small).json()["receipt"] for _ in range(20)}
    fill(disks / "redis")

    def refused() -> bool:
        answer = vote(small)
        if answer.status_code == 200:  # there was a little room left
            receipts.add(answer.json()["receipt"])
        return answer.status_code == 503 and "retry-after" in answer.headers

    eventually(refused, within=30, every=0.001)
    (disks / "redis" / "ballast").unlink()

    def accepted() -> bool:
        answer = vote(small)
        assert answer.status_code in {200, 503}
        if answer.status_code == 200:
            receipts.add(answer.json()["receipt"])
        return answer.status_code == 200

    eventually(accepted, within=60)
    eventually(small.drained, within=30)
    assert receipts <= {entry for _, entry in small.rows().values()}


def test_votes_wait_while_the_disk_of_postgresql_is_full_and_are_counted_when_there_is_room(
    small: Compose, disks: Path
) -> None:
    eventually(small.drained, within=30)
    small.sql("DELETE FROM votes; UPDATE tallies SET votes = 0")
    receipts = {vote(small).json()["receipt"] for _ in range(20)}
    eventually(small.drained, within=30)
    fill(disks / "db")
    for _ in range(500):
        answer = vote(small)
        assert answer.status_code == 200
        receipts.add(answer.json()["receipt"])
    (disks / "db" / "ballast").unlink()
    eventually(small.drained, within=90)
    assert receipts == {entry for _, entry in small.rows().values()}
    assert small.sql("SELECT count(*) FROM dead_letters") == [["0"]]
