"""TODO voting.operate.certificate_metrics."""

from prometheus_client import CollectorRegistry, Gauge


class CertificateMetrics:
    """What the proxy presents, by host name. A certificate's share of life left tells whether renewing works."""

    def __init__(self, made: CollectorRegistry) -> None:
        self.begins = Gauge(
            "voting_certificate_not_before_timestamp_seconds", "Begin of validity", ["host"], registry=made
        )
        self.ends = Gauge("voting_certificate_not_after_timestamp_seconds", "End of validity", ["host"], registry=made)
        self.served = Gauge(
            "voting_certificate_served", "1 if the last handshake gave a certificate, else 0", ["host"], registry=made
        )
