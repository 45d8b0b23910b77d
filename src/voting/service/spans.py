"""Records the spans of a vote: one trace from its POST over COMMIT to the snapshot that shows it.

    vote     POST / ─┬─ XADD       the field `traceparent` of the stream entry names this span
    worker           └── count     the payload of NOTIFY names this span, after the slug
    result               └── snapshot

No service waits for the collector. A thread sends ended spans from a bounded queue; spans that do not fit are dropped.
Spans hold no choice, voter, address or entry id, and no text of an error: PostgreSQL's may quote a row.
"""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voting import __version__
from voting.service.tracing import Publish, Recorder

MAX_TRACED = 32  # spans recorded for one batch or one snapshot; further traced votes get none
QUEUE = 2048  # ended spans that wait to be sent; more are dropped
FLUSH_SECONDS = 2.0  # longest wait of a service that stops, until the last spans are sent
MAX_TRACEPARENT = 512  # bytes; the propagator would log each longer one

_PROPAGATOR = TraceContextTextMapPropagator()


def extract(traceparent: bytes) -> Context | None:
    """Return the context of the span that a traceparent names, or None if it is malformed or its trace not sampled.

    https://www.w3.org/TR/trace-context/#traceparent-header
    """
    if len(traceparent) > MAX_TRACEPARENT:
        return None
    context = _PROPAGATOR.extract({"traceparent": traceparent.decode("latin-1")}, Context())
    return context if get_current_span(context).get_span_context().trace_flags.sampled else None


def inject(span: Span) -> str:
    """Return the traceparent that names a span, 55 characters; "" for a span that is not valid."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")


class SpanRecorder(Recorder):
    """Records the spans of a service; `sample_rate` (0 to 1) is the share of POSTs that `trace_posts` traces."""

    def __init__(self, service: str, exporter: SpanExporter, sample_rate: float) -> None:
        resource = Resource({"service.namespace": "voting", "service.name": service, "service.version": __version__})
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)  # the caller decides sampling
        queue = BatchSpanProcessor(exporter, QUEUE, schedule_delay_millis=1000, max_export_batch_size=256)
        self._provider.add_span_processor(queue)
        self._tracer = self._provider.get_tracer("voting", __version__)
        self._sample_rate = sample_rate

    def close(self) -> None:
        """Send the spans in the queue, for at most `FLUSH_SECONDS`."""
        shutdown = threading.Thread(target=self._provider.shutdown, daemon=True)  # which may take 30 s
        shutdown.start()
        shutdown.join(FLUSH_SECONDS)

    def trace_posts(self, app: ASGIApp) -> ASGIApp:
        """Return the application with a new trace for a sample of its POSTs.

        The `traceparent` of a request is ignored: any client may vote, and none may decide what is recorded.
        """
        return _TracedPosts(app, self._current, self._sample_rate)

    def trace_publish(self, publish: Publish) -> Publish:
        """Return `VoteProducer.publish` with a span for each vote of a traced request; the stream entry names it."""

        async def traced(poll: bytes, voter: bytes, choice: bytes) -> bytes:
            if not get_current_span().is_recording():
                return await publish(poll, voter, choice)
            with self._current("XADD", SpanKind.PRODUCER, attributes={"voting.poll": poll.decode()}) as span:
                return await publish(poll, voter, choice, inject(span).encode())

        return traced

    @contextmanager
    def record_batch(self, entries: Sequence[tuple[object, list[bytes]]], parsed_ns: int) -> Iterator[str]:
        """Record a span for the batch, and one in the trace of each traced vote, newest first, up to `MAX_TRACED`.

        Args:
            entries: from `Consumer`.
            parsed_ns: when they were parsed, in nanoseconds since the epoch.

        Yields:
            The traceparent of the newest traced vote, for NOTIFY; "" if there is none.
        """
        traced = (
            dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in reversed(entries) if len(fields) > 6
        )
        parents = _sampled(fields.get(b"traceparent", b"") for fields in traced)
        if not parents:
            yield ""
            return
        kind, size = SpanKind.CONSUMER, {"messaging.batch.message_count": len(entries)}
        links = [_link(get_current_span(parent)) for parent in parents]
        with self._current("count batch", kind, Context(), links=links, start_time=parsed_ns, attributes=size) as batch:
            link = [_link(batch)]
            counts = [self._tracer.start_span("count", parent, kind, None, link, parsed_ns) for parent in parents]
            try:
                yield inject(counts[0])
            except BaseException as error:
                for span in counts:
                    _set_error(span, error)
                raise
            finally:
                for span in counts:
                    span.end()

    def record_snapshot(self, hints: Sequence[str], started: int) -> None:
        """Record a span from `started` (nanoseconds since the epoch) until now in each trace.

        Args:
            hints: payloads of NOTIFY, which name the traces.
            started: when the snapshot was begun.
        """
        traceparents = dict.fromkeys(hint.partition(" ")[2].encode() for hint in reversed(hints))  # polls share one
        for parent in _sampled(traceparents):
            self._tracer.start_span("snapshot", parent, start_time=started).end()

    @contextmanager
    def _current(self, name: str, kind: SpanKind, context: Context | None = None, **options: Any) -> Iterator[Span]:
        options |= {"record_exception": False, "set_status_on_exception": False}
        with self._tracer.start_as_current_span(name, context, kind, **options) as span:
            try:
                yield span
            except BaseException as error:
                _set_error(span, error)
                raise


class _TracedPosts:
    """An ASGI application that records a span for a sample of the POSTs to another one."""

    def __init__(self, app: ASGIApp, span: Callable[..., AbstractContextManager[Span]], sample_rate: float) -> None:
        self._app = app
        self._span = span
        self._sample_rate = sample_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST" or random.random() >= self._sample_rate:  # noqa: S311 - the SDK's sampler takes 100 times as long
            await self._app(scope, receive, send)
            return
        route = "/p/{poll}" if scope.get("path_params") else "/"
        attributes = {"http.request.method": "POST", "http.route": route}
        with self._span(f"POST {route}", SpanKind.SERVER, Context(), attributes=attributes) as span:

            async def send_traced(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, send_traced)


def _sampled(traceparents: Iterable[bytes]) -> list[Context]:
    return list(islice(filter(None, map(extract, traceparents)), MAX_TRACED))


def _link(span: Span) -> Link:
    return Link(span.get_span_context())


def _set_error(span: Span, error: BaseException) -> None:
    """Set a span's status to the error's `reason`, if it has one, or its type."""
    span.set_status(StatusCode.ERROR, getattr(error, "reason", type(error).__name__))
