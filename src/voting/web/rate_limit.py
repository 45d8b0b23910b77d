"""Limits the requests of one address. RATE_LIMIT is off by default, because a whole audience can share an address."""

import math
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from voting.settings.services import WebSettings
from voting.web.addresses import SLASH_48_FACTOR, networks
from voting.web.origin import client_address
from voting.web.problems import Problem
from voting.web.rendering import Pages

ADDRESSES = 50_000  # buckets kept; beyond that, the least recently used are dropped
ROUNDING_ERROR = 1e-9  # seconds
_PROBES = {"/livez", "/readyz"}


class RateLimit:
    """A token bucket for each address, stored as the time when it will be full again (GCRA).

    A /48 of IPv6 has a bucket too, with `SLASH_48_FACTOR` times the tokens. A token is taken from both or from none.

    Args:
        per_second: tokens added in a second.
        burst: tokens in a full bucket.
        clock: returns seconds.

    Source: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
    """

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._burst, self._clock = 1 / per_second, burst, clock
        self._full_at: dict[str, float] = {}

    def take(self, address: str) -> bool:
        """Take a token and return True, or return False if there is none."""
        now = self._clock()
        before = {network: max(now, self._full_at.pop(network, now)) for network in networks(address)}
        after = self._after_one_more(before)
        granted = self._wait(after, now) <= ROUNDING_ERROR
        self._full_at |= after if granted else before  # now the most recently used
        self._forget(now)
        return granted

    def _forget(self, now: float) -> None:
        """Drop the addresses that were used least recently, if their buckets are full again or there are too many."""
        while self._full_at:
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= ADDRESSES:
                break
            del self._full_at[oldest]

    def has_token(self, address: str) -> bool:
        """Whether `take` would return True now."""
        return not self._full_at or self._seconds_until_token(address) <= ROUNDING_ERROR

    def retry_after(self, address: str) -> int:
        """Return the value of Retry-After: seconds until an address has a token again, at least 1."""
        return max(1, math.ceil(self._seconds_until_token(address) - ROUNDING_ERROR))

    def _seconds_until_token(self, address: str) -> float:
        now = self._clock()
        full_at = {network: max(now, self._full_at.get(network, now)) for network in networks(address)}
        return self._wait(self._after_one_more(full_at), now)

    def _after_one_more(self, full_at: dict[str, float]) -> dict[str, float]:
        """Return when each bucket will be full if a token is taken from it."""
        return {
            network: at + self._interval / share
            for (network, at), share in zip(full_at.items(), (1, SLASH_48_FACTOR), strict=False)
        }

    def _wait(self, full_at: dict[str, float], now: float) -> float:
        """Return the seconds until every bucket has the tokens taken from it; 0 or less if it has them now."""
        return max(full_at.values()) - now - self._burst * self._interval

    def give_back(self, address: str) -> None:
        """Return an unused token. A bucket that was full in the meantime has one too many, but never more than fit."""
        for network, share in zip(networks(address), (1, SLASH_48_FACTOR), strict=False):
            if network in self._full_at:
                self._full_at[network] -= self._interval / share


def too_many_requests(retry_after: int) -> Problem:
    """Return the 429 for an address that may try again in `retry_after` seconds."""
    return Problem(429, "rate_limit", retry_after=retry_after)


class RateLimitMiddleware:
    """Responds with 429 to an address without a token, and passes all other requests and all probes to `app`."""

    def __init__(self, app: ASGIApp, limit: RateLimit, hops: int, pages: Pages, on_refusal: Callable[[], None]) -> None:
        self._app, self._limit, self._hops, self._pages = app, limit, hops, pages
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = client_address(scope, self._hops)
        if scope["path"] in _PROBES or self._limit.take(address):
            await self._app(scope, receive, send)
            return
        self._on_refusal()
        problem = too_many_requests(self._limit.retry_after(address))
        await self._pages.refusal(problem, scope)(scope, receive, send)


def with_rate_limit(app: ASGIApp, settings: WebSettings, pages: Pages, on_refusal: Callable[[], None]) -> ASGIApp:
    """Return the application behind a `RateLimitMiddleware`, or as it is if RATE_LIMIT is 0."""
    if not settings.rate_limit:
        return app
    limit = RateLimit(settings.rate_limit, settings.rate_burst)
    return RateLimitMiddleware(app, limit, settings.trusted_proxies, pages, on_refusal)
