"""What each service tells Prometheus; a registry for each application, none for the process.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

import shutil

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from voting import __version__

_SHARED = values.ValueClass is not values.MutexValue  # prometheus-client decides at import, by the environment
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)
# Why a vote is refused through no fault of its sender; they are there from the start, or the first is no increase.
OUR_REASONS = (
    *("starting", "broker_away", "broker_silent", "broker_refused", "broker_full"),
    *("no_stream", "no_polls", "busy", "broker_clock"),
)


def registry(service: str) -> CollectorRegistry:
    """A new registry that says which version of which service it belongs to."""
    made = CollectorRegistry()
    build = Gauge("voting_build_info", "Version", ["version", "service"], registry=made, multiprocess_mode="max")
    build.labels(__version__, service).set(1)
    if not _SHARED:  # or it would be that of the process which happens to answer
        ProcessCollector(registry=made)
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


class WebMetrics:
    """Requests that were turned away before the application saw them."""

    def __init__(self, made: CollectorRegistry) -> None:
        help_ = "Requests refused for their address (429), and WebSockets also for the site that they come from (403)"
        self.limited = Counter("voting_requests_limited", help_, registry=made)
        self._rejected = Counter(
            "voting_requests_rejected", "Requests out of the bounds of core/protocol.py", ["status"], registry=made
        )

    def reject(self, status: int) -> None:
        """Count a request that was answered with that status."""
        self._rejected.labels(status).inc()


class VoteMetrics(WebMetrics):
    """Requests to vote: how many, how long, and why some were refused."""

    def __init__(self, made: CollectorRegistry) -> None:
        super().__init__(made)
        self.accepted = Counter("voting_votes_accepted", "Votes that Redis has on disk", registry=made)
        self.refused = Counter("voting_votes_refused", "Votes answered with a no", ["reason"], registry=made)
        for reason in OUR_REASONS:
            self.refused.labels(reason)
        self.seconds = Histogram(
            "voting_vote_duration_seconds", "From request to answer, accepted votes", buckets=FAST, registry=made
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


class WorkerMetrics:
    """Counting: batches, and what waits."""

    def __init__(self, made: CollectorRegistry) -> None:
        self.counted = Counter("voting_votes_counted", "Votes that changed the database", registry=made)
        self.entries = Counter("voting_entries_processed", "Stream entries dealt with", registry=made)
        self.dead = Counter("voting_dead_letters", "Stream entries put aside", registry=made)
        self.vanished = Counter("voting_entries_vanished", "Pending entries that somebody else deleted", registry=made)
        self.interruptions = Counter(
            "voting_interruptions", "Outages of a store, as this worker saw them", registry=made
        )
        self.batch_size = Histogram("voting_batch_size", "Entries in a batch", buckets=SIZES, registry=made)
        self.batch_seconds = Histogram("voting_batch_duration_seconds", "Time to commit", buckets=FAST, registry=made)
        self.length = Gauge("voting_stream_length", "Entries that wait to be counted, read or not", registry=made)
        self.lag = Gauge("voting_stream_lag", "Entries that no worker has read", registry=made)
        self.pending = Gauge("voting_stream_pending", "Entries read and not yet counted", registry=made)
        self.missing = Gauge("voting_stream_missing", "Entries that no worker removed, within a day", registry=made)
        self.oldest = Gauge("voting_stream_oldest_seconds", "Age of the oldest waiting entry", registry=made)
        # Under a container's root is the disk of its engine, where the named volumes of the stores are as well.
        free = Gauge("voting_disk_free_bytes", "Free on the disk that holds the root directory", registry=made)
        free.set_function(lambda: shutil.disk_usage("/").free)
        size = Gauge("voting_disk_size_bytes", "Size of the disk that holds the root directory", registry=made)
        size.set_function(lambda: shutil.disk_usage("/").total)


class ResultMetrics(WebMetrics):
    """Showing: viewers, frames, and how fresh the numbers are."""

    def __init__(self, made: CollectorRegistry) -> None:
        super().__init__(made)
        self.viewers = Gauge("voting_viewers", "Open WebSockets", registry=made)
        self.frames = Counter("voting_frames_sent", "Snapshots sent to viewers", registry=made)
        self.cut = Counter("voting_viewers_cut", "Sockets cut because they did not read", registry=made)
        self.age = Gauge("voting_snapshot_age_seconds", "Time since the database last answered", registry=made)
        self.interruptions = Counter("voting_interruptions", "Times the database was lost", registry=made)


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
