"""Whether a service traces: OpenTelemetry, off unless the settings name a collector, and then not even imported.

What the traces show is in `core/spans.py`, which is imported only when they are wanted: so they cost nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote

from pydantic import Field, field_validator

from voting.core.sources import Settings

if TYPE_CHECKING:
    from voting.core.spans import Spans

_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class TraceSettings(Settings):
    """Where traces go, under the names that OpenTelemetry gave these settings.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """

    otel_exporter_otlp_endpoint: Annotated[
        str, Field(pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?$", max_length=500, examples=["http://collector:4318"])
    ] = ""
    otel_exporter_otlp_headers: Annotated[
        str, Field(pattern=r"^([^=,\s]+=[^,\s]+(,[^=,\s]+=[^,\s]+)*)?$", examples=["authorization=Bearer%20…,tenant=1"])
    ] = ""
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 0.01

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _can_be_reached(cls, url: str) -> str:
        if url:
            try:
                importlib.import_module(_EXPORTER)
            except ModuleNotFoundError:
                fix = "pip install -r requirements/cloud.txt, or build the image with LOCK=cloud"
                raise ValueError(f"traces need OpenTelemetry, which is not installed: {fix}") from None
        return url


def start(settings: TraceSettings, service: str) -> "Spans | None":
    """The spans of a service, on their way to the collector that the settings name; None if they name none.

    Only vote decides which votes are traced, by the share that the settings say; the others follow.
    """
    if not settings.otel_exporter_otlp_endpoint:
        return None
    from voting.core import logs  # noqa: PLC0415 - 5 MiB that `voting up`, which only reads settings, can do without

    url = settings.otel_exporter_otlp_endpoint.rstrip("/") + "/v1/traces"
    pairs = (pair.partition("=") for pair in settings.otel_exporter_otlp_headers.split(",") if pair)
    headers = {unquote(name): unquote(value) for name, _, value in pairs}
    share = settings.otel_traces_sampler_arg if service == "vote" else 1.0
    exporter = importlib.import_module(_EXPORTER).OTLPSpanExporter(url, headers=headers, timeout=2)
    logs.get().info("tracing.on", collector=url, share=share)
    spans: Spans = importlib.import_module("voting.core.spans").Spans(service, exporter, share)
    return spans
