"""The Compose stack on a real engine: order of start, isolation, rights, restarts, backup and rotation."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.e2e.compose import Compose, docker, inspect
from tests.e2e.load import LoadGenerator
from tests.waiting import PLAIN, eventually

IMAGE = "voting:0.1.0"
SERVICES = ["vote", "result", "admin", "worker", "redis", "db"]
OURS = ["vote", "result", "admin", "worker"]


@pytest.fixture(scope="module")
def compose(engine: None) -> Iterator[Compose]:  # noqa: ARG001
    project = Compose(f"voting-test-{os.getpid()}")
    project.run("--profile", "seed", "build", timeout=900)
    try:
        project.up()
        yield project
    finally:
        project.run("--profile", "seed", "down", "-v", "--remove-orphans")


def time_of(compose: Compose, service: str, field: str) -> str:
    return str(inspect(compose.containers(service)[0], "{{.State." + field + "}}"))


def delete_votes(compose: Compose) -> None:
    compose.sql("DELETE FROM votes; UPDATE tallies SET votes = 0")


def votes(compose: Compose, choice: str) -> bool:
    """Vote as a new voter; return whether the vote was accepted."""
    return httpx.post(compose.vote_url, data={"vote": choice}, verify=PLAIN).status_code == 200


@pytest.mark.usefixtures("engine")
def test_the_file_is_valid() -> None:
    Compose("voting-check").run("config", "-q")


def test_it_comes_up_healthy_from_nothing_and_in_order(compose: Compose) -> None:
    for service in SERVICES:
        assert inspect(compose.containers(service)[0], "{{.State.Health.Status}}") == "healthy"
        assert inspect(compose.containers(service)[0], "{{.RestartCount}}") == "0"
    for one_shot in ("secrets", "migrate"):
        assert inspect(compose.containers(one_shot)[0], "{{.State.ExitCode}}") == "0"
    assert time_of(compose, "secrets", "FinishedAt") < time_of(compose, "db", "StartedAt")
    assert time_of(compose, "db", "StartedAt") < time_of(compose, "migrate", "StartedAt")
    assert time_of(compose, "migrate", "FinishedAt") < time_of(compose, "worker", "StartedAt")
    assert time_of(compose, "worker", "StartedAt") < time_of(compose, "vote", "StartedAt")


def test_a_vote_travels_through_the_published_ports(compose: Compose) -> None:
    with connect(f"ws://127.0.0.1:{compose.result_port}/ws") as socket:
        before = json.loads(socket.recv(timeout=30))
        answer = httpx.post(compose.vote_url, data={"vote": "a"}, headers={"accept": "application/json"})
        assert answer.status_code == 200
        while (after := json.loads(socket.recv(timeout=30)))["total"] == before["total"]:
            pass
    assert after["total"] == before["total"] + 1


def test_the_classic_seed_is_exact(compose: Compose) -> None:
    before = compose.tally()
    output = compose.run("run", "--rm", "seed")
    assert "3000 accepted, 0 refused or failed" in output
    assert "exactly as many as were sent" in output
    assert compose.tally() == {"a": before["a"] + 2000, "b": before["b"] + 1000}


def test_the_seed_fails_where_there_is_no_ballot(compose: Compose) -> None:
    output = compose.run("run", "--rm", "-e", "VOTES_A=2", "-e", "VOTES_B=1", "-e", "WAIT=1", "-e", "VOTE_URL=http://result:8081",
                       "seed", check=False)  # fmt: skip
    assert "http://result:8081/ shows no ballot" in output
    assert "exactly as many" not in output


CONNECT = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.partition(':')
    try: socket.create_connection((host, int(port)), 2).close()
    except OSError as error: print(target, type(error).__name__)
    else: print(target, "reached")
"""


def connections_from(compose: Compose, tier: str, *targets: str) -> dict[str, str]:
    """Connect to each host:port from a container in one tier; return "reached" or the exception's name for each."""
    network = f"{compose.name}_{tier}"
    output = docker("run", "--rm", "--network", network, "--entrypoint", "python", IMAGE, "-c", CONNECT, *targets)
    return dict(line.split() for line in output.splitlines())


