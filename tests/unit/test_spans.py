"""The traceparent that travels on the stream and in NOTIFY, and what spans may hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    SpanContext,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    get_current_span,
)

from voting.service.spans import MAX_TRACED, SpanRecorder, extract, inject

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # the example of the W3C recommendation
GOOD = f"00-{TRACE}-{SPAN}-01".encode()


def extracted(text: bytes) -> SpanContext:
    context = extract(text)
    assert context is not None
    return get_current_span(context).get_span_context()


def test_a_traceparent_is_read_as_it_was_written() -> None:
    found = extracted(GOOD)
    assert (format_trace_id(found.trace_id), format_span_id(found.span_id), found.is_remote) == (TRACE, SPAN, True)
    assert inject(NonRecordingSpan(found)).encode() == GOOD


@pytest.mark.parametrize(
    "text",
    [
        b"",
        GOOD[:-1],
        GOOD + b"-more",
        GOOD.upper(),
        b"ff" + GOOD[2:],
        GOOD[:-1] + b"0",  # not sampled
        GOOD.replace(TRACE.encode(), b"0" * 32),
        GOOD.replace(SPAN.encode(), b"0" * 16),
        GOOD.replace(b"4b", b"4g"),
        b"\xff" * 55,
    ],
)
def test_a_malformed_or_unsampled_traceparent_names_no_span(text: bytes) -> None:
    assert extract(text) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert extracted(b"01" + GOOD[2:] + b"-more") == extracted(GOOD)


def test_a_long_traceparent_is_ignored_without_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    assert extract(b"01" + GOOD[2:] + b"-" + b"x" * 500) is None
    assert not caplog.records


@given(st.binary(max_size=80))
def test_no_bytes_at_all_make_it_raise(text: bytes) -> None:
    extract(text)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
def test_the_traceparent_of_every_sampled_span_can_be_read(trace: int, span: int) -> None:
    context = SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(1))
    text = inject(NonRecordingSpan(context))
    assert len(text) == 55
    found = extracted(text.encode())
    assert (found.trace_id, found.span_id) == (trace, span)


def test_a_span_that_is_not_valid_has_no_traceparent() -> None:
    assert inject(INVALID_SPAN) == ""


def entry(number: int) -> tuple[object, list[bytes]]:
    traceparent = b"00-%032x-%016x-01" % (number, number)
    return None, [b"poll", b"default", b"voter", b"v" * 16, b"choice", b"a", b"traceparent", traceparent]


@pytest.fixture
def recorded() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def test_of_a_large_batch_a_limited_number_of_votes_is_traced_the_newest(recorded: InMemorySpanExporter) -> None:
    worker = SpanRecorder("worker", recorded, 1)
    with worker.record_batch([entry(number) for number in range(1, 1001)], parsed_ns=1) as traceparent:
        pass
    worker.close()
    *counts, batch = recorded.get_finished_spans()
    assert len(counts) == len(batch.links) == MAX_TRACED
    assert {span.context.trace_id for span in counts if span.context} == set(range(1001 - MAX_TRACED, 1001))
    assert extracted(traceparent.encode()).trace_id == 1000
    assert batch.attributes == {"messaging.batch.message_count": 1000}


def test_a_batch_without_a_traced_vote_leaves_no_trace(recorded: InMemorySpanExporter) -> None:
    worker = SpanRecorder("worker", recorded, 1)
    plain = [b"poll", b"default", b"voter", b"v" * 16, b"choice", b"a"]
    with worker.record_batch(
        [(None, plain), (None, []), (None, [*plain, b"traceparent", b"junk"])], parsed_ns=1
    ) as traceparent:
        assert traceparent == ""
    worker.close()
    assert recorded.get_finished_spans() == ()


def test_a_failure_leaves_its_kind_but_not_its_text(recorded: InMemorySpanExporter) -> None:
    worker = SpanRecorder("worker", recorded, 1)
    with pytest.raises(ValueError, match="the row"), worker.record_batch([entry(1)], parsed_ns=1):
        raise ValueError("the row of voter 1234 is bad")
    worker.close()
    ended = recorded.get_finished_spans()
    assert {span.name for span in ended} == {"count", "count batch"}
    assert {(span.status.status_code, span.status.description) for span in ended} == {(StatusCode.ERROR, "ValueError")}
    assert not any("1234" in span.to_json() for span in ended)


def test_a_snapshot_joins_each_trace_that_led_to_it_once(recorded: InMemorySpanExporter) -> None:
    result = SpanRecorder("result", recorded, 1)
    hints = ["default", f"default {GOOD.decode()}", f"other {GOOD.decode()}", "default junk", ""]
    result.record_snapshot(hints, started=1)
    result.close()
    (span,) = recorded.get_finished_spans()
    assert span.name == "snapshot"
    assert span.parent == extracted(GOOD)
