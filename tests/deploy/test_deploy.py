"""`deploy/deploy.sh` on a real engine: a release takes over under votes, and one that does not work is taken back."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.registry import Registry
from tests.e2e.compose import ROOT, Compose, docker, inspect
from tests.e2e.load import LoadGenerator
from tests.waiting import eventually

NAME = f"voting-deploy-{os.getpid()}"

# A release that differs from this one, and one whose vote service ends at once (its worker works).
OTHER = "LABEL release=other"
BROKEN = """USER 0:0
RUN rm -r /opt/voting/lib/python3*/site-packages/voting/vote
USER 10001:10001"""


class Installation:
    """What an instance has below /opt/voting: releases, the link to the one that serves, and a Compose project."""

    def __init__(self, folder: Path) -> None:
        self.releases, self.current = folder / "releases", folder / "current"
        self.compose = Compose(NAME)
        self._environment = os.environ | {"COMPOSE_PROJECT_NAME": NAME, "DEPLOY_PATIENCE": "240"}  # noqa: TID251

    def unpack(self, version: str, **different: str) -> Path:
        """A release in its place, with settings."""
        release = self.releases / version
        release.mkdir(parents=True)
        for part in ("compose.yaml", "healthchecks", "secrets", "deploy"):
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            copy(ROOT / part, release / part)
        settings = {
            "VOTING_IMAGE": NAME,
            "VOTING_VERSION": version,
            "BIND": "127.0.0.1",
            "VOTE_PORT": self.compose.vote_port,
            "RESULT_PORT": self.compose.result_port,
            "ADMIN_PORT": self.compose.admin_port,
        } | different
        (release / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
        return release

    def deploy(self, version: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the release's own deploy.sh."""
        return subprocess.run(
            [self.releases / version / "deploy" / "deploy.sh", self.current, *arguments],
            env=self._environment | {"VOTING_VERSION": "of-the-environment"} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )

    def run(self, *arguments: str) -> None:
        """`docker compose ...` where an operator runs it: in the directory that the link leads to."""
        environment = self._environment | {"PWD": str(self.current)}
        subprocess.run(["docker", "compose", *arguments], cwd=self.current, env=environment, check=True, timeout=120)

    def images(self) -> set[str]:
        """The versions that run."""
        services = ("vote", "result", "admin", "worker")
        return {
            inspect(each, "{{.Config.Image}}").split(":")[1]
            for service in services
            for each in self.compose.containers(service)
        }

    def secret_key(self) -> str:
        """With which voters' names are made."""
        return self.compose.execute("vote", "cat", "/run/secrets/secret_key")


def variant(tag: str, difference: str) -> None:
    dockerfile = f"FROM {NAME}:0.1.0\n{difference}\n"
    subprocess.run(
        ["docker", "build", "-q", "-t", f"{NAME}:{tag}", "-"], input=dockerfile, text=True, check=True, timeout=120
    )


