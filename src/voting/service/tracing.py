"""Start tracing with OpenTelemetry, if the settings name a collector.

Otherwise nothing of OpenTelemetry is imported, and a vote costs the same. `service/spans.py` records the spans.
"""

import importlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from urllib.parse import unquote

from starlette.types import ASGIApp

from voting.service import logs
from voting.settings.tracing import EXPORTER, TraceSettings

Publish = Callable[..., Awaitable[bytes]]


class Recorder:
    """Records nothing: what a service uses without a collector. `spans.SpanRecorder` overrides and documents it all."""

    def trace_posts(self, app: ASGIApp) -> ASGIApp:
        return app

    def trace_publish(self, publish: Publish) -> Publish:
        return publish

    def record_batch(
        self, _entries: Sequence[tuple[object, list[bytes]]], _parsed_ns: int
    ) -> AbstractContextManager[str]:
        return nullcontext("")

    def record_snapshot(self, hints: Sequence[str], started: int) -> None:
        pass

    def close(self) -> None:
        pass


OFF = Recorder()


def start(settings: TraceSettings, service: str) -> Recorder:
    """Return what records a service's spans and sends them to the collector, if the settings name one.

    The vote service alone samples, at the rate in the settings; worker and result follow its decision.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return OFF
    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    pairs = (pair.partition("=") for pair in settings.otel_exporter_otlp_headers.split(",") if pair)
    headers = {unquote(name): unquote(value) for name, _, value in pairs}
    sample_rate = settings.otel_traces_sampler_arg if service == "vote" else 1.0
    exporter = importlib.import_module(EXPORTER).OTLPSpanExporter(url, headers=headers, timeout=2)
    logs.get().info("tracing.on", collector=url, share=sample_rate)
    spans = importlib.import_module("voting.service.spans")
    recorder: Recorder = spans.SpanRecorder(service, exporter, sample_rate)
    return recorder
