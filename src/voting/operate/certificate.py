"""`voting certificate`: export the validity of a proxy's certificates to Prometheus.

Once a minute it connects to the proxy over TLS and reads the dates. It does not verify the certificate, so it also
exports the dates of expired and of privately signed ones. After a failed handshake, `voting_certificate_served` is 0.
"""

import asyncio
import contextlib
import re
import ssl
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge

from voting.service import health, lifecycle, logs, metrics
from voting.service.lifecycle import Stop, pause
from voting.settings.services import ServiceSettings
from voting.web.server import listen, serve

INTERVAL_SECONDS = 60.0
TIMEOUT_SECONDS = 5.0

# Validity ::= SEQUENCE { notBefore Time, notAfter Time }, as DER: https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5
_TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"
_VALIDITY = re.compile(rb"\x30[\x1e\x20\x22]" + _TIME + _TIME)

log = logs.get()


class Validity(NamedTuple):
    """A certificate's validity, in seconds since the epoch."""

    begins: float
    ends: float


class CertificateMetrics:
    """The validity of the certificate that the proxy presents for each host name."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, labelnames=["host"], registry=registry)
        self.begins = gauge("voting_certificate_not_before_timestamp_seconds", "Begin of validity")
        self.ends = gauge("voting_certificate_not_after_timestamp_seconds", "End of validity")
        self.served = gauge("voting_certificate_served", "1 if the last handshake gave a certificate, else 0")


def parse_validity(certificate: bytes) -> Validity:
    """Return the validity of an X.509 certificate in DER, or raise `ValueError`."""
    found = _VALIDITY.search(certificate)
    if not found:
        raise ValueError("not a certificate in DER: it has no validity")
    short_begin, begin, short_end, end = found.groups(b"")
    return Validity(_seconds(short_begin, begin), _seconds(short_end, end))


def _seconds(short: bytes, full: bytes) -> float:
    """Return the time in the one of two formats that is not empty: with a year of two or of four digits."""
    text = (full or (b"20" if short < b"50" else b"19") + short).decode()
    return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC).timestamp()


async def read_validity(address: str, host: str) -> Validity:
    """Return the validity of the certificate that `address` (`host:port`) presents for `host`.

    Raise OSError if there is no handshake within `TIMEOUT_SECONDS`, and ValueError if there is no certificate.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    name, _, port = address.rpartition(":")
    async with asyncio.timeout(TIMEOUT_SECONDS):
        _, writer = await asyncio.open_connection(name.strip("[]"), int(port), ssl=context, server_hostname=host)
        try:
            return parse_validity(writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b"")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def watch(address: str, hosts: list[str], exported: CertificateMetrics, stop: Stop) -> None:
    """Update the metrics every `INTERVAL_SECONDS` until `stop` is set."""
    while not stop.is_set():
        for host in hosts:
            try:
                found = await read_validity(address, host)
            except (OSError, ValueError) as error:
                log.warning("certificate.missing", host=host, error=f"{type(error).__name__}: {error}")
                exported.served.labels(host).set(0)
            else:
                exported.served.labels(host).set(1)
                exported.begins.labels(host).set(found.begins)
                exported.ends.labels(host).set(found.ends)
        await pause(stop, INTERVAL_SECONDS)


def run(settings: ServiceSettings, address: str, hosts: list[str]) -> None:
    """Serve the metrics until SIGTERM or SIGINT."""

    async def main(stop: Stop) -> None:
        registry = metrics.registry("certificate")
        private_app = health.private_app(lambda: not stop.is_set(), registry)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watch(address, hosts, CertificateMetrics(registry), stop))
            tasks.create_task(serve(private_app, listen(settings.metrics_listen), stop))

    lifecycle.run(main)
