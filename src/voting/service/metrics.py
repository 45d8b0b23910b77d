"""What each service tells Prometheus; a registry for each application, none for the process.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from voting import __version__

_SHARED = values.ValueClass is not values.MutexValue  # prometheus-client decides at import, by the environment
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


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


def process_ended(pid: int) -> None:
    """A process that shared the work has ended: its gauges no longer count; its counters do."""
    if _SHARED:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]
