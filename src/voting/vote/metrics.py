"""Metrics of the vote service."""

from functools import partial

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
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self.accepted = counter("voting_votes_accepted", "Votes that Redis has on disk")
        self.refused = counter("voting_votes_refused", "Votes refused", ["reason"])
        for reason in SERVICE_REASONS:
            self.refused.labels(reason)
        text = "Time from request to response, accepted votes"
        self.seconds = Histogram("voting_vote_duration_seconds", text, buckets=FAST_BUCKETS, registry=registry)
        self.in_flight = gauge("voting_votes_in_flight", "Votes waiting for Redis", multiprocess_mode="livesum")
        self.interruptions = counter("voting_interruptions", "Times the connection to Redis was lost")
        text = "Memory that Redis uses, as a share of its maxmemory; 0 without a maxmemory"
        self.memory = gauge("voting_broker_memory_ratio", text, multiprocess_mode="livemax")
