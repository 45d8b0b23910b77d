"""The validity of certificates that OpenSSL made, compared with what Python itself reads."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.waiting import until
from voting.operate.certificate import CertificateMetrics, parse_validity, read_validity, watch
from voting.service import metrics

pytestmark = pytest.mark.anyio
CASES = {"rsa": ["rsa:2048"], "ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}


def make(folder: Path, *key: str, days: int) -> tuple[Path, Path]:
    """Make a certificate for v.example; return its file and that of its key."""
    certificate, secret = folder / "certificate.pem", folder / "key.pem"
    command = [require("openssl", "openssl"), "req", "-x509", "-nodes", "-newkey", *key, "-days", str(days)]
    command += ["-subj", "/CN=v.example", "-keyout", str(secret), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, secret


@pytest.mark.parametrize("key", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("days", [1, 90, 20_000], ids=["one day", "a quarter", "beyond 2049, in the longer form"])
def test_the_dates_are_those_that_python_reads(tmp_path: Path, key: list[str], days: int) -> None:
    certificate, _ = make(tmp_path, *key, days=days)
    decoded: dict[str, Any] = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]
    found = parse_validity(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    assert found.begins == ssl.cert_time_to_seconds(decoded["notBefore"])
    assert found.ends == ssl.cert_time_to_seconds(decoded["notAfter"])
    assert found.ends - found.begins == days * 86_400


@pytest.mark.parametrize("certificate", [b"", b"no certificate", bytes(2000)])
def test_bytes_that_are_not_a_certificate_are_an_error(certificate: bytes) -> None:
    with pytest.raises(ValueError, match="it has no validity"):
        parse_validity(certificate)


@asynccontextmanager
async def server(folder: Path, days: int) -> AsyncIterator[str]:
    """Run a TLS server on a free port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*make(folder, *CASES["ec"], days=days))
    running = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with running:
        yield f"127.0.0.1:{running.sockets[0].getsockname()[1]}"


async def test_the_dates_of_a_self_signed_certificate_are_read(tmp_path: Path) -> None:
    async with server(tmp_path, days=30) as address:
        found = await read_validity(address, "v.example")
    assert found.ends - found.begins == 30 * 86_400


async def test_when_the_proxy_does_not_answer_served_is_0_and_the_dates_stay(tmp_path: Path) -> None:
    registry = metrics.registry("test")
    exported = CertificateMetrics(registry)

    def served() -> float | None:
        return registry.get_sample_value("voting_certificate_served", {"host": "v.example"})

    async def wait_for_change(address: str) -> None:
        stop = asyncio.Event()
        watching = asyncio.create_task(watch(address, ["v.example"], exported, stop))
        before = served()
        await until(lambda: served() != before)
        stop.set()
        await watching

    async with server(tmp_path, days=30) as address:
        await wait_for_change(address)
        assert served() == 1
    await wait_for_change(address)
    assert served() == 0
    assert registry.get_sample_value("voting_certificate_not_after_timestamp_seconds", {"host": "v.example"})
