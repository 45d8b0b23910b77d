"""Metrics of the result service."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from voting.web.metrics import WebMetrics


class ResultMetrics(WebMetrics):
    """Viewers, the frames sent to them, what is held for them, and the age of the last read of the database."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.viewers = Gauge("voting_viewers", "Open WebSockets", registry=registry)
        self.frames = Counter("voting_frames_sent", "Snapshots sent to viewers", registry=registry)
        text = "WebSockets cut because the viewer did not read or answer pings"
        self.cut = Counter("voting_viewers_cut", text, registry=registry)
        self.held = Gauge("voting_channels_held", "Polls and sessions held in memory", registry=registry)
        self.age = Gauge("voting_snapshot_age_seconds", "Time since the database last answered", registry=registry)
        self.interruptions = Counter("voting_interruptions", "Times the database was lost", registry=registry)
