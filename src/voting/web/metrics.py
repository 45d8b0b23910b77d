"""Metrics of requests that a web service rejects before its application gets them."""

from prometheus_client import CollectorRegistry, Counter


class WebMetrics:
    """Counters that both web services have."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = "Requests refused for their address (429), and WebSockets also for the site that they come from (403)"
        self.limited = Counter("voting_requests_limited", text, registry=registry)
        text = "Requests beyond the limits in web/rejections.py"
        self._rejected = Counter("voting_requests_rejected", text, ["status"], registry=registry)

    def reject(self, status: int) -> None:
        self._rejected.labels(status).inc()
