"""`voting up` starts, restarts and stops everything; `voting status` and `voting doctor` report on it."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.load import VOTES, LoadGenerator
from tests.e2e.stack import Stack, free_port
from tests.waiting import eventually

PARTS = ["valkey", "postgres", "worker-1", "worker-2", "vote", "result", "admin"]
PORTS = tuple(word for name in ("vote", "result", "admin") for word in (f"--{name}-port", str(free_port())))


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "voting", *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | environment,  # noqa: TID251
    )


def check_rows(stack: Stack, load: LoadGenerator) -> None:
    rows = {bytes(name): (choice, f"{ms}-{seq}") for name, choice, ms, seq in stack.rows(VOTES)}
    load.check(rows, (stack.data / "secret_key").read_text())


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A stack of the test's own, which it may damage."""
    stack = Stack(tmp_path / "data").start()
    yield stack
    if stack.process.poll() is None:
        stack.stop()


def test_killing_a_worker_valkey_and_postgres_under_votes_loses_and_doubles_nothing(own: Stack) -> None:
    load = LoadGenerator(own.vote_url, voters=12)
    with load.running():
        load.wait_for_votes()
        for name in ("worker-1", "valkey", "postgres", "worker-2", "admin", "valkey", "result", "vote"):
            dead = own.kill(name)
            eventually(lambda name=name, dead=dead: own.pid(name) != dead, within=20)  # type: ignore[misc]
            load.wait_for_votes()
    eventually(own.drained, within=30)
    assert load.statuses <= {200, 503}
    assert load.acknowledged > 400

    check_rows(own, load)
    voters = own.rows("SELECT count(*) FROM votes")[0][0]
    eventually(lambda: sum(own.tally().values()) == voters)
    assert own.rows(
        "SELECT choice, votes - (SELECT count(*) FROM votes v WHERE v.choice = t.choice) FROM tallies t ORDER BY 1"
    ) == [("a", 0), ("b", 0)]
    assert own.rows("SELECT count(*) FROM dead_letters") == [(0,)]
    assert "started again" in own.output.read_text()


def test_while_the_database_is_silent_votes_are_taken_and_the_result_says_that_it_is_old(own: Stack) -> None:
    httpx.post(own.vote_url, data={"vote": "a"})
    eventually(lambda: own.tally() == {"a": 1, "b": 0})
    with own.frozen("postgres"):
        eventually(lambda: own.results()["stale_since"] is not None, within=6)  # 3 s are the longest
        assert httpx.post(own.vote_url, data={"vote": "b"}).status_code == 200
        assert own.tally() == {"a": 1, "b": 0}
        assert "Last known result" in httpx.get(own.result_url).text
    eventually(lambda: own.tally() == {"a": 1, "b": 1}, within=20)
    assert own.results()["stale_since"] is None
    assert own.output.read_text().count("ended") == 0


def test_stopping_is_clean_and_starting_again_shows_the_same(own: Stack) -> None:
    for choice in "aab":
        httpx.post(own.vote_url, data={"vote": choice})
    eventually(lambda: own.tally() == {"a": 2, "b": 1})
    pids = [own.pid(name) for name in PARTS]
    assert own.stop() == 0
    assert sorted(file.name for file in (own.data / "run").glob("*.pid")) == []
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    own.start()
    assert own.tally() == {"a": 2, "b": 1}


def test_everything_killed_at_once_starts_again_without_a_manual_step(own: Stack) -> None:
    with LoadGenerator(own.vote_url, voters=4).running() as load:
        load.wait_for_votes()
        own.process.kill()
        own.process.wait()
        os.kill(own.pid("postgres"), signal.SIGKILL)
        os.kill(own.pid("worker-1"), signal.SIGKILL)
    own.start()
    said = own.output.read_text()
    assert "left over" in said
    eventually(own.drained, within=30)
    check_rows(own, load)


