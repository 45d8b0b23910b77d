"""TODO voting.result.metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from voting.web.metrics import WebMetrics


class ResultMetrics(WebMetrics):
    """Showing: viewers, frames, and how fresh the numbers are."""

    def __init__(self, made: CollectorRegistry) -> None:
        super().__init__(made)
        self.viewers = Gauge("voting_viewers", "Open WebSockets", registry=made)
        self.frames = Counter("voting_frames_sent", "Snapshots sent to viewers", registry=made)
        self.cut = Counter("voting_viewers_cut", "Sockets cut because they did not read", registry=made)
        self.age = Gauge("voting_snapshot_age_seconds", "Time since the database last answered", registry=made)
        self.interruptions = Counter("voting_interruptions", "Times the database was lost", registry=made)
