"""TODO voting.web.metrics."""

from prometheus_client import CollectorRegistry, Counter


class WebMetrics:
    """Requests that were turned away before the application saw them."""

    def __init__(self, made: CollectorRegistry) -> None:
        help_ = "Requests refused for their address (429), and WebSockets also for the site that they come from (403)"
        self.limited = Counter("voting_requests_limited", help_, registry=made)
        self._rejected = Counter(
            "voting_requests_rejected", "Requests out of the bounds of web/protocol.py", ["status"], registry=made
        )

    def reject(self, status: int) -> None:
        """Count a request that was answered with that status."""
        self._rejected.labels(status).inc()
