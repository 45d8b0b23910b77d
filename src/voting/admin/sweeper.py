"""Deletes ended sessions and votes of deleted polls, and erases who voted for what in final rounds, in the background.

A transaction takes some thousand votes at most, so no worker waits long. What was begun when the service stopped is
done after its next start.
"""

import asyncio
import contextlib

from voting.admin import sessions
from voting.admin.database import Database
from voting.admin.identity import SCHEDULE
from voting.database.queries import QUERIES
from voting.service import logs
from voting.service.lifecycle import Stop, first_of
from voting.web.problems import Problem

VOTES = 2000  # of one transaction
SECONDS = 60.0  # between two looks: workers may still count votes that they had read before the poll was deleted

log = logs.get()


class Sweeper:
    """Sweeps when it starts, after a poll was deleted, and once a minute."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake = asyncio.Event()
        database.on_change.append(self._note)

    def _note(self, actions: list[str]) -> None:
        if "delete" in actions:
            self._wake.set()

    async def run(self, stop: Stop) -> None:
        """Sweep until `stop` is set; what is left is swept after the next start."""
        while not stop.is_set():
            for step in (self._end_sessions, self._sweep, self._erase):
                with contextlib.suppress(Problem):  # the database is away, which it has logged
                    await step(stop)
            await first_of(stop, self._wake, seconds=SECONDS)
            self._wake.clear()

    async def _end_sessions(self, stop: Stop) -> None:
        """Delete the sessions whose days are over: see `sessions.delete_ended`."""
        async with self._database.read() as connection:
            cursor = await connection.execute(QUERIES["admin_ended_sessions"])
            codes = [code for (code,) in await cursor.fetchall()]
        for code in codes:
            if not stop.is_set():
                async with self._database.write(SCHEDULE) as change:
                    await sessions.delete_ended(change, code)

    async def _sweep(self, stop: Stop) -> None:
        swept = 0
        while not stop.is_set() and (votes := await self._call("admin_sweep")):
            swept += votes
        if swept:
            log.info("votes.swept", votes=swept)

    async def _erase(self, stop: Stop) -> None:
        """Erase the pseudonyms of final rounds that are due: see 0008_audit.sql."""
        while not stop.is_set() and await self._call("admin_erase"):
            pass

    async def _call(self, query: str) -> int:
        async with self._database.work() as connection:
            cursor = await connection.execute(QUERIES[query], {"most": VOTES})
            row = await cursor.fetchone()
        return int(row[0]) if row else 0
