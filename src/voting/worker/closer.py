"""Seals rounds that have closed, and makes them final when all their votes are counted: see polls/closing.py.

All workers may do this at the same time: a seal is set once, and a round is locked while it is made final. Connections
are open only while a round is closing.
"""

import asyncio
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError

from voting.broker import seals
from voting.broker.connection import redis_client
from voting.database import closings, poll_definitions
from voting.database.connection import DATA_ERRORS, OUTAGES, Connection, connect, deadline
from voting.polls.closing import Closing
from voting.polls.poll import BadPoll
from voting.polls.slug import box
from voting.service import logs
from voting.service.lifecycle import Backoff, Stop, first_of, pause
from voting.settings.services import WorkerSettings
from voting.worker.installation import wait_for_match

TIMEOUT = 5.0  # seconds; time limit of each store
FINISH_SECONDS = 300  # time limit of a statement that lists the ballots of a round
MAX_ROUNDS = 1000  # that are looked at in one pass
MIN_WAIT, MAX_WAIT = 0.02, 0.5  # seconds between two passes
BAD_SECONDS = 5.0  # until a round that cannot be made final is tried again

log = logs.get()


class RoundCloser:
    """Closes rounds after each call of `wake`."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._has_work = asyncio.Event()
        self._bad: set[Closing] = set()

    def wake(self) -> None:
        """Look for rounds that are closed and not final."""
        self._has_work.set()

    async def run(self, stop: Stop) -> None:
        """Close rounds until `stop` is set; after an outage connect again, with backoff."""
        backoff = Backoff(0.05, 2)
        while not stop.is_set():
            await first_of(self._has_work, stop)
            self._has_work.clear()
            try:
                await self._close_all(stop)
                backoff.reset()
            except (RedisError, *OUTAGES) as error:
                wait = backoff.next()
                cause = f"{type(error).__name__}: {error}"
                log.warning("closing.interrupted", error=cause, retry_in=round(wait, 2))
                self._has_work.set()
                await pause(stop, wait)

    async def _close_all(self, stop: Stop) -> None:
        settings, name = self._settings, self._settings.worker_name
        async with redis_client(await settings.reread("redis_url"), timeout=TIMEOUT) as client:
            url = await settings.reread("database_url")
            async with connect(url, name=f"{name} closing", timeout=TIMEOUT) as database:
                # A worker that is frozen while it holds the lock of a round loses its connection, and so the lock.
                await database.execute(f"SET idle_in_transaction_session_timeout = '{TIMEOUT:g}s'")
                if await wait_for_match(stop, database, client):
                    await self._close_until_done(stop, database, client)

    async def _close_until_done(self, stop: Stop, database: Connection, client: Redis) -> None:
        wait = Backoff(MIN_WAIT, MAX_WAIT)
        while not stop.is_set():
            async with deadline(database, TIMEOUT):
                unfinished = await closings.read_unfinished(database, MAX_ROUNDS)
            if not unfinished:
                return
            finished = 0
            for closing in unfinished:
                try:
                    finished += await self._close(database, client, closing)
                except (BadPoll, *DATA_ERRORS) as error:  # a row or a check that somebody has changed
                    if closing not in self._bad:
                        log.error("round.bad", poll=closing.slug, round=closing.round, error=str(error))
                    self._bad.add(closing)
            if finished:
                wait.reset()
            await pause(stop, BAD_SECONDS if set(unfinished) <= self._bad else wait.next())

    async def _close(self, database: Connection, client: Redis, closing: Closing) -> bool:
        """Take the next steps of a round; return whether it is final now."""
        cut = await seals.seal(client, box(closing.slug, closing.round), closing.cut)
        if closing.cut is None:
            async with deadline(database, TIMEOUT):
                is_closing = await closings.store_cut(database, closing, cut)
            if not is_closing:  # it was deleted, and may have been made again
                await seals.unseal(client, [closing.slug], partial(poll_definitions.open_boxes, database))
                return False
            log.info("round.sealed", poll=closing.slug, round=closing.round)  # the cut can be a receipt
        if not await seals.has_passed(client, cut):
            return False
        async with deadline(database, FINISH_SECONDS):
            is_final = await closings.finish(database, closing, f"{FINISH_SECONDS}s")
        if is_final:
            log.info("round.final", poll=closing.slug, round=closing.round)
        return is_final
