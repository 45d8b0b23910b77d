"""How much one address may ask for: off unless RATE_LIMIT says so, since a whole hall can share one address."""

import math
import time
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from voting.core.config import WebSettings
from voting.core.origin import client_address
from voting.core.rendering import Pages, Problem

ADDRESSES = 50_000  # remembered; beyond that those that asked longest ago are forgotten
SEAT_SECONDS = 10  # after which it makes sense to ask for a place again
_PROBES = {"/livez", "/readyz"}


class RateLimit:
    """A token bucket for each address, kept as the one moment when it will be full again (GCRA).

    Args:
        per_second: tokens that come back.
        burst: tokens in a full bucket.

    Source: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._burst, self._clock = 1 / per_second, burst, clock
        self._full_at: dict[str, float] = {}

    def take(self, address: str) -> float:
        """Take a token: 0, or if there is none, the seconds until there is."""
        now = self._clock()
        full_at = max(now, self._full_at.pop(address, now))
        wait = full_at + self._interval - now - self._burst * self._interval
        if wait <= 1e-9:  # a rounding error is not a wait
            wait, full_at = 0.0, full_at + self._interval
        self._full_at[address] = full_at  # as the newest
        if len(self._full_at) > ADDRESSES:
            del self._full_at[next(iter(self._full_at))]
        return wait

    def give_back(self, address: str) -> None:
        """Return a token that was taken and not used.

        The bucket is then as full as if the token had not been taken. If it was full in the meantime, it has one too
        many; it never has more than fit.
        """
        if address in self._full_at:
            self._full_at[address] -= self._interval


def too_many(wait: float) -> Problem:
    """What an address is told that has no token left."""
    return Problem(429, "rate_limit", retry_after=math.ceil(wait))


class Seats:
    """Places that are held for a while: `most` in all, and `per_address` of them for one (0: all)."""

    def __init__(self, most: int, per_address: int) -> None:
        self._most, self._per_address = most, per_address or most
        self._taken: Counter[str] = Counter()
        self._total = 0

    def take(self, address: str) -> None:
        """Hold one.

        Raises:
            Problem: there is none left for that address.
        """
        if self._total >= self._most or self._taken[address] >= self._per_address:
            raise too_many(SEAT_SECONDS)
        self._total += 1
        self._taken[address] += 1

    def give_back(self, address: str) -> None:
        """Somebody else may have it."""
        self._total -= 1
        self._taken[address] -= 1
        if not self._taken[address]:
            del self._taken[address]


class Doorkeeper:
    """An ASGI application before another that answers 429 to an address that asks too often.

    Args:
        app: what the others come to.
        limit: how often is too often.
        hops: proxies of ours before us, as `client_address` takes them.
        pages: words a refusal for the request's reader.
        on_refusal: called for each.
    """

    def __init__(self, app: ASGIApp, limit: RateLimit, hops: int, pages: Pages, on_refusal: Callable[[], None]) -> None:
        self._app, self._limit, self._hops, self._pages = app, limit, hops, pages
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or refuse it."""
        wait = 0.0 if scope["path"] in _PROBES else self._limit.take(client_address(scope, self._hops))
        if not wait:
            await self._app(scope, receive, send)
            return
        self._on_refusal()
        await self._pages.refusal(too_many(wait), scope)(scope, receive, send)


def guarded(app: ASGIApp, settings: WebSettings, pages: Pages, on_refusal: Callable[[], None]) -> ASGIApp:
    """The application, with a doorkeeper if the settings want one."""
    if not settings.rate_limit:
        return app
    limit = RateLimit(settings.rate_limit, settings.rate_burst)
    return Doorkeeper(app, limit, settings.trusted_proxies, pages, on_refusal)
