"""What to read from the database next: what has changed, and what requests wait for.

Many requests for the same poll, or for many polls, wait for one read. Whatever was not found is remembered for a
second, and only so many requests may wait, so that a flood of unknown names does not become one on the database.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Self, cast

from voting.web.problems import Problem

MAX_ASKED = 1000  # names that requests wait for
MAX_READ = 200  # polls or sessions in one read
MISSING_SECONDS = 1.0
MAX_MISSING = 10_000


class Key(NamedTuple):
    """A poll or a session."""

    kind: Literal["poll", "session"]
    name: str  # slug or code

    @classmethod
    def parse(cls, payload: str) -> Self | None:
        """Parse the payload of a NOTIFY on the channel `definitions`."""
        kind, _, name = payload.partition(" ")
        return cls(cast("Literal['poll', 'session']", kind), name) if kind in {"poll", "session"} else None


class Demand:
    """The keys to read, in the order in which they were added."""

    def __init__(self) -> None:
        self._keys: dict[Key, bool] = {}  # -> whether it is urgent
        self._asked: dict[Key, asyncio.Future[None]] = {}
        self._missing: dict[Key, float] = {}  # -> until when
        self._event = asyncio.Event()  # there may be a key to read

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Let a key be read, because it has changed; if it is urgent, without regard to the pace of large polls."""
        self._keys[key] = urgent or self._keys.get(key, False)
        self._event.set()

    def forget_missing(self, key: Key) -> None:
        """Let a key be read when it is asked for, though it was missing: it may exist now."""
        self._missing.pop(key, None)

    def ask(self, key: Key) -> asyncio.Future[None] | None:
        """Let a key be read that is not held; return what is done afterwards, or None if it was missing just now.

        Raises:
            Problem: too many requests wait.
        """
        if self._missing.get(key, 0) > time.monotonic():
            return None
        if key not in self._asked:
            if len(self._asked) >= MAX_ASKED:
                raise Problem(503, "busy")
            self._asked[key] = asyncio.get_running_loop().create_future()
            self.add(key, urgent=True)
        return self._asked[key]

    def take(self, is_due: Callable[[Key], bool]) -> list[Key]:
        """Return the keys to read now, and forget them.

        Args:
            is_due: whether a key that is not urgent may be read now; others stay.
        """
        ready = [key for key, urgent in self._keys.items() if urgent or is_due(key)]
        taken = ready[:MAX_READ]
        for key in taken:
            del self._keys[key]
        if len(taken) == len(ready):
            self._event.clear()
        return taken

    def answer(self, key: Key, *, found: bool) -> None:
        """Let the requests for a key go on."""
        self._missing.pop(key, None)
        if not found:
            self._missing[key] = time.monotonic() + MISSING_SECONDS
            if len(self._missing) > MAX_MISSING:
                del self._missing[next(iter(self._missing))]
        if waiting := self._asked.pop(key, None):
            waiting.set_result(None)

    def give_up(self) -> None:
        """Let all requests go on, because the database is away."""
        for key in list(self._asked):
            self._asked.pop(key).set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait until there is something to read, at most some seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
