"""The probe: all forms of addresses, and HTTPS with its certificate verified, against real servers."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import require
from voting.service import probe

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(
    heads: list[bytes], status: bytes = b"200 OK", host: str = "127.0.0.1", **tls: ssl.SSLContext
) -> AsyncIterator[int]:
    """Run an HTTP server that records the head of each request; yield its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, host, 0, **tls) as listening:  # type: ignore[arg-type]
        yield listening.sockets[0].getsockname()[1]


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a context with a certificate for localhost, and the file of the authority that signed it."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = [require("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, certificate


async def test_a_url_is_requested_below_its_path_and_with_its_host() -> None:
    heads: list[bytes] = []
    async with server(heads) as port:
        assert await probe.failure(f"http://localhost:{port}/a b/ü/") is None
        assert await probe.failure(f"127.0.0.1:{port}") is None
    assert heads[0].startswith(f"GET /a%20b/%C3%BC/readyz HTTP/1.1\r\nHost: localhost:{port}\r\n".encode())
    assert heads[1].startswith(b"GET /readyz ")


async def test_an_ipv6_address_is_accepted_in_every_form() -> None:
    heads: list[bytes] = []
    async with server(heads, host="::1") as port:
        for address in (f"http://[::1]:{port}", f"[::1]:{port}", f":::{port}"):
            assert await probe.failure(address) is None
    assert b"\r\nHost: [::1]:%d\r\n" % port in heads[0]


async def test_https_needs_a_valid_certificate(
    monkeypatch: pytest.MonkeyPatch, tls: tuple[ssl.SSLContext, Path]
) -> None:
    context, authority = tls
    async with server([], ssl=context) as port:
        assert "certificate verify failed" in (await probe.failure(f"https://localhost:{port}") or "")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        assert await probe.failure(f"https://localhost:{port}") is None
        assert "certificate is not valid for '127.0.0.1'" in (await probe.failure(f"https://127.0.0.1:{port}") or "")
        assert await probe.failure(f"http://localhost:{port}") is not None


async def test_every_failure_is_described() -> None:
    async with server([], b"503 Service Unavailable") as port:
        assert await probe.failure(f"127.0.0.1:{port}") == "HTTP/1.1 503 Service Unavailable"
    assert "refused" in (await probe.failure(f"127.0.0.1:{port}") or "")
    for nonsense in ("http://" + "a" * 100 + ".example", "http://[::1", "nothing", "https://host:99999"):
        assert await probe.failure(nonsense)