def test_an_empty_database_beside_the_old_broker_is_refused_until_the_right_one_is_back_or_it_is_adopted(
    own: Stack,
) -> None:
    votes = own.data / "postgres"
    httpx.post(own.vote_url, data={"vote": "a"})
    eventually(lambda: own.tally() == {"a": 1, "b": 0})
    assert own.stop() == 0
    votes.rename(own.data / "aside")

    own.start()
    assert "none is counted" in own.output.read_text()
    assert httpx.post(own.vote_url, data={"vote": "b"}).status_code == 200
    run = command("status", "--data", str(own.data), "--json")
    assert run.returncode == 1
    found = json.loads(run.stdout)
    assert (found["counted"], found["lag"] + found["pending"]) == (0, 1)
    assert any("voting adopt" in problem for problem in found["problems"])
    run = command("doctor", "--data", str(own.data), "--json")
    fixes = {each["about"]: each["fix"] for each in json.loads(run.stdout)["findings"]}
    assert "voting restore" in fixes["installation"]
    assert own.stop() == 0

    shutil.rmtree(votes)
    (own.data / "aside").rename(votes)
    own.start()
    assert "none is counted" not in own.output.read_text()
    eventually(lambda: own.tally() == {"a": 1, "b": 1})
    assert own.stop() == 0

    shutil.rmtree(votes)
    own.start()
    (line,) = (line for line in own.output.read_text().splitlines() if "./voting adopt " in line)
    arguments = shlex.split(line.partition("./voting ")[2])
    assert httpx.post(own.vote_url, data={"vote": "b"}).status_code == 200
    assert command(*arguments).returncode == 0
    eventually(lambda: own.tally() == {"a": 0, "b": 1})
    assert command("adopt", "nonsense", "--data", str(own.data)).returncode == 2


def test_files_of_another_major_version_of_postgresql_are_refused_with_the_steps_to_move_them(tmp_path: Path) -> None:
    files = tmp_path / "data" / "postgres" / "data"
    files.mkdir(parents=True)
    (files / "PG_VERSION").write_text("17\n")
    run = command("up", "--data", str(tmp_path / "data"), *PORTS)
    assert run.returncode == 1
    assert f"{files} was made by PostgreSQL 17, and this is PostgreSQL 18" in run.stdout
    assert "./voting restore" in run.stdout
    assert not (tmp_path / "data" / "log" / "valkey.log").exists()


def test_a_valkey_without_a_known_process_is_not_started_twice(own: Stack) -> None:
    own.process.kill()
    own.process.wait()
    (own.data / "run" / "valkey.started").unlink()  # as if `up` had been killed before it could write it
    again = own.launch()
    assert again.wait(90) == 1
    assert "another Valkey runs with" in own.output.read_text()
    own.kill("valkey")
    own.start()


def test_a_second_run_with_the_same_data_directory_is_refused_and_changes_nothing(stack: Stack) -> None:
    before = [stack.pid(name) for name in PARTS]
    second = command("up", "--data", str(stack.data), *PORTS)
    assert second.returncode == 1
    assert f"process {stack.process.pid}" in second.stdout
    assert [stack.pid(name) for name in PARTS] == before