@pytest.fixture(scope="module")
def installation(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:  # noqa: ARG001
    """Release 0.1.0 serves."""
    subprocess.run(["docker", "build", "-q", "-t", f"{NAME}:0.1.0", ROOT], check=True, timeout=900)
    variant("0.2.0", OTHER)
    variant("0.3.0", BROKEN)
    made = Installation(tmp_path_factory.mktemp("opt"))
    made.unpack("0.1.0")
    try:
        first = made.deploy("0.1.0")
        assert first.returncode == 0, first.stdout + first.stderr
        yield made
    finally:
        made.compose.run("down", "-v", "--remove-orphans")
        for tag in ("0.1.0", "0.2.0", "0.3.0", "0.4.0"):
            subprocess.run(["docker", "image", "rm", "-f", f"{NAME}:{tag}"], capture_output=True, check=False)


def test_a_release_takes_over_under_votes_and_its_stores_are_left_alone(installation: Installation) -> None:
    compose = installation.compose
    assert installation.images() == {"0.1.0"}
    installation.run("up", "-d", "--no-build", "--wait", "--no-recreate", "--scale", "worker=2")
    stores = [compose.containers(store) for store in ("redis", "db")]
    compose.sql("INSERT INTO dead_letters VALUES (1, 0, 'x', 'y', now() - interval '1 hour')")  # does not count
    installation.unpack("0.2.0")
    with LoadGenerator(compose.vote_url, voters=4).running() as load:
        load.wait_for_votes()
        done = installation.deploy("0.2.0")
        assert done.returncode == 0, done.stdout + done.stderr
        load.wait_for_votes()
    assert installation.images() == {"0.2.0"}
    assert installation.current.resolve().name == "0.2.0"
    assert [compose.containers(store) for store in ("redis", "db")] == stores
    assert len(compose.containers("worker")) == 2
    eventually(compose.drained, within=30)
    load.check(compose.rows(), installation.secret_key())
    assert load.statuses <= {200, 503}


def test_a_release_that_does_not_work_is_taken_back_and_no_vote_is_lost(installation: Installation) -> None:
    compose = installation.compose
    before = installation.current.resolve().name
    versions = installation.images()
    installation.unpack("0.3.0")
    compose.sql("DELETE FROM votes; UPDATE tallies SET votes = 0")
    with LoadGenerator(compose.vote_url, voters=4).running() as load:
        load.wait_for_votes()
        done = installation.deploy("0.3.0", DEPLOY_PATIENCE="600")  # a service that ends by itself is not waited for
        assert done.returncode == 1
        load.wait_for_votes()
    assert "going back to" in done.stderr
    assert "No module named 'voting.vote'" in done.stdout + done.stderr  # why, as the log has it
    assert installation.current.resolve().name == before
    assert installation.images() == versions
    eventually(compose.drained, within=30)
    load.check(compose.rows(), installation.secret_key())
    assert load.statuses <= {200, 503}


def test_a_release_that_dead_letters_come_with_is_taken_back(installation: Installation) -> None:
    before = installation.current.resolve().name
    installation.unpack("0.5.0", VOTING_VERSION="0.1.0")
    installation.compose.sql("INSERT INTO dead_letters VALUES (2, 0, 'x', 'y', now() + interval '1 hour')")
    try:
        done = installation.deploy("0.5.0", DEPLOY_PATIENCE="60")
    finally:
        installation.compose.sql("DELETE FROM dead_letters WHERE entry_ms = 2")
    assert done.returncode == 1
    assert "1 malformed entries became dead letters" in done.stdout
    assert "going back to" in done.stderr
    assert installation.current.resolve().name == before


def test_exactly_the_image_that_is_named_is_pulled_and_wrong_settings_change_nothing(
    installation: Installation,
) -> None:
    before = installation.current.resolve()
    with Registry() as registry:
        installation.unpack("0.4.0", VOTING_IMAGE=registry.image, VOTE_PORT="nonsense")
        packed = installation.releases / "0.4.0" / "deploy" / "digest"
        packed.write_text(f"sha256:{'0' * 64}\n")
        done = installation.deploy("0.4.0", registry.digest)
        assert done.returncode == 1
        assert f", not {registry.digest}" in done.stderr
        done = installation.deploy("0.4.0")
        assert done.returncode == 1
        assert "cannot get the image" in done.stderr
        packed.write_text(f"{registry.digest}\n")
        done = installation.deploy("0.4.0")
        assert done.returncode == 1
        assert "0.4.0/.env are wrong" in done.stderr
        pulled = docker("image", "inspect", "-f", "{{json .RepoDigests}}", f"{registry.image}:0.4.0")
        assert registry.digest in pulled
        docker("image", "rm", "-f", f"{registry.image}:0.4.0", f"{registry.image}@{registry.digest}")
    assert installation.current.resolve() == before


def test_two_deployments_at_once_are_refused(installation: Installation) -> None:
    with Path(f"{installation.current}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = installation.deploy(installation.current.resolve().name)
    assert done.returncode == 1
    assert "another deployment is running" in done.stderr
