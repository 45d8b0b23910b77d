"""Settings of OpenTelemetry traces, which are off unless a collector is set."""

import importlib
from typing import Annotated

from pydantic import Field, field_validator

from voting.settings.sources import Settings

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class TraceSettings(Settings):
    """Settings of tracing, with the names and meanings that OpenTelemetry defines.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """

    otel_exporter_otlp_endpoint: Annotated[
        str, Field(pattern=r"^(https?://[^/?#@\s]+(/[^?#\s]*)?)?\Z", max_length=500, examples=["http://collector:4318"])
    ] = ""
    """The OpenTelemetry collector (OTLP over HTTP) that traces are sent to; tracing is off without it."""
    otel_exporter_otlp_headers: Annotated[
        str,
        Field(pattern=r"^([^=,\s]+=[^,\s]+(,[^=,\s]+=[^,\s]+)*)?\Z", examples=["authorization=Bearer%20…,tenant=1"]),
    ] = ""
    """Headers that the collector requires, percent-encoded."""
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The share of votes that are traced; used by vote only."""

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _exporter_is_installed(cls, url: str) -> str:
        if url:
            try:
                importlib.import_module(EXPORTER)
            except ModuleNotFoundError:
                fix = "pip install -r requirements/cloud.txt, or build the image with LOCK=cloud"
                raise ValueError(f"traces need OpenTelemetry, which is not installed: {fix}") from None
        return url
