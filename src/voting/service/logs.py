"""Logs: one event a line, with a fixed name and fields; JSON, or a readable form on a terminal.

A flood of one event, such as that of bad requests, is one line a second: see `RateLimit`.

Nothing that belongs to a voter is ever passed to a logger: no cookie, no address, no choice.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

_is_absent = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
import structlog  # noqa: E402 - with rich, which no service needs, each process would be 3 MiB larger
from structlog.typing import FilteringBoundLogger  # noqa: E402

if _is_absent:
    del sys.modules["rich"]

LINE_SECONDS = 1.0
MAX_NAMES = 1000
MAX_NAME = 200  # characters of an event and its error


class RateLimit(logging.Filter):
    """Lets one line a second through for each event and error, with the number of those `suppressed` since the last.

    Lines with a traceback always pass. It is a processor of structlog, and a filter for libraries that use `logging`,
    whose event name is the message before its values are put in. The last lines of a flood are only counted in the
    next such line, whenever it comes.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}  # name -> when a line passed, and how many have not since

    def _admit(self, name: str) -> int | None:
        """Return how many lines were suppressed before this one; None if this one is."""
        now = self._clock()
        passed, suppressed = self._seen.get(name, (float("-inf"), 0))
        if now - passed < LINE_SECONDS:
            self._seen[name] = passed, suppressed + 1
            return None
        if len(self._seen) >= MAX_NAMES:
            self._seen.clear()
        self._seen[name] = now, 0
        return suppressed

    def __call__(self, _logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Pass an event of ours on, or drop it."""
        if not event.get("exc_info"):
            suppressed = self._admit(f"{event['event']} {event.get('error', '')}"[:MAX_NAME])
            if suppressed is None:
                raise structlog.DropEvent
            if suppressed:
                event["suppressed"] = suppressed
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a library's line is shown."""
        if record.exc_info:
            return True
        suppressed = self._admit(f"{record.name} {record.msg}")
        if suppressed:
            record.suppressed = suppressed
        return suppressed is not None


def configure(service: str, *, form: Literal["auto", "json", "console"], level: str) -> None:
    """Set up logging of this process, to standard error; libraries that use `logging` end there too."""
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.EventRenamer("event"),
    ]
    limit = RateLimit()
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    errors: list[structlog.typing.Processor] = [] if pretty else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[limit, *shared, *errors, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder({"suppressed"})],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *errors,
                render,
            ],
        )
    )
    handler.addFilter(limit)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    structlog.contextvars.bind_contextvars(service=service)


def get() -> FilteringBoundLogger:
    """The logger; every module calls this once."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


class BadPolls:
    """Logs each poll that cannot be used once, and again when something else is wrong with it."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def note(self, bad: dict[str, str]) -> None:
        """Take what is bad now: slug -> what is wrong."""
        for slug, reason in bad.items():
            if self._known.get(slug) != reason:
                get().error("poll.bad", poll=slug, error=reason)
        self._known = bad
