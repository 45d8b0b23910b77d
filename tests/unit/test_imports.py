"""Tests of imports without optional packages."""

import importlib
import subprocess
import sys

import pytest

from voting.service.imports import without


def test_a_package_is_absent_inside_the_block_only() -> None:
    sys.modules.pop("this", None)
    with without("this"), pytest.raises(ImportError):
        importlib.import_module("this")
    assert "this" not in sys.modules


def test_a_package_that_was_imported_before_stays() -> None:
    json = importlib.import_module("json")
    with without("json"):
        assert importlib.import_module("json") is json
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("service", "unused"),
    [
        ("vote", ("psycopg", "fastapi")),
        ("worker", ("jinja2", "fastapi")),
        ("result", ("redis", "fastapi")),
        ("admin", ("opentelemetry.sdk", "pydantic.v1", "redis")),
    ],
)
def test_a_service_does_not_import_what_it_does_not_use(service: str, unused: tuple[str, ...]) -> None:
    check = f"import voting.{service}.app, sys; print([name for name in {unused!r} if sys.modules.get(name)])"
    ended = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
