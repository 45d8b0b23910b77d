"""Metrics of the vote service."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voting.service.metrics import FAST_BUCKETS
from voting.web.metrics import WebMetrics

# Reasons of a 503. They exist from the start, because Prometheus sees no increase in the first value of a series.
SERVICE_REASONS = (
    *("starting", "broker_away", "broker_silent", "broker_refused", "broker_full"),
    *("no_stream", "no_polls", "busy", "broker_clock"),
)


class VoteMetrics(WebMetrics):
    """Votes accepted, refused and in flight, their durations, and the state of Redis."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.accepted = Counter("voting_votes_accepted", "Votes that Redis has on disk", registry=registry)
        self.refused = Counter("voting_votes_refused", "Votes refused", ["reason"], registry=registry)
        for reason in SERVICE_REASONS:
            self.refused.labels(reason)
        self.seconds = Histogram(
            "voting_vote_duration_seconds",
            "Time from request to response, accepted votes",
            buckets=FAST_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "voting_votes_in_flight", "Votes waiting for Redis", registry=registry, multiprocess_mode="livesum"
        )
        self.interruptions = Counter(
            "voting_interruptions", "Times the connection to Redis was lost", registry=registry
        )
        self.memory = Gauge(
            "voting_broker_memory_ratio",
            "Memory that Redis uses, as a share of its maxmemory; 0 without a maxmemory",
            registry=registry,
            multiprocess_mode="livemax",
        )
