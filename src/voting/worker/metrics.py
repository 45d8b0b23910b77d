"""TODO voting.worker.metrics."""

import shutil

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voting.service.metrics import FAST_BUCKETS

SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


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
        self.batch_seconds = Histogram(
            "voting_batch_duration_seconds", "Time to commit", buckets=FAST_BUCKETS, registry=made
        )
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
