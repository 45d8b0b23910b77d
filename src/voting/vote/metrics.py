"""TODO voting.vote.metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voting.service.metrics import FAST_BUCKETS
from voting.web.metrics import WebMetrics

# Why a vote is refused through no fault of its sender; they are there from the start, or the first is no increase.
SERVICE_REASONS = (
    *("starting", "broker_away", "broker_silent", "broker_refused", "broker_full"),
    *("no_stream", "no_polls", "busy", "broker_clock"),
)


class VoteMetrics(WebMetrics):
    """Requests to vote: how many, how long, and why some were refused."""

    def __init__(self, made: CollectorRegistry) -> None:
        super().__init__(made)
        self.accepted = Counter("voting_votes_accepted", "Votes that Redis has on disk", registry=made)
        self.refused = Counter("voting_votes_refused", "Votes answered with a no", ["reason"], registry=made)
        for reason in SERVICE_REASONS:
            self.refused.labels(reason)
        self.seconds = Histogram(
            "voting_vote_duration_seconds",
            "From request to answer, accepted votes",
            buckets=FAST_BUCKETS,
            registry=made,
        )
        self.in_flight = Gauge(
            "voting_votes_in_flight", "Votes that wait for Redis", registry=made, multiprocess_mode="livesum"
        )
        self.interruptions = Counter("voting_interruptions", "Times that Redis was lost", registry=made)
        self.memory = Gauge(
            "voting_broker_memory_ratio",
            "Memory that Redis uses, of its maxmemory; 0 without a maxmemory",
            registry=made,
            multiprocess_mode="livemax",
        )
