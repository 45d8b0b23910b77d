"""Metrics of the worker."""

import shutil

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voting.service.metrics import FAST_BUCKETS

SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class WorkerMetrics:
    """Batches, dead letters, and the backlog of the stream."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.counted = Counter("voting_votes_counted", "Votes that changed the database", registry=registry)
        self.entries = Counter("voting_entries_processed", "Stream entries acknowledged", registry=registry)
        self.dead = Counter("voting_dead_letters", "Stream entries stored as dead letters", registry=registry)
        self.vanished = Counter(
            "voting_entries_vanished", "Pending entries that another client deleted", registry=registry
        )
        self.interruptions = Counter(
            "voting_interruptions", "Failures of a store that this worker has seen", registry=registry
        )
        self.batch_size = Histogram("voting_batch_size", "Entries in a batch", buckets=SIZES, registry=registry)
        self.batch_seconds = Histogram(
            "voting_batch_duration_seconds", "Time to commit", buckets=FAST_BUCKETS, registry=registry
        )
        self.length = Gauge("voting_stream_length", "Entries that wait to be counted, read or not", registry=registry)
        self.lag = Gauge("voting_stream_lag", "Entries that no worker has read", registry=registry)
        self.pending = Gauge("voting_stream_pending", "Entries read and not yet counted", registry=registry)
        self.missing = Gauge(
            "voting_stream_missing", "Entries removed by other clients, within a day", registry=registry
        )
        self.oldest = Gauge("voting_stream_oldest_seconds", "Age of the oldest waiting entry", registry=registry)
        # In a container, this is the disk of its engine, which also holds the named volumes of the stores.
        free = Gauge("voting_disk_free_bytes", "Free on the disk that holds the root directory", registry=registry)
        free.set_function(lambda: shutil.disk_usage("/").free)
        size = Gauge("voting_disk_size_bytes", "Size of the disk that holds the root directory", registry=registry)
        size.set_function(lambda: shutil.disk_usage("/").total)
