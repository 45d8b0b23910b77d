"""Whether a service traces: OpenTelemetry, off unless the settings name a collector, and then not even imported.

What the traces show is in `service/spans.py`, which is imported only when they are wanted: so they cost nothing else.
"""

import importlib
from typing import TYPE_CHECKING
from urllib.parse import unquote

from voting.settings.tracing import EXPORTER, TraceSettings

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder


def start(settings: TraceSettings, service: str) -> "SpanRecorder | None":
    """The spans of a service, on their way to the collector that the settings name; None if they name none.

    Only vote decides which votes are traced, by the share that the settings say; the others follow.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return None
    from voting.service import logs  # noqa: PLC0415 - 5 MiB that `voting up`, which only reads settings, can do without

    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    pairs = (pair.partition("=") for pair in settings.otel_exporter_otlp_headers.split(",") if pair)
    headers = {unquote(name): unquote(value) for name, _, value in pairs}
    share = settings.otel_traces_sampler_arg if service == "vote" else 1.0
    exporter = importlib.import_module(EXPORTER).OTLPSpanExporter(url, headers=headers, timeout=2)
    logs.get().info("tracing.on", collector=url, share=share)
    spans: SpanRecorder = importlib.import_module("voting.service.spans").SpanRecorder(service, exporter, share)
    return spans