def address(compose: Compose, service: str, tier: str) -> str:
    template = '{{(index .NetworkSettings.Networks "' + f"{compose.name}_{tier}" + '").IPAddress}}'
    return str(inspect(compose.containers(service)[0], template))


def test_the_stores_cannot_be_reached_from_the_front_tier_and_the_back_tier_has_no_way_out(compose: Compose) -> None:
    names = ["redis:6379", "db:5432"]
    addresses = [f"{address(compose, 'redis', 'back-tier')}:6379", f"{address(compose, 'db', 'back-tier')}:5432"]
    outside = f"{address(compose, 'vote', 'front-tier')}:8080"
    front = connections_from(compose, "front-tier", *names, *addresses, outside)
    back = connections_from(compose, "back-tier", *names, *addresses, outside)
    assert {front[name] for name in names} == {"gaierror"}
    assert "reached" not in {front[each] for each in addresses}
    assert {back[each] for each in (*names, *addresses)} == {"reached"}
    assert front[outside] == "reached"
    assert back[outside] != "reached"


def test_only_three_ports_are_published_and_that_of_admin_for_this_machine_alone(compose: Compose) -> None:
    published = {
        service: inspect(compose.containers(service)[0], "{{json .HostConfig.PortBindings}}") for service in SERVICES
    }
    for service in ("worker", "redis", "db"):
        assert published[service] in {"{}", "null"}
    assert list(json.loads(published["vote"])) == ["8080/tcp"]
    assert list(json.loads(published["result"])) == ["8081/tcp"]
    ((port, bindings),) = json.loads(published["admin"]).items()
    assert port == f"{compose.admin_port}/tcp"
    assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_not_root_has_no_capability_and_cannot_write_its_own_image(
    compose: Compose, service: str
) -> None:
    lines = compose.execute(service, "cat", "/proc/1/status", "/proc/mounts").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["Uid"].split()[0] != "0"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    root = next(line for line in lines if line.split()[1:2] == ["/"])
    assert root.split()[3].startswith("ro")


def test_each_container_holds_only_its_own_secrets(compose: Compose) -> None:
    held = {
        "vote": {"secret_key", "secret_key_old", "redis_url"},
        "worker": {"redis_url", "database_url"},
        "result": {"database_url"},
        "admin": {"database_url", "admin_key", "webhook_key"},
        "redis": {"users.acl", "health_password"},
        "db": {"password"},
    }
    for service, names in held.items():
        assert set(compose.execute(service, "ls", "/run/secrets").split()) == names
    values = [
        compose.execute("vote", "cat", "/run/secrets/secret_key"),
        compose.execute("db", "cat", "/run/secrets/password"),
        compose.execute("admin", "cat", "/run/secrets/admin_key"),
    ]
    for service in held:
        shown = docker("inspect", compose.containers(service)[0])
        assert not any(value in shown for value in values)


REDIS = """
import redis, pathlib
client = redis.Redis.from_url(pathlib.Path('/run/secrets/redis_url').read_text())
for command in {commands!r}:
    try: client.execute_command(*command)
    except redis.exceptions.NoPermissionError: print('refused', command[0])
    except redis.exceptions.ResponseError as error: print('failed', command[0], error)
    else: print('allowed', command[0])
"""


def test_vote_may_only_add_votes_and_read_polls(compose: Compose) -> None:
    refused = [
        ("XRANGE", "votes", "-", "+"), ("XREADGROUP", "GROUP", "workers", "x", "STREAMS", "votes", ">"),
        ("XTRIM", "votes", "MAXLEN", 0), ("HSET", "polls", "x", "y"), ("SET", "x", "y"), ("KEYS", "*"), ("FLUSHALL",),
        ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("XADD", "other", "*", "a", "b"), ("EVAL", "return 1", 0),
        ("SHUTDOWN",), ("DEL", "votes"),
    ]  # fmt: skip
    output = compose.python("vote", REDIS.format(commands=[*refused, ("PING",), ("HGETALL", "polls")]))
    assert output.split("\n")[:-1] == [
        *(f"refused {command[0]}" for command in refused),
        "allowed PING",
        "allowed HGETALL",
    ]


