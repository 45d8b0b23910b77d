"""The classic load, with the real Apache Bench."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.conftest import require
from tests.e2e.stack import Stack, free_port
from tests.waiting import eventually

SCRIPT = Path(__file__).parents[2] / "seed-data" / "generate-votes.sh"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "data").start()
    yield stack
    assert stack.stop() == 0


def seed(**environment: str) -> subprocess.CompletedProcess[str]:
    require("ab", "apache2-utils")
    environment = os.environ | environment  # noqa: TID251
    return subprocess.run([SCRIPT], capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_the_classic_3000_votes_arrive_exactly_everywhere_and_after_a_restart(fresh: Stack) -> None:
    with connect(f"ws://127.0.0.1:{fresh.result_port}/ws") as socket:
        first = socket.recv(timeout=30)
        run = seed(VOTE_URL=fresh.vote_url, RESULT_URL=fresh.result_url)
        assert run.returncode == 0, run.stdout + run.stderr
        frames = {first, socket.recv(timeout=30)}
    assert len(frames) == 2
    assert "3000 accepted, 0 refused or failed" in run.stdout
    assert fresh.tally() == {"a": 2000, "b": 1000}
    assert fresh.rows("SELECT choice, count(*) FROM votes GROUP BY 1 ORDER BY 1") == [("a", 2000), ("b", 1000)]
    assert fresh.rows("SELECT choice, votes FROM tallies ORDER BY 1") == [("a", 2000), ("b", 1000)]
    fresh.stop()
    fresh.start()
    assert fresh.tally() == {"a": 2000, "b": 1000}


def test_counts_and_concurrency_come_from_the_environment(stack: Stack) -> None:
    run = seed(VOTE_URL=stack.vote_url, RESULT_URL=stack.result_url, VOTES_A="7", VOTES_B="3", CONCURRENCY="2")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "10 accepted" in run.stdout


def test_the_first_two_options_get_the_votes_whatever_their_keys_are(tmp_path: Path) -> None:
    Stack(tmp_path / "data", workers=1).start().stop()
    stack = Stack(tmp_path / "data", workers=1, OPTIONS="Tea,Dogs,Milk").start()
    eventually(lambda: "Tea" in httpx.get(stack.vote_url).text)
    run = seed(VOTE_URL=stack.vote_url, RESULT_URL=stack.result_url, VOTES_A="4", VOTES_B="3", CONCURRENCY="2")
    assert run.returncode == 0, run.stdout + run.stderr
    shown = [(option["key"], option["label"], option["votes"]) for option in stack.results()["options"]]
    assert shown == [("c", "Tea", 4), ("b", "Dogs", 3), ("d", "Milk", 0)]
    assert stack.stop() == 0


def test_a_service_that_is_not_there_is_named() -> None:
    run = seed(VOTE_URL=f"http://127.0.0.1:{free_port()}", WAIT="0")
    assert run.returncode == 1
    assert "VOTE_URL" in run.stderr
    run = seed(VOTE_URL="localhost:8080")
    assert (run.returncode, "must begin with http://" in run.stderr) == (1, True)
