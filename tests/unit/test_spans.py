"""The traceparent that travels on the stream and in NOTIFY, and what spans may hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags

from voting.service.spans import MAX_TRACED, SpanRecorder, format_traceparent, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # the example of the W3C recommendation
GOOD = f"00-{TRACE}-{SPAN}-01".encode()


def test_a_traceparent_is_read_as_it_was_written() -> None:
    context = parse_traceparent(GOOD)
    assert context is not None
    assert (f"{context.trace_id:032x}", f"{context.span_id:016x}", context.is_remote) == (TRACE, SPAN, True)
    assert format_traceparent(context).encode() == GOOD


@pytest.mark.parametrize(
    "text",
    [
        b"",
        GOOD[:-1],
        GOOD + b"\n",
        GOOD + b"-more",
        GOOD.upper(),
        b"01" + GOOD[2:],
        GOOD[:-1] + b"0",  # not recorded
        GOOD.replace(TRACE.encode(), b"0" * 32),
        GOOD.replace(SPAN.encode(), b"0" * 16),
        GOOD.replace(b"4b", b"4g"),
        b"\xff" * 55,
    ],
)
def test_anything_else_points_nowhere(text: bytes) -> None:
    assert parse_traceparent(text) is None


@given(st.binary(max_size=80))
def test_no_bytes_at_all_make_it_raise(text: bytes) -> None:
    parse_traceparent(text)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
def test_every_recorded_span_can_be_pointed_to(trace: int, span: int) -> None:
    text = format_traceparent(SpanContext(trace, span, is_remote=False, trace_flags=TraceFlags(1)))
    assert len(text) == 55
    found = parse_traceparent(text.encode())
    assert found is not None
    assert (found.trace_id, found.span_id) == (trace, span)


def entry(number: int) -> tuple[object, list[bytes]]:
    traceparent = b"00-%032x-%016x-01" % (number, number)
    return None, [b"poll", b"default", b"voter", b"v" * 16, b"choice", b"a", b"traceparent", traceparent]


@pytest.fixture
def recorded() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def test_of_a_large_batch_a_limited_number_of_votes_is_traced_the_newest(recorded: InMemorySpanExporter) -> None:
    worker = SpanRecorder("worker", recorded, 1)
    with worker.batch([entry(number) for number in range(1, 1001)], taken=1) as traceparent:
        pass
    worker.close()
    *counts, batch = recorded.get_finished_spans()
    assert len(counts) == len(batch.links) == MAX_TRACED
    assert {span.context.trace_id for span in counts if span.context} == set(range(1001 - MAX_TRACED, 1001))
    newest = parse_traceparent(traceparent.encode())
    assert newest is not None
    assert newest.trace_id == 1000
    assert batch.attributes == {"messaging.batch.message_count": 1000}


def test_a_batch_without_a_traced_vote_leaves_no_trace(recorded: InMemorySpanExporter) -> None:
    worker = SpanRecorder("worker", recorded, 1)
    plain = [b"poll", b"default", b"voter", b"v" * 16, b"choice", b"a"]
    with worker.batch([(None, plain), (None, []), (None, [*plain, b"traceparent", b"junk"])], taken=1) as traceparent:
        assert traceparent == ""
    worker.close()
    assert recorded.get_finished_spans() == ()


def test_a_failure_leaves_its_kind_but_not_its_text(recorded: InMemorySpanExporter) -> None:
    worker = SpanRecorder("worker", recorded, 1)
    with pytest.raises(ValueError, match="the row"), worker.batch([entry(1)], taken=1):
        raise ValueError("the row of voter 1234 is bad")
    worker.close()
    ended = recorded.get_finished_spans()
    assert {span.name for span in ended} == {"count", "count batch"}
    assert {(span.status.status_code, span.status.description) for span in ended} == {(StatusCode.ERROR, "ValueError")}
    assert not any("1234" in span.to_json() for span in ended)


def test_a_snapshot_joins_each_trace_that_led_to_it_once(recorded: InMemorySpanExporter) -> None:
    result = SpanRecorder("result", recorded, 1)
    hints = ["default", f"default {GOOD.decode()}", f"other {GOOD.decode()}", "default junk", ""]
    result.snapshot(hints, began=1)
    result.close()
    (span,) = recorded.get_finished_spans()
    assert span.name == "snapshot"
    assert span.parent == parse_traceparent(GOOD)