def test_the_worker_may_not_add_votes_or_administrate(compose: Compose) -> None:
    refused = [("XADD", "votes", "*", "a", "b"), ("FLUSHALL",), ("CONFIG", "SET", "save", ""), ("KEYS", "*"),
               ("GET", "other"), ("SET", "polls", "x"), ("DEL", "other"),
               ("ACL", "WHOAMI"), ("XTRIM", "votes", "MAXLEN", 0)]  # fmt: skip
    output = compose.python("worker", REDIS.format(commands=[*refused, ("XINFO", "STREAM", "votes")]))
    assert output.split("\n")[:-1] == [*(f"refused {command[0]}" for command in refused), "allowed XINFO"]


def test_nobody_gets_in_without_a_password(compose: Compose) -> None:
    program = "import redis; redis.Redis.from_url('redis://redis').ping()  # without retries"
    assert "AuthenticationError" in compose.python("worker", program, check=False)
    program = "import psycopg; psycopg.connect('postgresql://voting@db/voting', password='guess')"
    assert "password authentication failed" in compose.python("worker", program, check=False)


DATABASE = """
import psycopg, pathlib
with psycopg.connect(pathlib.Path('/run/secrets/database_url').read_text(), autocommit=True) as connection:
    for statement in {statements!r}:
        try: connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege: print('refused')
        else: print('allowed')
"""


@pytest.mark.parametrize(
    ("service", "allowed", "refused"),
    [
        (
            "result",
            ["SELECT * FROM tallies", "SELECT * FROM polls", "SELECT * FROM workers", "LISTEN tallies"],
            ["SELECT * FROM votes", "SELECT * FROM dead_letters", "INSERT INTO tallies VALUES ('default', 'a', 1)",
             "UPDATE tallies SET votes = 0", "DELETE FROM workers", "CREATE TABLE x ()", "CREATE ROLE x"],
        ),
        (
            "admin",
            ["SELECT * FROM polls", "SELECT * FROM tallies", "SELECT * FROM audit"],
            ["SELECT * FROM votes", "DELETE FROM votes", "UPDATE tallies SET votes = 0", "SELECT * FROM dead_letters",
             "DELETE FROM audit", "UPDATE polls SET revision = 1", "UPDATE polls SET changed = 1", "CREATE TABLE x ()",
             "CREATE ROLE x"],
        ),
        (
            "worker",
            ["SELECT * FROM votes LIMIT 1", "SELECT * FROM polls", "UPDATE polls SET revision = revision"],
            ["DELETE FROM votes", "TRUNCATE votes", "UPDATE polls SET question = 'x'", "DELETE FROM dead_letters",
             "INSERT INTO polls (slug, question, options) VALUES ('x', 'x', '[]')", "DROP TABLE votes",
             "INSERT INTO installation DEFAULT VALUES",
             "CREATE ROLE x"],
        ),
    ],
)  # fmt: skip
def test_each_role_may_do_its_own_work_and_nothing_else(
    compose: Compose, service: str, allowed: list[str], refused: list[str]
) -> None:
    output = compose.python(service, DATABASE.format(statements=[*allowed, *refused])).split()
    assert output == ["allowed"] * len(allowed) + ["refused"] * len(refused)


