"""Registries of metrics for Prometheus: one for each application, none global.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from voting import __version__

_MULTIPROCESS = values.ValueClass is not values.MutexValue  # prometheus-client reads the environment at import
FAST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


def registry(service: str) -> CollectorRegistry:
    """Return a new registry that has the version of the service."""
    new = CollectorRegistry()
    build = Gauge("voting_build_info", "Version", ["version", "service"], registry=new, multiprocess_mode="max")
    build.labels(__version__, service).set(1)
    if not _MULTIPROCESS:  # else the values would be of the process that happens to respond
        ProcessCollector(registry=new)
    return new


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the metrics as text: of this process, or of all processes of the service."""
    if _MULTIPROCESS:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def process_ended(pid: int) -> None:
    """Drop the gauges of a process that has ended; its counters stay in the sums."""
    if _MULTIPROCESS:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
