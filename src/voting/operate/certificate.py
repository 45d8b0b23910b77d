"""`voting certificate`: until when the certificates are valid that a proxy presents, for Prometheus.

It shakes hands once a minute, as a client would, and reads the dates without judging the certificate: one that
has expired, or that a private authority signed, has dates as well. A handshake that fails is a measure, not an error.
"""

import asyncio
import contextlib
import re
import ssl
from datetime import UTC, datetime
from typing import NamedTuple

from voting.operate.certificate_metrics import CertificateMetrics
from voting.service import health, lifecycle, logs, metrics
from voting.service.lifecycle import Stop, pause
from voting.settings.services import ServiceSettings
from voting.web.server import listen, serve

LOOK_SECONDS = 60.0
PATIENCE = 5.0

# Validity ::= SEQUENCE { notBefore Time, notAfter Time }, as DER: https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5
_TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
_VALIDITY = re.compile(rb"\x30[\x1e\x20\x22]" + _TIME + _TIME)

log = logs.get()


class Validity(NamedTuple):
    """Begin and end, in seconds since 1970."""

    begins: float
    ends: float


def validity(certificate: bytes) -> Validity:
    """The validity of an X.509 certificate in DER.

    Raises:
        ValueError: this is none.
    """
    found = _VALIDITY.search(certificate)
    if not found:
        raise ValueError("a certificate in DER has a validity, and this has none")
    short_begin, begin, short_end, end = found.groups()
    return Validity(_seconds(short_begin, begin), _seconds(short_end, end))


def _seconds(short: bytes | None, full: bytes | None) -> float:
    if full is None:
        assert short is not None  # noqa: S101 - one of the two alternatives has matched
        full = (b"20" if short < b"50" else b"19") + short
    return datetime.strptime(full.decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()


async def presented(address: str, host: str) -> Validity:
    """The validity of the certificate that `address` (`host:port`) presents to clients that ask for `host`.

    Raises:
        OSError: nobody there, no handshake, or not within `PATIENCE` seconds.
        ValueError: what came is no certificate.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name, _, port = address.rpartition(":")
    async with asyncio.timeout(PATIENCE):
        _, writer = await asyncio.open_connection(name.strip("[]"), int(port), ssl=context, server_hostname=host)
        try:
            return validity(writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b"")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def watch(address: str, hosts: list[str], measures: CertificateMetrics, stop: Stop) -> None:
    """Measure again and again, until told to stop."""
    while not stop.is_set():
        for host in hosts:
            try:
                found = await presented(address, host)
            except (OSError, ValueError) as error:
                log.warning("certificate.missing", host=host, error=f"{type(error).__name__}: {error}")
                measures.served.labels(host).set(0)
            else:
                measures.served.labels(host).set(1)
                measures.begins.labels(host).set(found.begins)
                measures.ends.labels(host).set(found.ends)
        await pause(stop, LOOK_SECONDS)


def run(settings: ServiceSettings, address: str, hosts: list[str]) -> None:
    """Serve the measures until told to stop."""

    async def main(stop: Stop) -> None:
        registry = metrics.registry("certificate")
        ops = health.private_app(lambda: not stop.is_set(), registry)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch(address, hosts, CertificateMetrics(registry), stop))
            tasks.create_task(serve(ops, listen(settings.metrics_listen), stop))

    lifecycle.run(main)
