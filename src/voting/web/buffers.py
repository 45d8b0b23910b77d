"""Limits the memory that the process holds for the clients of all connections."""

from typing import Protocol


class Holder(Protocol):
    """A connection that holds bytes for its client."""

    def evict(self) -> None:
        """Release all of them."""


class BufferLimit:
    """Limits the bytes that all connections hold, to `limit`.

    Above it, the connections that have held bytes for the longest time are evicted. Ordinary clients send a request
    and read its response within milliseconds, so they are hardly ever evicted.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._total = limit, 0
        self._held: dict[Holder, int] = {}  # ordered by when they began to hold bytes

    def set_size(self, holder: Holder, size: int) -> None:
        """Set how many bytes a connection holds; evict the oldest connections while the total is above the limit."""
        self._total += size - self._held.get(holder, 0)
        self._held[holder] = size
        while self._total > self._limit:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.evict()

    def release(self, holder: Holder) -> None:
        self._total -= self._held.pop(holder, 0)
