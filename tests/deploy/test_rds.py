"""deploy/compose.rds.yaml on a real engine: a database outside the stack, by TLS, its certificate checked."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import require
from tests.e2e.compose import Compose, docker
from tests.waiting import eventually

NAME = f"voting-rds-{os.getpid()}"
HOST = "database.test"
SERVER = """cp /given/server.* /tls/ && chmod 600 /tls/server.key && exec docker-entrypoint.sh postgres \\
-c ssl=on -c ssl_cert_file=/tls/server.crt -c ssl_key_file=/tls/server.key"""


def openssl(folder: Path, *arguments: str) -> None:
    program = require("openssl", "openssl")
    subprocess.run([program, *arguments], cwd=folder, check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """An authority, the server's certificate of it, and another authority."""
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for authority in ("authority", "other"):
        openssl(folder, *new, "-subj", f"/CN={authority}", "-keyout", f"{authority}.key", "-out", f"{authority}.pem")
    openssl(
        folder, *new, "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}",
        "-addext", "basicConstraints=critical,CA:FALSE", "-CA", "authority.pem", "-CAkey", "authority.key",
        "-keyout", "server.key", "-out", "server.crt",
    )  # fmt: skip
    for file in folder.iterdir():
        file.chmod(0o644)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What settings.py writes on an instance (`secrets`), and what the server has (`tls`)."""
    made = tmp_path_factory.mktemp("rds")
    for part in (made, made / "secrets", made / "tls"):
        part.mkdir(exist_ok=True)
        part.chmod(0o755)
    certificates(made / "tls")
    (made / "secrets" / "database_host").write_text(HOST)
    (made / "secrets" / "postgres_password").write_text("p" * 48)
    (made / "secrets" / "database_ca.pem").write_text((made / "tls" / "authority.pem").read_text())
    return made


@pytest.fixture(scope="module")
def compose(engine: None, folder: Path) -> Iterator[Compose]:  # noqa: ARG001
    project = Compose(NAME, files=("deploy/compose.rds.yaml",), SECRETS_DIR=str(folder / "secrets"))
    project.run("build", timeout=900)
    project.run("up", "--no-start")
    docker(
        "run", "-d", "--name", NAME, "--network", f"{NAME}_database", "--network-alias", HOST, "--user", "70:70",
        "-e", "POSTGRES_USER=voting", "-e", "POSTGRES_DB=voting", "-e", f"POSTGRES_PASSWORD={'p' * 48}",
        "-v", f"{folder / 'tls'}:/given:ro", "--tmpfs", "/tls:uid=70,gid=70,mode=0700",
        "--entrypoint", "sh", "postgres:18-alpine", "-c", SERVER,
    )  # fmt: skip
    try:
        eventually(_accepts, within=60)
        project.up()
        yield project
    finally:
        docker("rm", "-fv", NAME)
        project.run("down", "-v", "--remove-orphans")


def _accepts() -> bool:
    command = ["docker", "exec", NAME, "pg_isready", "-h", "127.0.0.1", "-U", "voting"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_vote_is_counted_in_a_database_outside_and_nobody_talks_to_it_without_tls(compose: Compose) -> None:
    assert httpx.post(compose.vote_url, data={"vote": "b"}).status_code == 200
    eventually(lambda: compose.tally() == {"a": 0, "b": 1})
    query = "SELECT DISTINCT usename, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_addr NOTNULL"
    found = docker("exec", NAME, "psql", "-U", "voting", "-AtXc", query).split()
    assert sorted(found) == ["voting_admin|t", "voting_result|t", "voting_worker|t"]
    assert "db" not in compose.run("ps", "--services").split()


def test_a_server_that_cannot_prove_itself_is_refused(compose: Compose, folder: Path) -> None:
    (folder / "secrets" / "database_ca.pem").write_text((folder / "tls" / "other.pem").read_text())
    compose.run("run", "--rm", "secrets")
    assert "certificate verify failed" in compose.run("run", "--rm", "--no-deps", "migrate", check=False)
    (folder / "secrets" / "database_ca.pem").write_text((folder / "tls" / "authority.pem").read_text())
    docker("network", "disconnect", f"{NAME}_database", NAME)
    docker("network", "connect", "--alias", "impostor.test", f"{NAME}_database", NAME)
    (folder / "secrets" / "database_host").write_text("impostor.test")
    compose.run("run", "--rm", "secrets")
    said = compose.run("run", "--rm", "--no-deps", "migrate", check=False)
    assert 'server certificate for "database.test" does not match host name "impostor.test"' in said
