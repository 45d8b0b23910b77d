"""Reads from the database what the demand names, and compares revisions.

Evaluating a poll takes time that grows with the number of different choices; in a ranking each voter may have another
one. So a poll with many choices is read alone, evaluated in a thread, and read again only after `PACE` times as long as
that took. Its definition, as whether it is visible, is shown without delay.
"""

import asyncio
import time

from voting.database.connection import Connection
from voting.database.poll_definitions import read_sessions
from voting.database.poll_state import PollState, poll_revisions, poll_states
from voting.database.session_state import session_changes
from voting.polls.tally import Evaluation, evaluate
from voting.result.demand import Key
from voting.result.hub import Hub
from voting.service import logs

PACE = 9  # so it takes at most a tenth of the time
MANY_CHOICES = 1000  # characters of JSON; from here on, some 40 choices of a ranking, a poll has many


def _evaluate(state: PollState) -> Evaluation:
    return evaluate(state.poll, state.votes)


class Reader:
    """Reads for a hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._bad = logs.BadPollLog()
        self._due: dict[str, float] = {}  # polls with many choices -> when they may be read again
        self._evaluating: dict[str, asyncio.Task[None]] = {}

    async def check(self, connection: Connection) -> None:
        """Compare everything that is held with the database."""
        slugs, codes = list(self._hub.channels), list(self._hub.sessions)
        revisions = await poll_revisions(connection, slugs)
        self._hub.check(revisions, await session_changes(connection, codes) if codes else {})

    async def read(self, connection: Connection) -> None:
        """Read what is due."""
        for slug in [slug for slug, task in self._evaluating.items() if task.done()]:
            self._evaluating.pop(slug).result()  # raises what the task has raised
        keys = self._hub.demand.take(self._is_due)
        codes = [key.name for key in keys if key.kind == "session"]
        slugs = [key.name for key in keys if key.kind == "poll"]
        found, _ = await read_sessions(connection, codes) if codes else ({}, {})
        sessions = found.values()
        currents = {session.current for session in sessions if session.current} - self._hub.channels.keys()
        slugs = list(dict.fromkeys([*slugs, *currents]))
        many = [slug for slug in slugs if slug in self._due]
        for group in ([slug for slug in slugs if slug not in self._due], *([slug] for slug in many)):
            if group:
                await self._read_polls(connection, group)
        if codes:
            self._hub.update_sessions(codes, sessions)

    def _is_due(self, key: Key) -> bool:
        return key.kind == "session" or (
            key.name not in self._evaluating and self._due.get(key.name, 0) <= time.monotonic()
        )

    async def _read_polls(self, connection: Connection, slugs: list[str]) -> None:
        began = time.monotonic()
        states, bad = await poll_states(connection, slugs)
        took = time.monotonic() - began
        self._bad.log(bad)
        for state in states:
            slug = state.poll.slug
            if len(state.tallies) < MANY_CHOICES:
                self._due.pop(slug, None)
                self._hub.update(state, _evaluate(state))
            else:
                self._hub.update(state, None)
                self._begin(state, took)
        for slug in set(slugs) - {state.poll.slug for state in states}:
            self._due.pop(slug, None)
            self._hub.remove(slug, unreadable=slug in bad)

    def _begin(self, state: PollState, took: float) -> None:
        """Evaluate a poll in a thread; if that is being done, leave it to the next read."""
        slug = state.poll.slug
        if slug in self._evaluating:
            self._hub.demand.add(Key("poll", slug))
            return
        self._evaluating[slug] = asyncio.create_task(self._evaluate(state, took))

    async def _evaluate(self, state: PollState, took: float) -> None:
        began, slug = time.monotonic(), state.poll.slug
        self._hub.count(state, await asyncio.to_thread(_evaluate, state))
        now = time.monotonic()
        self._due[slug] = now + PACE * (took + now - began)
