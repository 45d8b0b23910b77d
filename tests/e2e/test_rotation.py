"""Rotation of passwords while all services run, and of the cookie key while replicas restart in turn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from tests.e2e.service import Service
from tests.e2e.stack import free_port
from tests.integration.broker import Broker
from tests.integration.cluster import Cluster
from tests.waiting import eventually
from voting.operate.secrets import ACL


class Installation:
    """vote, worker and result with a Valkey and a PostgreSQL whose passwords are in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("valkey", "postgres"):
            (folder / name).mkdir()
        self.broker = Broker(folder / "valkey")
        self.cluster = Cluster(folder / "postgres")
        self.cluster.migrate(("worker", "first-w"), ("result", "first-r"))
        for user in ("vote", "worker"):
            self.new_redis_password(user, "first")
        for role in ("worker", "result"):
            self.write(f"{role}_database", self.cluster.url_of(f"voting_{role}", f"first-{role[0]}"))
        self.vote_port, self.result_port = free_port(), free_port()
        self.services = {name: self._service(name) for name in ("worker", "vote", "result")}

    def _service(self, name: str) -> Service:
        settings = {
            "REDIS_URL_FILE": str(self.folder / f"{name}_redis"),
            "DATABASE_URL_FILE": str(self.folder / f"{name}_database"),
            "SECRET_KEY": "k" * 40,
            "HOST": "127.0.0.1",
            "VOTE_PORT": str(self.vote_port),
            "RESULT_PORT": str(self.result_port),
        }
        return Service(name, self.folder, **settings)

    def write(self, name: str, url: str) -> None:
        """Replace the file of an address, as a rotation does."""
        (self.folder / f"{name}.new").write_text(url)
        (self.folder / f"{name}.new").rename(self.folder / name)

    def new_redis_password(self, user: str, password: str) -> None:
        """Change a user's password in Valkey alone, end its sessions, and put it into the file."""
        self.change_redis_password(user, password)
        self.write(f"{user}_redis", f"unix://{user}:{password}@{self.broker.folder}/valkey.sock")

    def change_redis_password(self, user: str, password: str) -> None:
        """Change a user's password in Valkey alone, and end its sessions."""
        with redis.Redis.from_url(self.broker.url) as client:
            rights = ["on", "resetpass", f">{password}", "resetkeys", *ACL[user].split()]
            client.execute_command("ACL", "SETUSER", user, *rights)
            client.execute_command("CLIENT", "KILL", "USER", user)

    def change_database_password(self, role: str, password: str) -> None:
        """Change a role's password in PostgreSQL alone, and end its sessions."""
        self.cluster.execute(f"ALTER ROLE voting_{role} PASSWORD '{password}'")
        self.cluster.end_sessions(f"voting_{role}")

    def replica(self, **keys: str) -> "Replica":
        """Start one more vote service, with keys of its own."""
        settings = {"REDIS_URL_FILE": str(self.folder / "vote_redis"), "HOST": "127.0.0.1"}
        return Replica(self.folder, **settings, **keys)

    def vote(self) -> int:
        """Vote; return the status of the answer, 0 for none."""
        try:
            return httpx.post(f"http://127.0.0.1:{self.vote_port}/", data={"vote": "a"}).status_code
        except httpx.TransportError:
            return 0

    def shown(self) -> tuple[int, bool]:
        """The total that result shows, and whether it is fresh."""
        answer = httpx.get(f"http://127.0.0.1:{self.result_port}/api/results")
        snapshot = answer.raise_for_status().json()
        return snapshot["total"], snapshot["stale_since"] is None

    def log(self, name: str) -> str:
        """Return the log of a service."""
        return self.services[name].log

    def close(self) -> None:
        """Stop everything; fail if a service had ended before."""
        ended = {name: service.process.poll() for name, service in self.services.items()}
        codes = {name: service.stop() for name, service in self.services.items()}
        self.broker.kill()
        self.cluster.stop()
        assert set(ended.values()) == {None}, ended
        assert set(codes.values()) == {0}, codes


