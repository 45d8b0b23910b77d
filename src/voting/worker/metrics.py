"""Metrics of the worker."""

import shutil
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voting.service.metrics import FAST_BUCKETS

SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class WorkerMetrics:
    """Batches, dead letters, and the backlog of the stream."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry)
        self.counted = counter("voting_votes_counted", "Votes that changed the database")
        self.entries = counter("voting_entries_processed", "Stream entries acknowledged")
        self.dead = counter("voting_dead_letters", "Stream entries stored as dead letters")
        self.dropped = counter("voting_votes_dropped", "Votes for deleted polls")
        self.late = counter("voting_votes_late", "Votes added after their round was sealed, which were refused")
        self.vanished = counter("voting_entries_vanished", "Pending entries that other clients removed")
        self.interruptions = counter("voting_interruptions", "Failures of a store that this worker has seen")
        self.batch_size = histogram("voting_batch_size", "Entries in a batch", buckets=SIZES)
        self.batch_seconds = histogram("voting_batch_duration_seconds", "Time to commit", buckets=FAST_BUCKETS)
        self.length = gauge("voting_stream_length", "Entries that wait to be counted, read or not")
        self.lag = gauge("voting_stream_lag", "Entries that no worker has read")
        self.pending = gauge("voting_stream_pending", "Entries read and not yet counted")
        self.removed = gauge("voting_stream_missing", "Entries removed by other clients, within a day")
        self.oldest = gauge("voting_stream_oldest_seconds", "Age of the oldest waiting entry")
        # In a container, this is the disk of its engine, which also holds the named volumes of the stores.
        free = gauge("voting_disk_free_bytes", "Free on the disk that holds the root directory")
        free.set_function(lambda: shutil.disk_usage("/").free)
        size = gauge("voting_disk_size_bytes", "Size of the disk that holds the root directory")
        size.set_function(lambda: shutil.disk_usage("/").total)
