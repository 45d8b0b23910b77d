"""Logs: one event a line, with a fixed name and fields; JSON, or a readable form on a terminal.

Nothing that belongs to a voter is ever passed to a logger: no cookie, no address, no choice.
"""

import logging
import sys
from typing import Literal

_is_absent = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]
import structlog  # noqa: E402 - with rich, which only the command line needs, each process would be 3 MiB larger
from structlog.typing import FilteringBoundLogger  # noqa: E402

if _is_absent:
    del sys.modules["rich"]


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
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    errors: list[structlog.typing.Processor] = [] if pretty else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, *errors, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *errors,
                render,
            ],
        )
    )
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