class Replica:
    """One of several vote services."""

    def __init__(self, folder: Path, **settings: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._service = Service("vote", folder, VOTE_PORT=str(port), **settings)
        eventually(lambda: httpx.get(f"{self.url}/readyz").status_code == 200)

    def stop(self) -> None:
        """Stop it."""
        assert self._service.stop() == 0


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    started = Installation(tmp_path_factory.mktemp("rotation"))
    try:
        eventually(lambda: started.vote() == 200)
        eventually(lambda: started.shown() == (1, True))
        yield started
    finally:
        started.close()


def test_a_database_password_is_changed_without_a_restart(installation: Installation) -> None:
    total, _ = installation.shown()
    for role in ("worker", "result"):
        installation.change_database_password(role, "second")
    eventually(lambda: not installation.shown()[1])
    assert installation.vote() == 200
    eventually(lambda: "password authentication failed" in installation.log("worker"))
    assert installation.shown() == (total, False)
    for role in ("worker", "result"):
        installation.write(f"{role}_database", installation.cluster.url_of(f"voting_{role}", "second"))
    eventually(lambda: installation.shown() == (total + 1, True), within=30)


def test_a_redis_password_is_changed_without_a_restart(installation: Installation) -> None:
    total, _ = installation.shown()
    for user in ("vote", "worker"):
        installation.change_redis_password(user, "second")
    eventually(lambda: installation.vote() == 503)
    eventually(lambda: "invalid username-password" in installation.log("worker"))
    eventually(lambda: "invalid username-password" in installation.log("vote"))
    for user in ("vote", "worker"):
        installation.new_redis_password(user, "second")
    eventually(lambda: installation.vote() == 200, within=30)
    eventually(lambda: installation.shown() == (total + 1, True), within=30)


def test_a_password_that_is_in_place_before_the_sessions_end_costs_no_vote(installation: Installation) -> None:
    total, _ = installation.shown()
    installation.write("worker_database", installation.cluster.url_of("voting_worker", "third"))
    installation.change_database_password("worker", "third")
    assert installation.vote() == 200
    eventually(lambda: installation.shown() == (total + 1, True), within=30)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(installation.cluster.url_of("voting_worker", "second"))


OLD, NEW = "o" * 40, "n" * 40
SIGNS_OLD = {"SECRET_KEY": OLD}
ACCEPTS_NEW = {"SECRET_KEY": OLD, "SECRET_KEY_OLD": NEW}
SIGNS_NEW = {"SECRET_KEY": NEW, "SECRET_KEY_OLD": f"{OLD} until 2999-12-31"}


def test_a_browser_stays_one_voter_while_replicas_change_the_key_one_after_another(installation: Installation) -> None:
    """Accept the new key on all replicas, then sign with it: each browser votes at each replica at every step."""
    before, _ = installation.shown()
    with contextlib.ExitStack() as stack:
        browsers: list[httpx.Client] = []

        def everyone_votes(replicas: list[Replica]) -> None:
            for replica in replicas:  # a new browser comes to each
                browsers.append(stack.enter_context(httpx.Client()))
                assert "voter_id" in browsers[-1].get(replica.url).cookies
            for browser in browsers:
                for replica in replicas:
                    answer = browser.post(replica.url, data={"vote": "a"})
                    assert answer.status_code == 200
                    assert "set-cookie" not in answer.headers

        replicas = [installation.replica(**SIGNS_OLD) for _ in range(2)]
        everyone_votes(replicas)
        for keys in (ACCEPTS_NEW, SIGNS_NEW):
            for number in range(2):
                replicas[number].stop()
                replicas[number] = installation.replica(**keys)
                everyone_votes(replicas)
        for replica in replicas:
            replica.stop()
    assert len(browsers) == 10
    eventually(lambda: installation.shown() == (before + len(browsers), True))


def test_no_password_is_in_a_log(installation: Installation) -> None:
    for name in installation.services:
        for word in ("first", "second", "third"):
            assert word not in installation.log(name).replace("first vote", "")
