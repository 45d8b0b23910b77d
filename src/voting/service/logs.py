"""Logs: one event a line, with a fixed name and fields; JSON, or a readable form on a terminal.

An event that repeats quickly is logged once a second: see `RepeatLimit`. No cookie, address or choice is ever logged.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

from voting.service.imports import without

with without("rich"):  # import-linter installs it: 3 MiB more in each process
    import structlog
    from structlog import processors, stdlib
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

REPEAT_SECONDS = 1.0
MAX_NAMES = 1000
MAX_NAME_LENGTH = 200  # characters of an event and its error


class RepeatLimit(logging.Filter):
    """Passes one line a second for each event and error, with the number of lines `suppressed` since the last.

    Lines with a traceback always pass. It is a processor of structlog, and a filter for libraries that use `logging`,
    whose event name is the message without its arguments. The next such line, however late, reports those suppressed
    at the end of a burst.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[str, tuple[float, int]] = {}  # name -> time of the last line, number suppressed since

    def _admit(self, name: str) -> int | None:
        """Return how many lines were suppressed before this one; None if this line is suppressed too."""
        now = self._clock()
        passed, suppressed = self._passed.get(name, (float("-inf"), 0))
        if now - passed < REPEAT_SECONDS:
            self._passed[name] = passed, suppressed + 1
            return None
        if len(self._passed) >= MAX_NAMES:
            self._passed.clear()
        self._passed[name] = now, 0
        return suppressed

    def __call__(self, _logger: object, _method: str, event: EventDict) -> EventDict:
        """Return an event, or drop it (a processor of structlog)."""
        if not event.get("exc_info"):
            suppressed = self._admit(f"{event['event']} {event.get('error', '')}"[:MAX_NAME_LENGTH])
            if suppressed is None:
                raise structlog.DropEvent
            if suppressed:
                event["suppressed"] = suppressed
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a library's line passes (`logging.Filter`)."""
        if record.exc_info:
            return True
        suppressed = self._admit(f"{record.name} {record.msg}")
        if suppressed:
            record.suppressed = suppressed
        return suppressed is not None


def configure(service: str, *, form: Literal["auto", "json", "console"], level: str) -> None:
    """Log to standard error, including lines that libraries log with `logging`."""
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    stamp, rename = processors.TimeStamper(fmt="iso", utc=True), processors.EventRenamer("event")
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, processors.add_log_level, stamp, rename]
    limit = RepeatLimit()
    render: Processor = structlog.dev.ConsoleRenderer() if is_console else processors.JSONRenderer()
    errors: list[Processor] = [] if is_console else [processors.format_exc_info]
    structlog.configure(
        processors=[limit, *shared, *errors, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    formatter = stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, stdlib.ExtraAdder({"suppressed"})],
        processors=[stdlib.ProcessorFormatter.remove_processors_meta, *errors, render],
    )
    handler.setFormatter(formatter)
    handler.addFilter(limit)
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)
    structlog.contextvars.bind_contextvars(service=service)


def get() -> FilteringBoundLogger:
    """Return the logger."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


class BadPollLog:
    """Logs an invalid poll once, and again when its error changes."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def log(self, bad: dict[str, str]) -> None:
        """Log the polls that are invalid now (slug -> error), unless logged before."""
        for slug, reason in bad.items():
            if self._known.get(slug) != reason:
                get().error("poll.bad", poll=slug, error=reason)
        self._known = bad