@pytest.mark.parametrize("flag", ["--vote-port", "--result-port", "--admin-port"])
def test_a_port_in_use_is_found_before_anything_starts_and_the_message_names_the_flag(
    tmp_path: Path, flag: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        run = command("up", "--data", str(tmp_path / "data"), flag, str(taken.getsockname()[1]))
    assert run.returncode == 1
    assert f"choose another with {flag}" in run.stdout
    assert not (tmp_path / "data" / "log" / "valkey.log").exists()


@pytest.mark.parametrize("flags", [("--vote-port", "--result-port"), ("--result-port", "--admin-port")])
def test_two_services_on_one_port_are_refused_at_once(flags: tuple[str, str]) -> None:
    run = command("up", *(word for flag in flags for word in (flag, "50123")))
    assert run.returncode == 2
    for flag in flags:
        assert flag in run.stderr


def test_the_launcher_works_if_cdpath_is_set() -> None:
    root = Path(__file__).parents[2]
    environment = os.environ | {"CDPATH": str(root.parent)}  # noqa: TID251
    found = subprocess.run(
        [f"{root.name}/voting", "--help"], cwd=root.parent, capture_output=True, text=True, check=False, env=environment
    )
    assert "Usage: voting" in found.stdout, found.stderr


def test_a_bad_setting_ends_the_start_with_its_name(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", OPTIONS="just-one")
    process = stack.launch()
    assert process.wait(90) == 2
    assert "OPTIONS" in stack.output.read_text()


def test_a_signal_during_the_start_stops_it_cleanly(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data")
    process = stack.launch()
    eventually((stack.data / "run" / "postgres.pid").exists, within=30)
    pid = stack.pid("postgres")
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list((stack.data / "run").glob("*.pid")) == []


def test_the_options_come_from_the_environment_and_a_deep_data_directory_works(tmp_path: Path) -> None:
    deep = tmp_path / ("a-directory-with-a-long-name-" * 3) / "data"
    deep.parent.mkdir()
    stack = Stack(deep, workers=1, OPTIONS="Red,Green,Blue", POLL_QUESTION="Which?").start()
    assert httpx.post(stack.vote_url, data={"vote": "c"}).status_code == 200
    eventually(lambda: stack.tally() == {"a": 0, "b": 0, "c": 1})
    assert stack.results()["question"] == "Which?"
    assert stack.stop() == 0


def test_a_restart_with_other_options_changes_no_vote(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def shown(**settings: str) -> dict[str, int]:
        stack = Stack(data, workers=1, **settings).start()
        found = {option["label"]: option["votes"] for option in stack.results()["options"]}
        assert stack.stop() == 0
        return found

    assert shown() == {"Cats": 0, "Dogs": 0}
    stack = Stack(data, workers=1, OPTIONS="Red,Blue", POLL_QUESTION="Which?").start()
    eventually(lambda: "Red" in httpx.get(stack.vote_url).text)  # vote starts with what was published last
    keys = re.findall(r'name="vote" value="(\w+)"', httpx.get(stack.vote_url).text)
    for key in (keys[0], keys[0], keys[1]):
        assert httpx.post(stack.vote_url, data={"vote": key}).status_code == 200
    eventually(lambda: list(stack.tally().values()) == [2, 1])
    assert stack.stop() == 0
    assert shown() == {"Red": 2, "Blue": 1}
    refused = Stack(data, OPTIONS="Blue,Green")
    assert refused.launch().wait(60) == 2
    for line in (
        "of a poll that has votes: Red (2 votes). Nothing was changed.",
        "unset OPTIONS",
        "RENAME_OPTIONS='Red=New label'",
        "another data directory (--data)",
    ):
        assert line in refused.output.read_text()
    assert shown(OPTIONS="Blue,Green,Crimson", RENAME_OPTIONS="Red=Crimson") == {"Blue": 1, "Green": 0, "Crimson": 2}
    assert shown(RENAME_OPTIONS="Red=Crimson") == {"Blue": 1, "Green": 0, "Crimson": 2}


def test_browser_policy_counts_only_browsers_that_were_given_the_page(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data", workers=1, BALLOT_POLICY="browser").start()
    answer = httpx.post(stack.vote_url, data={"vote": "a"})
    assert answer.status_code == 403
    assert "cookies" in answer.text
    with httpx.Client(base_url=stack.vote_url) as browser:
        browser.get("/")
        assert browser.post("/", data={"vote": "a"}).status_code == 200
        browser.cookies.set("voter_id", "forged.forged", domain="127.0.0.1")
        assert httpx.post(stack.vote_url, data={"vote": "a"}, cookies={"voter_id": "x" * 45}).status_code == 403
    eventually(lambda: stack.tally() == {"a": 1, "b": 0})
    assert stack.stop() == 0


def test_files_and_sockets_are_private_to_the_user(stack: Stack) -> None:
    for name in ("log", "valkey", "postgres", "secret_key", "admin_key"):
        assert (stack.data / name).stat().st_mode & 0o077 == 0, name
    for sock in (stack.data / "run").glob("*.sock"):
        assert sock.stat().st_mode & 0o077 == 0, sock
    assert stack.data.stat().st_mode & 0o066 == 0


def test_the_link_to_admin_opens_it_stays_the_same_and_is_in_no_log(own: Stack) -> None:
    link = f"http://localhost:{own.admin_port}/?key={own.admin_key}"
    assert f"\n  Admin   {link}\n" in own.output.read_text()
    assert command("admin-link", "--data", str(own.data)).stdout == f"{link}\n"
    with httpx.Client() as browser:
        opened = browser.get(link)
        assert opened.status_code == 303
        assert own.admin_key not in opened.headers["location"]
        assert browser.get(f"http://localhost:{own.admin_port}/api/polls").status_code == 200
    assert httpx.get(own.admin_url).status_code == 401
    dead = own.kill("admin")
    eventually(lambda: own.pid("admin") != dead and httpx.get(own.admin_url).status_code == 401, within=20)
    assert own.stop() == 0
    assert not [log for log in (own.data / "log").iterdir() if own.admin_key in log.read_text()]
    own.start()
    assert f"  Admin   {link}\n" in own.output.read_text()


def test_admin_listens_on_this_machine_alone_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    bind = {"ADMIN_BIND": "127.0.0.2"}
    stack = Stack(tmp_path / "data", workers=1, **bind)
    stack.process = stack.launch("--host", "0.0.0.0")  # noqa: S104
    eventually(lambda: "Ready in" in stack.output.read_text(), within=60)
    try:
        assert httpx.get(f"http://127.0.0.2:{stack.admin_port}").status_code == 401
        with pytest.raises(httpx.ConnectError):
            httpx.get(stack.admin_url)
        assert f"  Admin   http://127.0.0.2:{stack.admin_port}/?key=" in stack.output.read_text()
        assert f"  Vote    http://localhost:{stack.vote_port}\n" in stack.output.read_text()
    finally:
        assert stack.stop() == 0


def test_status_exits_with_0_without_a_problem(stack: Stack) -> None:
    eventually(stack.drained)
    parts = ("broker", "database", "worker-1", "worker-2", "vote", "result", "admin")

    def is_well() -> bool:  # workers report once a second
        run = command("status", "--data", str(stack.data))
        return run.returncode == 0 and all(text in run.stdout for text in ("All is well.", *parts))

    eventually(is_well)


def test_status_names_a_problem(own: Stack) -> None:
    for name in ("worker-1", "worker-2"):
        os.kill(own.pid(name), signal.SIGSTOP)
    httpx.post(own.vote_url, data={"vote": "a"})
    found = json.loads(command("status", "--data", str(own.data), "--json").stdout)
    assert found["lag"] + found["pending"] == 1
    eventually(lambda: "No worker counts" in command("status", "--data", str(own.data)).stdout)
    for name in ("worker-1", "worker-2"):
        os.kill(own.pid(name), signal.SIGCONT)
    eventually(lambda: command("status", "--data", str(own.data)).returncode == 0)


def test_status_checks_the_stores_that_the_environment_names(stack: Stack, tmp_path: Path) -> None:
    state = stack.state
    urls = {"REDIS_URL": state["redis_url"], "DATABASE_URL": state["database_url"], "VOTE_URL": stack.vote_url}
    eventually(stack.drained)
    eventually(lambda: command("status", **urls).returncode == 0)
    nowhere = command("status", **(urls | {"REDIS_URL": f"unix://{tmp_path}/none.sock"}))
    assert nowhere.returncode == 1
    assert "does not answer" in nowhere.stdout


def test_status_with_nothing_running_names_the_command_that_starts_it(tmp_path: Path) -> None:
    run = command("status", "--data", str(tmp_path))
    assert run.returncode == 2
    assert "./voting up" in run.stderr


def test_a_service_with_bad_settings_names_all_of_them_and_exits_2() -> None:
    run = command("worker", REDIS_URL="nonsense", DATABASE_URL="nonsense", BATCH_SIZE="0")
    assert run.returncode == 2
    for name in ("REDIS_URL", "DATABASE_URL", "BATCH_SIZE"):
        assert name in run.stderr


def test_doctor_finds_nothing_in_what_up_runs_and_a_fault_by_its_fix(stack: Stack) -> None:
    eventually(stack.drained)

    def is_well() -> bool:
        run = command("doctor", "--data", str(stack.data))
        return run.returncode == 0 and "Nothing found." in run.stdout

    eventually(is_well)
    with stack.broker() as broker:
        broker.config_set("appendfsync", "everysec")
        run = command("doctor", "--data", str(stack.data), "--json")
        broker.config_set("appendfsync", "always")
    assert run.returncode == 1
    assert [each["fix"] for each in json.loads(run.stdout)["findings"]] == ["set appendfsync always"]


@pytest.mark.parametrize("name", ["doctor", "backup", "restore"])
def test_a_command_with_nothing_running_names_the_one_that_starts_it(tmp_path: Path, name: str) -> None:
    run = command(name, *([] if name == "doctor" else [str(tmp_path / "file")]), "--data", str(tmp_path))
    assert run.returncode == 2
    assert "./voting up" in run.stderr
