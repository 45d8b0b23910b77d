"""What each service tells Prometheus; a registry for each application, none for the process.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from voting import __version__

_SHARED = values.ValueClass is not values.MutexValue  # prometheus-client decides at import, by the environment
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


def registry(service: str) -> CollectorRegistry:
    """A new registry that says which version of which service it belongs to."""
    made = CollectorRegistry()
    build = Gauge("voting_build_info", "Version", ["version", "service"], registry=made, multiprocess_mode="max")
    build.labels(__version__, service).set(1)
    return made


def exposition(made: CollectorRegistry) -> bytes:
    """What Prometheus gets: of this process, or, where several share the work, of all of them."""
    if _SHARED:
        made = CollectorRegistry()
        MultiProcessCollector(made)  # type: ignore[no-untyped-call]
    return generate_latest(made)


def forget(pid: int) -> None:
    """A process that shared the work has ended: its gauges no longer count; its counters do."""
    if _SHARED:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


class VoteMetrics:
    """Requests to vote: how many, how long, and why some were refused."""

    def __init__(self, made: CollectorRegistry) -> None:
        self.accepted = Counter("voting_votes_accepted", "Votes that Redis has on disk", registry=made)
        self.refused = Counter("voting_votes_refused", "Votes answered with a no", ["reason"], registry=made)
        self.seconds = Histogram(
            "voting_vote_duration_seconds", "From request to answer, accepted votes", buckets=FAST, registry=made
        )
        self.in_flight = Gauge(
            "voting_votes_in_flight", "Votes that wait for Redis", registry=made, multiprocess_mode="livesum"
        )


class WorkerMetrics:
    """Counting: batches, and what waits."""

    def __init__(self, made: CollectorRegistry) -> None:
        self.counted = Counter("voting_votes_counted", "Votes that changed the database", registry=made)
        self.entries = Counter("voting_entries_processed", "Stream entries dealt with", registry=made)
        self.dead = Counter("voting_dead_letters", "Stream entries put aside", registry=made)
        self.interruptions = Counter(
            "voting_interruptions", "Outages of a store, as this worker saw them", registry=made
        )
        self.batch_size = Histogram("voting_batch_size", "Entries in a batch", buckets=SIZES, registry=made)
        self.batch_seconds = Histogram("voting_batch_duration_seconds", "Time to commit", buckets=FAST, registry=made)
        self.lag = Gauge("voting_stream_lag", "Entries that no worker has read", registry=made)
        self.pending = Gauge("voting_stream_pending", "Entries read and not yet counted", registry=made)
        self.oldest = Gauge("voting_stream_oldest_seconds", "Age of the oldest waiting entry", registry=made)


class ResultMetrics:
    """Showing: viewers, frames, and how fresh the numbers are."""

    def __init__(self, made: CollectorRegistry) -> None:
        self.viewers = Gauge("voting_viewers", "Open WebSockets", registry=made)
        self.frames = Counter("voting_frames_sent", "Snapshots sent to viewers", registry=made)
        self.cut = Counter("voting_viewers_cut", "Sockets cut because they did not read", registry=made)
        self.age = Gauge("voting_snapshot_age_seconds", "Time since the database last answered", registry=made)
        self.interruptions = Counter("voting_interruptions", "Times the database was lost", registry=made)
