"""Settings for OpenTelemetry traces: off unless a collector is named."""

import importlib
from typing import Annotated

from pydantic import Field, field_validator

from voting.settings.sources import Settings

EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


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
                importlib.import_module(EXPORTER)
            except ModuleNotFoundError:
                fix = "pip install -r requirements/cloud.txt, or build the image with LOCK=cloud"
                raise ValueError(f"traces need OpenTelemetry, which is not installed: {fix}") from None
        return url
