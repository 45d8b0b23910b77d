"""Start tracing with OpenTelemetry, if the settings name a collector.

Otherwise nothing of OpenTelemetry is imported, and a vote costs the same. `service/spans.py` records the spans.
"""

import importlib
from typing import TYPE_CHECKING
from urllib.parse import unquote

from voting.settings.tracing import EXPORTER, TraceSettings

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder


def start(settings: TraceSettings, service: str) -> "SpanRecorder | None":
    """Return what records a service's spans and sends them to the collector; None if the settings name no collector.

    The vote service alone samples, at the rate in the settings; worker and result follow its decision.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return None
    from voting.service import logs  # noqa: PLC0415 - 5 MiB that `voting up`, which only reads settings, can do without

    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    pairs = (pair.partition("=") for pair in settings.otel_exporter_otlp_headers.split(",") if pair)
    headers = {unquote(name): unquote(value) for name, _, value in pairs}
    sample_rate = settings.otel_traces_sampler_arg if service == "vote" else 1.0
    exporter = importlib.import_module(EXPORTER).OTLPSpanExporter(url, headers=headers, timeout=2)
    logs.get().info("tracing.on", collector=url, share=sample_rate)
    recorder: SpanRecorder = importlib.import_module("voting.service.spans").SpanRecorder(
        service, exporter, sample_rate
    )
    return recorder
