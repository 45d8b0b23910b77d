"""Metrics: their names, and their first values."""

import re

from prometheus_client import CollectorRegistry

from voting.admin.metrics import AdminMetrics
from voting.operate.certificate import CertificateMetrics
from voting.result.metrics import ResultMetrics
from voting.service import metrics
from voting.vote.metrics import VoteMetrics
from voting.worker.metrics import WorkerMetrics

CLASSES = (VoteMetrics, WorkerMetrics, ResultMetrics, AdminMetrics, CertificateMetrics)
UNITS = ("_seconds", "_bytes", "_ratio", "_info", "_total")
# Counts have no unit.
COUNTS = ("_in_flight", "_length", "_lag", "_pending", "_size", "_viewers", "_held", "_served", "_missing")


def test_names_follow_the_rules_of_prometheus() -> None:
    for kind in CLASSES:
        registry = CollectorRegistry()
        kind(registry)
        for family in registry.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            assert re.fullmatch(r"voting(_[a-z]+)+", name)
            assert name.endswith(UNITS + COUNTS), name
            assert family.documentation
            assert name.endswith("_total") == (family.type == "counter")


def test_refusals_that_are_not_the_senders_fault_are_counted_from_zero() -> None:
    registry = CollectorRegistry()
    VoteMetrics(registry)
    for reason in ("broker_away", "no_stream", "busy"):
        assert registry.get_sample_value("voting_votes_refused_total", {"reason": reason}) == 0


def test_each_service_exports_its_version_and_what_its_process_uses() -> None:
    text = metrics.exposition(metrics.registry("worker")).decode()
    assert 'voting_build_info{service="worker",version="' in text
    assert "process_resident_memory_bytes" in text


def test_the_sizes_of_the_disk_are_plausible() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry)
    free, size = (registry.get_sample_value(f"voting_disk_{name}_bytes") for name in ("free", "size"))
    assert free is not None
    assert size is not None
    assert 0 <= free < size
