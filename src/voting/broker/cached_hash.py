"""A bounded cache of one hash of definitions. It does no I/O: `PollCache` reads what `take` returns."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Generic, TypeVar

from voting.polls.poll import BadPoll, Poll
from voting.polls.session import BadSession, Session

CAPACITY = 1000  # definitions, and as many names that are missing
MISS_SECONDS = 1.0  # for which a missing name is remembered
CHUNK = 250  # names that one command reads

T = TypeVar("T", Poll, Session)


class CachedHash(Generic[T]):
    """What is cached of one hash.

    Args:
        key: the hash.
        parse: returns the definition of a name and its JSON, or raises `BadPoll` or `BadSession`.
        on_change: called with name and definition when one enters the cache or has changed, and with None when it
            leaves.
        pinned: a name that is always read, and never evicted.

    Attributes:
        bad: name -> error of what is invalid now.
    """

    def __init__(
        self, key: bytes, parse: Callable[[str, bytes], T], on_change: Callable[[str, T | None], None], pinned: str = ""
    ) -> None:
        self.key = key
        self._parse: Callable[[str, bytes], T] = parse
        self._on_change: Callable[[str, T | None], None] = on_change
        self._pinned = pinned
        self._entries: OrderedDict[str, tuple[bytes, T]] = OrderedDict()  # the least recently used first
        self._misses: OrderedDict[str, float] = OrderedDict()  # name -> when it was missing, the oldest first
        self._waiting: dict[str, asyncio.Future[tuple[bool, T | None]]] = {}  # loads: answered, and what was found
        self._dirty: dict[str, None] = {}  # names to read, in order
        self.bad: dict[str, str] = {}

    def find(self, name: str) -> T | None:
        """Return what is cached, and mark it as used."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        self._entries.move_to_end(name)
        return entry[1]

    def is_missing(self, name: str) -> bool:
        """Whether the name was missing a moment ago."""
        return self._misses.get(name, float("-inf")) > time.monotonic() - MISS_SECONDS

    def wait_for(self, name: str) -> asyncio.Future[tuple[bool, T | None]]:
        """Return a future that the next read completes; it is shared, so shield it."""
        if name not in self._waiting:
            self._waiting[name] = asyncio.get_running_loop().create_future()
        return self._waiting[name]

    def mark(self, name: str) -> None:
        """Read a name again that may have changed."""
        self._misses.pop(name, None)
        if name in self._entries or name in self._waiting or name == self._pinned:
            self._dirty[name] = None

    def receive(self, name: str, text: bytes) -> None:
        """Apply the definition that a message has, and read it again."""
        if name in self._entries:
            self._apply(name, text)
        self.mark(name)

    def mark_all(self) -> None:
        """Read everything again."""
        self._dirty |= dict.fromkeys(self._entries)
        if self._pinned:
            self._dirty[self._pinned] = None

    def take(self) -> list[str]:
        """Return the names to read next: up to `CHUNK` that requests wait for, and as many that may have changed."""
        names = [*islice(self._waiting, CHUNK)]
        names += islice((name for name in self._dirty if name not in self._waiting), CHUNK)
        for name in names:
            self._dirty.pop(name, None)
        return names

    def store(self, name: str, text: bytes | None) -> None:
        """Apply what was read, and complete the loads that wait for it.

        What was read before a message came may be older than the message, and is read again.
        """
        is_outdated = name in self._dirty and name in self._entries
        found = self._entries[name][1] if is_outdated else self._apply(name, text)
        self._complete(name, answered=True, found=found)

    def refuse(self, names: Iterable[str] | None = None) -> None:
        """Fail the loads of these names, or all."""
        for name in list(self._waiting) if names is None else names:
            self._complete(name, answered=False, found=None)

    def _complete(self, name: str, *, answered: bool, found: T | None) -> None:
        future = self._waiting.pop(name, None)
        if future and not future.done():
            future.set_result((answered, found))

    def _apply(self, name: str, text: bytes | None) -> T | None:
        self.bad.pop(name, None)
        old_text, old = self._entries.get(name, (None, None))
        if text is None:
            if old is not None:
                del self._entries[name]
                self._on_change(name, None)
            self._remember_miss(name)
            return None
        if text == old_text:
            return old
        try:
            found = self._parse(name, text)
        except (BadPoll, BadSession) as error:
            self.bad[name] = str(error)
            if old is None:
                self._remember_miss(name)
            return old
        self._entries[name] = text, found
        if found != old:
            self._evict()
            self._on_change(name, found)
        return found

    def _remember_miss(self, name: str) -> None:
        self._misses.pop(name, None)
        self._misses[name] = time.monotonic()
        if len(self._misses) > CAPACITY:
            self._misses.popitem(last=False)

    def _evict(self) -> None:
        if len(self._entries) <= CAPACITY:
            return
        if next(iter(self._entries)) == self._pinned:
            self._entries.move_to_end(self._pinned)
        name, _ = self._entries.popitem(last=False)
        self.bad.pop(name, None)
        self._on_change(name, None)
