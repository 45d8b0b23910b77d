"""TLS to both stores by URL alone, against real servers: a valid certificate is accepted, an invalid one refused."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.compose import docker
from tests.e2e.service import Service
from tests.e2e.stack import free_port
from tests.waiting import eventually

REDIS = (
    "redis-server --port 0 --tls-port 6379 --tls-cert-file /certs/cert --tls-key-file /certs/key --tls-auth-clients no "
    "--tls-ca-cert-file /certs/ca --save '' --appendonly yes --appendfsync always --requirepass word"
)
POSTGRES = (
    "install -m 600 /certs/key /tmp/key && exec docker-entrypoint.sh postgres -c ssl=on -c ssl_cert_file=/certs/cert "
    "-c ssl_key_file=/tmp/key"
)


class Stores:
    """Redis and PostgreSQL with TLS only, with a certificate for `localhost` of a test authority."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        ours, other = trustme.CA(), trustme.CA()
        cert = ours.issue_cert("localhost")
        cert.private_key_pem.write_to_path(folder / "key")
        (folder / "key").chmod(0o644)  # the servers run as other users
        (folder / "cert").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        ours.cert_pem.write_to_path(folder / "ca")
        other.cert_pem.write_to_path(folder / "other-ca")
        self.folder = folder
        self._containers: list[str] = []
        self.redis_port = self._run(6379, "redis:8-alpine", "sh", "-c", f"exec {REDIS}")
        database = ["--user", "70:70", "-e", "POSTGRES_USER=voting", "-e", "POSTGRES_PASSWORD=word"]
        self.database_port = self._run(5432, *database, "postgres:18-alpine", "sh", "-c", POSTGRES)

    def _run(self, port: int, *arguments: str) -> int:
        mounts = ["-v", f"{self.folder}:/certs:ro", "--tmpfs", "/tmp:mode=1777"]  # noqa: S108
        container = docker("run", "-d", "-p", f"127.0.0.1::{port}", *mounts, *arguments).strip()
        self._containers.append(container)
        return int(docker("port", container, str(port)).split(":")[-1])

    def redis_url(self, host: str = "localhost", ca: str = "ca") -> str:
        """Return the broker's URL for a client that trusts one authority; "" stands for the system's."""
        query = f"?ssl_ca_certs={self.folder / ca}" if ca else ""
        return f"rediss://:word@{host}:{self.redis_port}/0{query}"

    def database_url(self, host: str = "localhost", ca: str = "ca") -> str:
        """Return the same for the database."""
        root = self.folder / ca if ca else "system"
        return f"postgresql://voting:word@{host}:{self.database_port}/voting?sslmode=verify-full&sslrootcert={root}"

    def close(self) -> None:
        """Forget everything."""
        docker("rm", "-fv", *self._containers)


@pytest.fixture(scope="module")
def stores(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:  # noqa: ARG001
    started = Stores(tmp_path_factory.mktemp("certs"))
    folder = tmp_path_factory.mktemp("migrate")
    try:

        def is_migrated() -> bool:
            migrate = Service("migrate", folder, DATABASE_URL=started.database_url())
            return migrate.process.wait(60) == 0

        eventually(is_migrated, within=60, every=0.5)
        yield started
    finally:
        started.close()


@pytest.mark.parametrize("ca", ["ca", ""])
def test_votes_travel_over_verified_tls_with_an_authority_of_ones_own_or_the_systems(
    stores: Stores, tmp_path: Path, ca: str
) -> None:
    vote_port, result_port = free_port(), free_port()
    settings = {
        "REDIS_URL": stores.redis_url(ca=ca),
        "DATABASE_URL": stores.database_url(ca=ca),
        "SSL_CERT_FILE": "" if ca else str(stores.folder / "ca"),  # what OpenSSL takes for the system's authorities
        "SECRET_KEY": "k" * 40,
        "HOST": "127.0.0.1",
        "VOTE_PORT": str(vote_port),
        "RESULT_PORT": str(result_port),
    }
    services = [Service(name, tmp_path, **settings) for name in ("worker", "vote", "result")]

    def ask(port: int, method: str, path: str, **form: str) -> httpx.Response:
        try:
            return httpx.request(method, f"http://127.0.0.1:{port}{path}", data=form)
        except httpx.TransportError as error:
            raise AssertionError(str(error)) from None

    def total() -> int:
        answer = ask(result_port, "GET", "/api/results")
        assert answer.status_code == 200
        counted: int = answer.json()["total"]
        return counted

    before = eventually(lambda: total() + 1, within=30)
    eventually(lambda: ask(vote_port, "POST", "/", vote="a").status_code == 200, within=30)
    eventually(lambda: total() == before)
    assert [service.stop() for service in services] == [0, 0, 0]


@pytest.mark.parametrize(("host", "ca"), [("localhost", "other-ca"), ("127.0.0.1", "ca"), ("localhost", "")])
def test_a_certificate_of_another_authority_or_host_is_refused_and_the_log_says_why(
    stores: Stores, tmp_path: Path, host: str, ca: str
) -> None:
    right = {"REDIS_URL": stores.redis_url(), "DATABASE_URL": stores.database_url(), "SECRET_KEY": "k" * 40}
    ports = {"HOST": "127.0.0.1", "VOTE_PORT": str(free_port()), "RESULT_PORT": str(free_port())}
    broker, database = {"REDIS_URL": stores.redis_url(host, ca)}, {"DATABASE_URL": stores.database_url(host, ca)}
    reason = "does not match" if host == "127.0.0.1" else "certificate verify failed"
    expected = {
        Service("worker", tmp_path, **right | broker): ("worker.interrupted", "ertificate"),
        Service("worker", tmp_path, **right | database): ("worker.interrupted", reason),
        Service("vote", tmp_path, **right | ports | broker): ("broker.lost", "ertificate"),
        Service("result", tmp_path, **right | ports | database): ("database.lost", reason),
    }
    for service, words in expected.items():
        eventually(lambda words=words, service=service: all(word in service.log for word in words), within=30)  # type: ignore[misc]
        assert "word@" not in service.log
    assert [service.stop() for service in expected] == [0] * 4


def test_a_server_without_tls_is_refused(stores: Stores, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:  # it would take whatever comes, and says nothing
        url = stores.redis_url().replace(f":{stores.redis_port}/", f":{plain.getsockname()[1]}/")
        worker = Service("worker", tmp_path, REDIS_URL=url, DATABASE_URL=stores.database_url(), LOG_LEVEL="debug")
        peer, _ = plain.accept()
        with peer:
            hello = peer.recv(1000)
            assert hello[0] == 0x16  # a TLS handshake, and no password in it
            assert b"word" not in hello
            peer.sendall(b"-NOAUTH Authentication required.\r\n")
            eventually(lambda: "SSL" in worker.log, within=30)
        assert worker.stop() == 0
