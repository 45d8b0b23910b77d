"""How much memory clients can make a service use, over all their connections."""

from typing import Protocol


class Holder(Protocol):
    """A connection that holds something."""

    def evict(self) -> None:
        """Hold nothing any more."""


class BufferLimit:
    """How many bytes connections may hold in all.

    Above that, those that have held something for the longest time are evicted. A request of an ordinary client is
    complete, and an answer read, within milliseconds; so it is hardly ever among them.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._total = most, 0
        self._held: dict[Holder, int] = {}  # in the order in which they began to hold something

    def hold(self, holder: Holder, size: int) -> None:
        """Count that a connection holds so many bytes now, and evict others, or this one, if all hold too many."""
        self._total += size - self._held.get(holder, 0)
        self._held[holder] = size
        while self._total > self._most:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.evict()

    def release(self, holder: Holder) -> None:
        """Count that a connection holds nothing any more."""
        self._total -= self._held.pop(holder, 0)
