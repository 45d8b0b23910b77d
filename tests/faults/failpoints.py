"""Workers that die, stop or misbehave at a failpoint: the product patched in memory, for tests only.

python -m tests.faults.failpoints FAILPOINT worker
"""

import asyncio
import os
import signal
import sys
from typing import Any

from voting import __main__ as command
from voting.broker import publication, seals
from voting.broker.stream import Consumer
from voting.database import counting
from voting.database.connection import Connection
from voting.polls.poll import DEFAULT_POLL, Poll
from voting.polls.vote import EntryId
from voting.worker import definitions
from voting.worker.batch import Batch
from voting.worker.counter import VoteCounter

_has_failed = False


def die() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def first_call() -> bool:
    """Return True once, as with the first votes."""
    global _has_failed
    is_first, _has_failed = not _has_failed, True
    return is_first


def after_read(signum: signal.Signals = signal.SIGKILL) -> None:
    """Die when entries are read and pending."""
    original = VoteCounter._handle_batch

    async def process(self: VoteCounter, batch: Batch) -> None:
        if batch.entries and first_call():
            os.kill(os.getpid(), signum)
        await original(self, batch)

    VoteCounter._handle_batch = process  # type: ignore[method-assign]


def stops_after_read() -> None:
    """Stop when entries are read and pending; SIGCONT makes the worker go on with them."""
    after_read(signal.SIGSTOP)


def in_transaction() -> None:
    """Die between the statement and COMMIT."""
    original = counting.count

    async def count(connection: Connection, votes: Any, dead: Any, traceparent: str = "") -> int:
        if votes and first_call():
            await connection.execute("BEGIN")
            await original(connection, votes, dead, traceparent)
            die()
        return await original(connection, votes, dead, traceparent)

    counting.count = count


def after_commit() -> None:
    """Die when entries are counted and not acknowledged."""
    original = Consumer.acknowledge

    async def acknowledge(self: Consumer, entries: list[Any]) -> None:
        if first_call():
            die()
        await original(self, entries)

    Consumer.acknowledge = acknowledge  # type: ignore[method-assign]


def after_acknowledging() -> None:
    """Die when entries are acknowledged and deleted, which is one transaction, before the answer is read."""
    original = Consumer.acknowledge

    async def acknowledge(self: Consumer, entries: list[Any]) -> None:
        await original(self, entries)
        if first_call():
            die()

    Consumer.acknowledge = acknowledge  # type: ignore[method-assign]


def never_acknowledges() -> None:
    """Count, and leave every entry pending."""

    async def acknowledge(self: Consumer, entries: list[Any]) -> None:
        del self, entries

    Consumer.acknowledge = acknowledge  # type: ignore[method-assign]


def stops_before_publishing() -> None:
    """Stop when the definition of an open poll is read; SIGCONT makes the worker publish it, and die."""
    original = publication.publish
    stopped = False

    async def publish(client: Any, kind: Any, names: Any, read: publication.Read) -> publication.Published:
        async def read_and_stop(slugs: Any) -> publication.Definitions:
            nonlocal stopped
            found = await read(slugs)
            polls = [each for each in found[0].values() if isinstance(each, Poll) and each.slug != DEFAULT_POLL]
            if not stopped and any(poll.state == "open" for poll in polls):
                stopped = True
                await asyncio.sleep(0.2)  # until Redis has answered, too, or that would have taken too long afterwards
                os.kill(os.getpid(), signal.SIGSTOP)
            return found

        outcome = await original(client, kind, names, read_and_stop)
        if stopped:
            die()
        return outcome

    definitions.publish = publish  # type: ignore[attr-defined]


def after_sealing() -> None:
    """Die when the broker has sealed a round, before the database knows it."""
    original = seals.seal

    async def seal(client: Any, box: str, cut: EntryId | None = None) -> EntryId:
        await original(client, box, cut)
        die()
        raise AssertionError

    seals.seal = seal


FAILPOINTS = {
    function.__name__: function
    for function in (
        after_read,
        stops_after_read,
        in_transaction,
        after_commit,
        after_acknowledging,
        never_acknowledges,
        stops_before_publishing,
        after_sealing,
    )
}

if __name__ == "__main__":
    FAILPOINTS[sys.argv.pop(1)]()
    command.main()
