"""A worker that ends at an exact point, or misbehaves there: the product is patched in memory, for tests only.

python -m tests.faults.points POINT worker
"""

import os
import signal
import sys
from typing import Any

from voting import __main__ as command
from voting.broker.stream import Consumer
from voting.database import counting
from voting.database.connection import Connection
from voting.worker.counter import Batch, Counter

_failed = False


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _is_time() -> bool:
    """Once: with the first votes."""
    global _failed
    is_time, _failed = not _failed, True
    return is_time


def after_read(signum: signal.Signals = signal.SIGKILL) -> None:
    """Entries are read and pending, and nothing is done with them."""
    original = Counter._process

    async def process(self: Counter, batch: Batch) -> None:
        if batch.entries and _is_time():
            os.kill(os.getpid(), signum)
        await original(self, batch)

    Counter._process = process  # type: ignore[method-assign]


def stops_after_read() -> None:
    """The same, but it may wake up again, with these entries still in its hands."""
    after_read(signal.SIGSTOP)


def in_transaction() -> None:
    """The statement was executed, and COMMIT never comes."""
    original = counting.count

    async def count(connection: Connection, votes: Any, dead: Any, traceparent: str = "") -> int:
        if votes and _is_time():
            await connection.execute("BEGIN")
            await original(connection, votes, dead, traceparent)
            _die()
        return await original(connection, votes, dead, traceparent)

    counting.count = count


def after_commit() -> None:
    """Counted, and not acknowledged."""
    original = Consumer.done

    async def done(self: Consumer, entries: list[Any]) -> None:
        if _is_time():
            _die()
        await original(self, entries)

    Consumer.done = done  # type: ignore[method-assign]


def after_acknowledging() -> None:
    """Acknowledged and deleted, which is one transaction of the broker, and the answer not seen."""
    original = Consumer.done

    async def done(self: Consumer, entries: list[Any]) -> None:
        await original(self, entries)
        if _is_time():
            _die()

    Consumer.done = done  # type: ignore[method-assign]


def never_acknowledges() -> None:
    """It counts, and leaves every entry pending."""

    async def done(self: Consumer, entries: list[Any]) -> None:
        del self, entries

    Consumer.done = done  # type: ignore[method-assign]


POINTS = {
    function.__name__: function
    for function in (
        after_read,
        stops_after_read,
        in_transaction,
        after_commit,
        after_acknowledging,
        never_acknowledges,
    )
}

if __name__ == "__main__":
    POINTS[sys.argv.pop(1)]()
    command.main()
