"""Publishes the definitions of polls and sessions from the database to Redis, and keeps the schedule of polls.

A NOTIFY says that something has changed, and may be lost: what was changed is read from the database at least once a
second. All published definitions are compared with the database at the start, once a minute, and when their numbers
differ, some hundreds at a time. Any number of workers may do this at once: see broker/publication.py.

One of the workers listens, the one that holds a lock of the database, since PostgreSQL wakes every connection that
listens at each NOTIFY, also for those of counted batches. If this worker hangs, changes take up to a second.
"""

import time
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from voting.broker import publication, seals
from voting.broker.publication import HASHES, Kind, Read, publish
from voting.database import poll_definitions
from voting.database.connection import DATA_ERRORS, Connection, deadline
from voting.polls.vote_parser import VoteParser
from voting.service import logs
from voting.service.lifecycle import Stop

POLL_SECONDS = 1.0  # between two reads without a NOTIFY
COMPARE_SECONDS = 60.0
CHUNK = 200  # names that are published at once: some milliseconds of work
RETRY_SECONDS = 0.05  # if a time has passed since the schedule was applied
TIMEOUT = 5.0  # seconds; time limit of each store

log = logs.get()


class DefinitionPublisher:
    """Publishes definitions on two connections, which nothing else uses.

    Args:
        database: may listen to changes while `run` is running.
        redis: a client.
        parser: forgets polls that have changed.
        on_closing: called while there are rounds that are closed and not final, at least once a second.
    """

    def __init__(
        self, database: Connection, redis: Redis, parser: VoteParser, on_closing: Callable[[], None] = lambda: None
    ) -> None:
        self._database, self._redis, self._parser = database, redis, parser
        self._on_closing = on_closing
        self._seen = 0  # number of the last change that was published
        self._compared = float("-inf")
        self._counted = float("-inf")
        self._withheld: dict[Kind, set[str]] = {"poll": set(), "session": set()}  # invalid and not published
        self._bad: dict[Kind, dict[str, str]] = {"poll": {}, "session": {}}
        self._bad_polls = logs.BadPollLog()
        self._schedule_error = ""  # the last one, which is logged once

    async def run(self, stop: Stop) -> None:
        """Publish until `stop` is set.

        Raises:
            redis.RedisError, psycopg.Error, OSError: a store failed.
        """
        async with deadline(self._database, TIMEOUT):
            self._seen = await poll_definitions.newest_change(self._database)
        self._parser.forget_all()
        is_listening = False
        while not stop.is_set():
            if not is_listening:
                async with deadline(self._database, TIMEOUT):
                    is_listening = await poll_definitions.listen_alone(self._database)
            wait = await self._keep_up()
            if await self._is_comparison_due():
                await self._compare(stop)
                wait = 0
            async for _ in self._database.notifies(timeout=wait, stop_after=1):
                pass

    async def _keep_up(self) -> float:
        """Publish what has changed, and apply the schedule; return the seconds until the next call."""
        await self._publish_changes()
        return await self._apply_schedule()

    async def _publish_changes(self) -> None:
        """Publish what has changed since the last call."""
        while True:
            async with deadline(self._database, TIMEOUT):
                changes = await poll_definitions.read_changes(self._database, self._seen, CHUNK)
            for change in changes:
                if change.kind == "poll":
                    self._parser.forget(change.name)
            for kind in HASHES:
                if names := [change.name for change in changes if change.kind == kind]:
                    await self._publish(kind, names)
            if changes:
                self._seen = changes[-1].changed
            if len(changes) < CHUNK:
                return

    async def _publish(self, kind: Kind, names: Sequence[str]) -> None:
        if kind == "poll":  # first, so that no vote is refused by a seal that the worker does not find any more
            await seals.unseal(self._redis, names, self._open_boxes)
        outcome = await publish(self._redis, kind, names, self._read(kind))
        if kind == "poll":
            await seals.forget(self._redis, outcome.removed)
        if changed := outcome.changed + outcome.removed:
            log.debug("definitions.published", kind=kind, number=len(changed))
        bad = {name: why for name, why in self._bad[kind].items() if name not in names} | {**outcome.bad}
        self._bad[kind] = bad
        self._withheld[kind] = self._withheld[kind].difference(names) | outcome.withheld
        self._bad_polls.log(self._bad["poll"] | {f"session {code}": why for code, why in self._bad["session"].items()})

    async def _open_boxes(self, slugs: Sequence[str]) -> set[str]:
        """Return the current rounds of those of these polls that are not closed."""
        async with deadline(self._database, TIMEOUT):
            return await poll_definitions.open_boxes(self._database, slugs)

    def _read(self, kind: Kind) -> Read:
        read = poll_definitions.read_polls if kind == "poll" else poll_definitions.read_sessions

        async def read_names(names: Sequence[str]) -> publication.Definitions:
            async with deadline(self._database, TIMEOUT):
                return await read(self._database, names)

        return read_names

    async def _apply_schedule(self) -> float:
        """Open and close the polls whose time has come; return the seconds until the next call."""
        try:
            async with deadline(self._database, TIMEOUT):
                due, is_closing = await poll_definitions.apply_schedule(self._database)
        except DATA_ERRORS as error:  # a check that somebody has added to the table
            if self._schedule_error != (text := f"{error.diag.message_primary}"):
                log.error("schedule.failed", error=text)
            self._schedule_error = text
            return POLL_SECONDS
        self._schedule_error = ""
        if is_closing:
            self._on_closing()
        return POLL_SECONDS if due is None else min(POLL_SECONDS, due if due > 0 else RETRY_SECONDS)

    async def _is_comparison_due(self) -> bool:
        """Whether the last comparison was long ago, or the numbers of published names are wrong."""
        now = time.monotonic()
        if now - self._compared >= COMPARE_SECONDS:
            return True
        if now - self._counted < POLL_SECONDS:
            return False
        self._counted = now
        if await self._are_numbers_right():
            return False
        await self._publish_changes()  # one may have been made between the last change that was read and the count
        return not await self._are_numbers_right()

    async def _are_numbers_right(self) -> bool:
        async with deadline(self._database, TIMEOUT):
            polls, sessions = await poll_definitions.count_definitions(self._database)
        expected = {"poll": polls - len(self._withheld["poll"]), "session": sessions - len(self._withheld["session"])}
        return await publication.published_numbers(self._redis) == expected

    async def _compare(self, stop: Stop) -> None:
        """Publish all that differs from the database; keep up with changes meanwhile."""
        self._compared = time.monotonic()
        for kind in HASHES:
            known: set[str] = set()
            names = [""]
            while not stop.is_set():
                async with deadline(self._database, TIMEOUT):
                    names = await poll_definitions.names_after(self._database, kind, names[-1], CHUNK)
                if not names:
                    break
                await self._publish(kind, names)
                known.update(names)
                await self._keep_up()
            if stop.is_set():  # not all names are known
                return
            others = await publication.other_names(self._redis, kind, known)
            for first in range(0, len(others), CHUNK):
                await self._publish(kind, others[first : first + CHUNK])
                await self._keep_up()
