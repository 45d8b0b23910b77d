"""Deletes the votes of deleted polls in the background, some thousand in one transaction, so no worker waits long."""

import asyncio
import contextlib
from collections.abc import Coroutine

from voting.admin.database import Database
from voting.database.queries import QUERIES
from voting.service import logs
from voting.service.lifecycle import Stop
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
            with contextlib.suppress(Problem):  # the database is away, which it has logged
                await self._sweep(stop)
            await _first(stop.wait(), self._wake.wait())
            self._wake.clear()

    async def _sweep(self, stop: Stop) -> None:
        swept = 0
        while not stop.is_set():
            async with self._database.work() as connection:
                cursor = await connection.execute(QUERIES["admin_sweep"], {"most": VOTES})
                row = await cursor.fetchone()
            if not row or not row[0]:
                break
            swept += row[0]
        if swept:
            log.info("votes.swept", votes=swept)


async def _first(*events: Coroutine[object, object, object]) -> None:
    """Wait until one of them is done, or for `SECONDS`."""
    tasks = [asyncio.ensure_future(event) for event in events]
    try:
        await asyncio.wait(tasks, timeout=SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
