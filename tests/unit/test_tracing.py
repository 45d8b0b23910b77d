"""Tracing imports OpenTelemetry only where a collector is set, and reports its bad settings."""

import json
import os
import subprocess
import sys

import pytest

from voting.service import tracing
from voting.settings.services import ResultSettings
from voting.settings.sources import BadSettings, load
from voting.settings.tracing import TraceSettings

SETTINGS = {
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "SECRET_KEY": "k" * 32,
    "METRICS_LISTEN": "127.0.0.1:0",
}
START_AND_STOP = """
import asyncio, importlib, json, sys
from voting.settings import services
from voting.settings.sources import load
from voting.service.lifecycle import Stop
from voting.web.server import listen

async def run(service):
    stop = Stop()
    stop.set()
    settings = load(getattr(services, service.capitalize() + "Settings"))
    sockets = [listen("127.0.0.1:0"), listen("127.0.0.1:0")] if service == "vote" else []
    app = importlib.import_module(f"voting.{service}.app")
    app.listen = lambda _: listen("127.0.0.1:0")
    await app.main(settings, stop, *sockets)

for service in sys.argv[1].split("+"):
    asyncio.run(run(service))
print(json.dumps(sorted(sys.modules)))
"""


def imported(services: str, **more: str) -> set[str]:
    """Start and stop services in a process of their own; return which modules of tracing it has imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}  # noqa: TID251
    command = [sys.executable, "-c", START_AND_STOP, services]
    ended = subprocess.run(command, env=environment | SETTINGS | more, capture_output=True, text=True, check=True)
    names: list[str] = json.loads(ended.stdout.splitlines()[-1])
    return {name for name in names if name.partition(".")[0] in {"opentelemetry", "requests"}}


def test_without_a_collector_nothing_of_opentelemetry_is_imported() -> None:
    assert imported("result+vote+worker") == set()


def test_with_a_collector_sdk_and_exporter_are_imported() -> None:
    names = imported("result", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert {"opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http", "requests"} <= names


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db")
    for field in TraceSettings.model_fields:
        monkeypatch.delenv(field.upper(), raising=False)
    return monkeypatch


def test_tracing_is_off_by_default(settings: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - clears the environment
    assert tracing.start(load(ResultSettings), "result") is tracing.OFF


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer secret"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.01"),
        ("OTEL_TRACES_SAMPLER_ARG", "often"),
    ],
)
def test_a_bad_setting_is_named_but_not_repeated(settings: pytest.MonkeyPatch, name: str, value: str) -> None:
    settings.setenv(name, value)
    with pytest.raises(BadSettings) as caught:
        load(ResultSettings)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: ")
    assert "secret" not in problem


def test_where_opentelemetry_is_missing_the_message_says_how_to_get_it(settings: pytest.MonkeyPatch) -> None:
    settings.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    settings.setitem(sys.modules, "opentelemetry.exporter", None)
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter.")]:
        settings.delitem(sys.modules, name)
    with pytest.raises(BadSettings) as caught:
        load(ResultSettings)
    (problem,) = caught.value.problems
    assert problem.startswith("OTEL_EXPORTER_OTLP_ENDPOINT: traces need OpenTelemetry, which is not installed")
    assert "requirements/cloud.txt" in problem
