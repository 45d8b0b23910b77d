"""Logs: a repeated event is one line a second, and no traceback is lost."""

import json
import logging
import subprocess
import sys

import structlog

from voting.service.logs import MAX_NAMES, RepeatLimit


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def passes(limit: RepeatLimit, name: str, **fields: object) -> dict[str, object] | None:
    try:
        return dict(limit(None, "warning", {"event": name, **fields}))
    except structlog.DropEvent:
        return None


def record(message: str, *values: object, exc_info: bool = False) -> logging.LogRecord:
    error = (ValueError, ValueError("x"), None) if exc_info else None
    return logging.LogRecord("uvicorn.error", logging.WARNING, "file", 1, message, values, error)


def test_one_line_a_second_of_each_event_passes_with_the_number_suppressed() -> None:
    clock = Clock()
    limit = RepeatLimit(clock)
    assert passes(limit, "entry.dead", reason="x") == {"event": "entry.dead", "reason": "x"}
    assert [passes(limit, "entry.dead") for _ in range(5)] == [None] * 5
    assert passes(limit, "broker.refused") == {"event": "broker.refused"}
    assert passes(limit, "broker.refused", error="another") == {"event": "broker.refused", "error": "another"}
    clock.now = 0.99
    assert passes(limit, "entry.dead") is None
    clock.now = 1.0
    assert passes(limit, "entry.dead") == {"event": "entry.dead", "suppressed": 6}
    clock.now = 2.0
    assert passes(limit, "entry.dead") == {"event": "entry.dead"}


def test_lines_of_libraries_are_limited_by_their_message_without_its_values() -> None:
    limit = RepeatLimit(Clock())
    assert limit.filter(record("Invalid HTTP request received."))
    assert not limit.filter(record("Invalid HTTP request received."))
    assert limit.filter(record("callback of %s", 1))
    assert not limit.filter(record("callback of %s", 2))


def test_every_traceback_passes() -> None:
    limit = RepeatLimit(Clock())
    for _ in range(3):
        assert passes(limit, "bug", exc_info=True)
        assert limit.filter(record("bug", exc_info=True))


def test_memory_is_bounded_when_every_name_is_new() -> None:
    limit = RepeatLimit(Clock())
    for number in range(3 * MAX_NAMES):
        limit.filter(record(f"message {number}"))
    assert len(limit._passed) <= MAX_NAMES


PROGRAM = """
import logging, time
from voting.service import logs
logs.configure("vote", form="json", level="info")
for _ in range(100):
    logs.get().warning("entry.dead")
    logging.getLogger("uvicorn.error").warning("Unsupported upgrade request.")
time.sleep(1)
logs.get().warning("entry.dead")
logging.getLogger("uvicorn.error").warning("Unsupported upgrade request.")
"""


def test_the_log_of_a_service_is_limited() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stderr
    lines = [json.loads(line) for line in output.splitlines()]
    for name in ("entry.dead", "Unsupported upgrade request."):
        first, second = (line for line in lines if line["event"] == name)
        assert "suppressed" not in first
        assert second["suppressed"] == 99
        assert second["level"] == "warning"
