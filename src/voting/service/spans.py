"""The spans of a service: one trace leads from the POST of a vote over COMMIT to the snapshot that shows it.

    vote     POST / ─┬─ XADD       then the field `traceparent` of the stream entry
    worker           └── count     then the text after the slug in the payload of NOTIFY
    result               └── snapshot

Nothing waits for the collector. Ended spans go into a bounded queue, which a thread of its own sends; while the
collector is away they are dropped. Nothing of a voter is in them: no choice, no voter, no address, no entry id, and
no text of an error, for PostgreSQL's may quote a row.
"""

import random
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voting import __version__

MAX_TRACED = 32  # votes of one batch, or hints before one snapshot, that get a span; the rest go without
QUEUE = 2048  # spans that wait to be sent; more are dropped
FLUSH_SECONDS = 2.0  # how long the end of a service may wait for the last ones

Cast = Callable[..., Awaitable[bytes]]

_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def parse_traceparent(text: bytes) -> SpanContext | None:
    """The span that a traceparent points to; None if the text is none, or its trace is not recorded.

    https://www.w3.org/TR/trace-context/#traceparent-header
    """
    found = _TRACEPARENT.fullmatch(text)
    if not found:
        return None
    trace, span, flags = (int(digits, 16) for digits in found.groups())
    context = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid and context.trace_flags.sampled else None


def format_traceparent(context: SpanContext) -> str:
    """The traceparent that points to a span: 55 characters."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class SpanRecorder:
    """What a service records of its part of the way of a vote.

    Args:
        service: its name.
        exporter: where spans go.
        share: of the votes that get a trace, 0 to 1.
    """

    def __init__(self, service: str, exporter: SpanExporter, share: float) -> None:
        about = Resource({"service.namespace": "voting", "service.name": service, "service.version": __version__})
        self._provider = TracerProvider(ALWAYS_ON, about, shutdown_on_exit=False)  # who asks for a span has decided
        queue = BatchSpanProcessor(exporter, QUEUE, schedule_delay_millis=1000, max_export_batch_size=256)
        self._provider.add_span_processor(queue)
        self._tracer = self._provider.get_tracer("voting", __version__)
        self._share = share

    def close(self) -> None:
        """Send what is left, if the collector takes it in time."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)  # its own patience is 30 s
        ending.start()
        ending.join(FLUSH_SECONDS)

    def ballot(self, app: ASGIApp) -> ASGIApp:
        """The same application, with a span from POST to answer for its share of the votes; it begins their trace.

        A client's own `traceparent` is not read: the ballot is open to all, and none of them says what is recorded.
        """
        return _Ballot(app, self._current, self._share)

    def cast(self, cast: Cast) -> Cast:
        """The same way into the ballot box, with a span until the vote is on disk; the stream entry points to it."""

        async def traced(poll: bytes, voter: bytes, choice: bytes) -> bytes:
            if not get_current_span().is_recording():
                return await cast(poll, voter, choice)
            with self._current("XADD", SpanKind.PRODUCER, attributes={"voting.poll": poll.decode()}) as span:
                return await cast(poll, voter, choice, format_traceparent(span.get_span_context()).encode())

        return traced

    @contextmanager
    def batch(self, entries: Sequence[tuple[object, list[bytes]]], taken: int) -> Iterator[str]:
        """Record how the traced votes of a batch get counted: each in its own trace, and the batch in one more.

        Args:
            entries: of the stream, as `Consumer` reads them.
            taken: when that was, in nanoseconds since the epoch.

        Yields:
            the traceparent to hand on with the news of this batch, that of the newest such vote; "" if there is none.
        """
        more = (dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in reversed(entries) if len(fields) > 6)
        votes = _recorded(fields.get(b"traceparent", b"") for fields in more)
        if not votes:
            yield ""
            return
        kind, size = SpanKind.CONSUMER, {"messaging.batch.message_count": len(entries)}
        links = [Link(vote) for vote in votes]
        with self._current("count batch", kind, Context(), links=links, start_time=taken, attributes=size) as batch:
            link = [Link(batch.get_span_context())]
            counts = [self._tracer.start_span("count", _in(vote), kind, None, link, taken) for vote in votes]
            try:
                yield format_traceparent(counts[0].get_span_context())
            except BaseException as error:
                for span in counts:
                    _fail(span, error)
                raise
            finally:
                for span in counts:
                    span.end()

    def snapshot(self, hints: Sequence[str], began: int) -> None:
        """Record a snapshot, read from `began` (ns) until now, in the traces that led to it: those in the hints."""
        traceparents = dict.fromkeys(hint.partition(" ")[2].encode() for hint in reversed(hints))  # polls share one
        for cause in _recorded(traceparents):
            self._tracer.start_span("snapshot", _in(cause), start_time=began).end()

    @contextmanager
    def _current(self, name: str, kind: SpanKind, context: Context | None = None, **more: Any) -> Iterator[Span]:
        more |= {"record_exception": False, "set_status_on_exception": False}
        with self._tracer.start_as_current_span(name, context, kind, **more) as span:
            try:
                yield span
            except BaseException as error:
                _fail(span, error)
                raise


class _Ballot:
    """An ASGI application that wraps the ballot's."""

    def __init__(self, app: ASGIApp, span: Callable[..., AbstractContextManager[Span]], share: float) -> None:
        self._app = app
        self._span = span
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST" or random.random() >= self._share:  # noqa: S311 - the SDK's sampler takes 100 times as long
            await self._app(scope, receive, send)
            return
        route = "/p/{poll}" if scope.get("path_params") else "/"
        about = {"http.request.method": "POST", "http.route": route}
        with self._span(f"POST {route}", SpanKind.SERVER, Context(), attributes=about) as span:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, answer)


def _recorded(traceparents: Iterable[bytes]) -> list[SpanContext]:
    """The first of the spans that they point to."""
    found = (context for text in traceparents if (context := parse_traceparent(text)))
    return list(islice(found, MAX_TRACED))


def _in(context: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(context), Context())


def _fail(span: Span, error: BaseException) -> None:
    """A span ends badly: the reason, where the error has one of our own words for it, or its type."""
    span.set_status(StatusCode.ERROR, getattr(error, "reason", type(error).__name__))