def test_vote_uses_its_cores_and_its_metrics_are_those_of_all_processes(compose: Compose) -> None:
    read = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9100/metrics').read().decode())"

    def accepted() -> float:
        lines = compose.python("vote", read).splitlines()
        return sum(float(line.split()[1]) for line in lines if line.startswith("voting_votes_accepted_total"))

    before = accepted()
    with httpx.Client(headers={"connection": "close"}) as client:
        for _ in range(40):
            eventually(lambda: client.post(compose.vote_url, data={"vote": "a"}).status_code == 200)
    assert {accepted() for _ in range(6)} == {before + 40}
    processes = compose.execute("vote", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert processes.count("voting vote") >= 3


def test_four_workers_stay_exact_and_one_can_be_taken_away(compose: Compose) -> None:
    delete_votes(compose)
    with LoadGenerator(compose.vote_url, voters=8).running() as load:
        compose.up("--scale", "worker=4", "--no-recreate")
        assert len(compose.containers("worker")) == 4
        load.wait_for_votes(300)
        compose.up("--scale", "worker=1", "--no-recreate")
        load.wait_for_votes(100)
    eventually(compose.drained, within=30)
    load.check(compose.rows(), compose.execute("vote", "cat", "/run/secrets/secret_key"))
    assert load.statuses <= {200, 503}
    assert all('"broker_silent"' in refusal for refusal in load.refusals)  # the disk of a busy machine took a second


def test_killing_and_restarting_all_containers_loses_nothing(compose: Compose) -> None:
    delete_votes(compose)
    with LoadGenerator(compose.vote_url, voters=6).running() as load:
        load.wait_for_votes()
        compose.run("kill", "-s", "KILL", *SERVICES)
        compose.up("--no-recreate")
        load.wait_for_votes()
    eventually(compose.drained, within=30)
    load.check(compose.rows(), compose.execute("vote", "cat", "/run/secrets/secret_key"))
    assert load.statuses <= {200, 503}


def test_redis_replays_its_file_whole_and_nothing_that_was_counted_comes_back(compose: Compose) -> None:
    assert votes(compose, "a")
    eventually(compose.drained, within=30)
    compose.run("stop", "worker")
    compose.run("kill", "-s", "KILL", "redis")
    compose.run("up", "-d", "--wait", "--no-recreate", "redis")
    compose.up("--no-recreate")
    assert "CRITICAL" not in compose.run("logs", "redis")
    assert '"lag": 0' in compose.execute("worker", "voting", "status", "--json")
    processed = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100/metrics').read().decode())"
    assert "voting_entries_processed_total 0.0" in compose.python("worker", processed)


def test_restarting_worker_and_vote_under_load_loses_no_acknowledged_vote(compose: Compose) -> None:
    delete_votes(compose)
    with LoadGenerator(compose.vote_url, voters=6).running() as load:
        load.wait_for_votes()
        for service in ("worker", "vote"):
            compose.run("restart", service)
            assert inspect(compose.containers(service)[0], "{{.State.ExitCode}}") == "0"
            compose.up("--no-recreate")
            load.wait_for_votes()
    eventually(compose.drained, within=30)
    load.check(compose.rows(), compose.execute("vote", "cat", "/run/secrets/secret_key"))


def test_dependants_wait_for_a_slow_store_and_do_not_crash(compose: Compose) -> None:
    signal_redis = "kill -$0 $(grep -lx redis-server /proc/[0-9]*/comm | cut -d/ -f3)"
    compose.run("stop", *OURS)
    container = compose.containers("redis")[0]
    compose.execute("redis", "sh", "-c", signal_redis, "STOP")
    try:
        eventually(lambda: inspect(container, "{{.State.Health.Status}}") == "unhealthy", within=60)
        assert "unhealthy" in compose.run("up", "-d", "--no-recreate", check=False)
        assert inspect(compose.containers("worker")[0], "{{.State.Running}}") == "false"
    finally:
        compose.execute("redis", "sh", "-c", signal_redis, "CONT")
    eventually(lambda: inspect(container, "{{.State.Health.Status}}") == "healthy", within=60)
    compose.up("--no-recreate")
    for service in OURS:
        assert inspect(compose.containers(service)[0], "{{.RestartCount}}") == "0"


def test_a_missing_or_wrong_secret_is_named(compose: Compose) -> None:
    output = compose.run("run", "--rm", "--no-deps", "-e", "SECRET_KEY_FILE=/run/secrets/none", "vote", check=False)
    assert "SECRET_KEY_FILE: /run/secrets/none cannot be read" in output
    output = compose.run("run", "--rm", "--no-deps", "-e", "DATABASE_URL_FILE=", "-e", "DATABASE_URL=postgresql://voting:no@db/voting",
                       "migrate", check=False)  # fmt: skip
    assert "password authentication failed" in output


def test_the_link_to_admin_is_printed_where_compose_runs_and_its_key_is_in_no_log(compose: Compose) -> None:
    link = compose.execute("admin", "voting", "admin-link").strip()
    key = compose.execute("admin", "cat", "/run/secrets/admin_key").strip()
    assert link == f"http://localhost:{compose.admin_port}/?key={key}"
    with httpx.Client() as browser:
        assert browser.get(link).status_code == 303
        assert browser.get(f"http://localhost:{compose.admin_port}/api/polls").status_code == 200
    assert httpx.get(compose.admin_url).status_code == 401
    headers = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{compose.admin_url}/api/polls", headers=headers).status_code == 200
    assert key not in compose.run("logs")


def test_a_key_of_admin_in_the_environment_is_refused_with_the_file_where_it_belongs(compose: Compose) -> None:
    wrong = Compose(compose.name, ADMIN_KEY="k" * 32, WEBHOOK_KEY="w" * 32)
    output = wrong.run("run", "--rm", "--no-deps", "admin", check=False)
    for name in ("ADMIN_KEY", "WEBHOOK_KEY"):
        assert f"{name}_FILE: /run/secrets/{name.lower()}:-move-{name}-into-this-file cannot be read" in output


def test_secrets_of_ones_own_are_used_and_bad_ones_refused(compose: Compose, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "secret_key").write_text("my own key, with spaces and so unusable")
    output = Compose(compose.name, SECRETS_DIR=str(tmp_path)).run("run", "--rm", "secrets", check=False)
    assert "secret_key: use at least 32 letters" in output
    (tmp_path / "secret_key").write_text("k" * 40)
    kept = compose.execute("vote", "cat", "/run/secrets/secret_key")
    output = Compose(compose.name, SECRETS_DIR=str(tmp_path)).run("run", "--rm", "secrets")
    assert "new: secret_key" in output
    assert compose.execute("vote", "cat", "/run/secrets/secret_key") == "k" * 40 != kept


def test_the_doctor_finds_nothing_in_a_healthy_stack(compose: Compose) -> None:
    eventually(compose.drained, within=30)
    assert "Nothing found." in compose.execute("worker", "voting", "doctor")


def test_the_database_lost_with_its_volume_comes_back_from_a_backup_and_votes_wait_meanwhile(
    compose: Compose, tmp_path: Path
) -> None:
    for choice in "aab":
        httpx.post(compose.vote_url, data={"vote": choice})
    eventually(compose.drained, within=30)
    before, tally = compose.rows(), compose.tally()
    compose.pipe("exec", "-T", "worker", "voting", "backup", "-", target=tmp_path / "votes.tar.gz")

    compose.run("stop", "worker")
    compose.run("rm", "-sfv", "db")
    docker("volume", "rm", f"{compose.name}_db-data")
    assert votes(compose, "b")
    compose.run("run", "--rm", "migrate")
    compose.pipe("run", "--rm", "-T", "migrate", "restore", "-", source=tmp_path / "votes.tar.gz")
    assert compose.rows() == before
    compose.run("start", "worker")
    eventually(lambda: compose.tally() == tally | {"b": tally["b"] + 1}, within=60)
    eventually(compose.drained, within=30)
    compose.up("--no-recreate")


NEXT_MAJOR = """
services:
  db: { environment: { PGDATA: /var/lib/postgresql/19/docker } }
"""


def test_an_image_of_the_next_major_version_is_not_counted_into_until_a_backup_is_restored(
    compose: Compose, tmp_path: Path
) -> None:
    """Each major version of the image has a folder of its own on the volume: so has this one, with another PGDATA."""
    assert votes(compose, "a")
    eventually(compose.drained, within=30)
    tally = compose.tally()
    (tmp_path / "next.yaml").write_text(NEXT_MAJOR)
    ports = {"VOTE_PORT": compose.vote_port, "RESULT_PORT": compose.result_port, "ADMIN_PORT": compose.admin_port}
    upgraded = Compose(
        compose.name,
        files=("tests/e2e/quick-probes.yaml", f"{tmp_path}/next.yaml"),
        **{name: str(port) for name, port in ports.items()},
    )

    upgraded.run("up", "-d", check=False)
    eventually(lambda: "installation.mismatch" in compose.run("logs", "worker"), within=120)
    assert votes(compose, "b")
    assert "voting restore" in compose.execute("worker", "voting", "status", check=False)
    assert compose.rows() == {}
    eventually(lambda: inspect(compose.containers("worker")[0], "{{.State.Health.Status}}") == "unhealthy", within=60)

    compose.run("up", "-d", check=False)  # the old image again
    eventually(lambda: compose.tally() == tally | {"b": tally["b"] + 1}, within=120)
    eventually(compose.drained, within=30)
    before, tally = compose.rows(), compose.tally()

    compose.run("stop", "worker")  # docs/operations.md, the next major version of PostgreSQL
    compose.pipe("run", "--rm", "-T", "migrate", "backup", "-", target=tmp_path / "votes.tar.gz")
    assert votes(compose, "a")
    upgraded.run("up", "-d", "--wait", "db")
    upgraded.run("run", "--rm", "migrate")
    upgraded.pipe("run", "--rm", "-T", "migrate", "restore", "-", source=tmp_path / "votes.tar.gz")
    assert compose.rows() == before
    upgraded.up()
    eventually(lambda: compose.tally() == tally | {"a": tally["a"] + 1}, within=60)
    eventually(compose.drained, within=30)
    assert "Nothing found." in compose.execute("worker", "voting", "doctor")
    compose.up()


def test_every_password_is_rotated_without_recreating_a_service(compose: Compose, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    started = {service: time_of(compose, service, "StartedAt") for service in OURS}
    for name in ("redis_vote", "redis_worker", "redis_health", "postgres_worker", "postgres_result", "postgres_admin"):
        (tmp_path / f"{name}_password").write_text(f"rotated-{os.urandom(16).hex()}")
    rotating = Compose(compose.name, SECRETS_DIR=str(tmp_path))
    assert "new: redis_vote_password" in rotating.run("run", "--rm", "secrets")
    rotating.run("run", "--rm", "migrate")
    rotating.run("restart", "redis")
    eventually(lambda: all(votes(compose, "a") for _ in range(20)), within=60)  # by each of its processes
    total = sum(compose.tally().values())
    compose.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'voting_%'")
    assert votes(compose, "a")
    eventually(lambda: sum(compose.tally().values()) > total, within=60)
    headers = {"authorization": f"Bearer {compose.execute('admin', 'cat', '/run/secrets/admin_key').strip()}"}
    eventually(lambda: httpx.get(f"{compose.admin_url}/api/polls", headers=headers).status_code == 200)
    eventually(compose.drained, within=30)
    for service in OURS:
        assert time_of(compose, service, "StartedAt") == started[service]
        assert inspect(compose.containers(service)[0], "{{.RestartCount}}") == "0"


def test_down_and_up_keep_the_votes_and_down_v_forgets_them(compose: Compose) -> None:
    delete_votes(compose)
    assert votes(compose, "b")
    eventually(lambda: compose.tally()["b"] == 1)
    compose.run("stop")
    for service in OURS:
        assert inspect(compose.containers(service)[0], "{{.State.ExitCode}}") == "0", (
            "it was killed after its time limit"
        )
    compose.run("down")
    compose.up()
    assert compose.tally() == {"a": 0, "b": 1}
    volumes = ["volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={compose.name}"]
    assert docker(*volumes)
    compose.run("down", "-v")
    assert not docker(*volumes)
