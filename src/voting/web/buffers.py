"""A limit on the memory that all connections together use for their clients."""

from typing import Protocol


class Holder(Protocol):
    """A connection that keeps bytes for its client."""

    def evict(self) -> None:
        """Keep nothing any more."""


class BufferLimit:
    """A limit on the bytes that all connections hold.

    Above it, those are evicted that have held bytes for the longest time. The request of an ordinary client is
    complete, and its answer read, within milliseconds; so it is hardly ever evicted.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._total = limit, 0
        self._held: dict[Holder, int] = {}  # in the order in which they began to hold bytes

    def hold(self, holder: Holder, size: int) -> None:
        """Set how many bytes a connection holds; evict the oldest connections while the total is above the limit."""
        self._total += size - self._held.get(holder, 0)
        self._held[holder] = size
        while self._total > self._limit:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.evict()

    def release(self, holder: Holder) -> None:
        """Set that a connection holds nothing."""
        self._total -= self._held.pop(holder, 0)
