"""Metrics of the admin service."""

from prometheus_client import CollectorRegistry, Counter

from voting.web.metrics import WebMetrics


class AdminMetrics(WebMetrics):
    """Changes, refused keys, and webhooks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        text = "Changes of polls and sessions, by the action in the audit log"
        self.changes = Counter("voting_admin_changes", text, ["action"], registry=registry)
        self.refused_keys = Counter("voting_admin_keys_refused", "Requests with a wrong key or link", registry=registry)
        text = "Attempts to deliver a webhook, by outcome: delivered, failed, or dropped after a day"
        self.webhooks = Counter("voting_webhooks", text, ["outcome"], registry=registry)
        for outcome in ("delivered", "failed", "dropped"):
            self.webhooks.labels(outcome)
        self.interruptions = Counter("voting_interruptions", "Times the database was lost", registry=registry)
