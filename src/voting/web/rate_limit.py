"""How much one address may ask for: off unless RATE_LIMIT says so, since a whole hall can share one address."""

import math
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from voting.settings.services import WebSettings
from voting.web.addresses import WIDE, networks
from voting.web.origin import client_address
from voting.web.problems import Problem
from voting.web.rendering import Pages

ADDRESSES = 50_000  # remembered; beyond that those that asked longest ago are forgotten
_PROBES = {"/livez", "/readyz"}


class RateLimit:
    """A token bucket for each address, kept as the one moment when it will be full again (GCRA).

    A /48 of IPv6 has a bucket too, with `WIDE` times the tokens. A token is taken from both or from none.

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
        before = {network: max(now, self._full_at.pop(network, now)) for network in networks(address)}
        after = {
            network: full_at + self._interval / share
            for (network, full_at), share in zip(before.items(), (1, WIDE), strict=False)
        }
        wait = max(after.values()) - now - self._burst * self._interval
        if wait <= 1e-9:  # a rounding error is not a wait
            wait, before = 0.0, after
        self._full_at |= before  # as the newest
        while len(self._full_at) > ADDRESSES:
            del self._full_at[next(iter(self._full_at))]
        return wait

    def give_back(self, address: str) -> None:
        """Return a token that was taken and not used.

        The bucket is then as full as if the token had not been taken. If it was full in the meantime, it has one too
        many; it never has more than fit.
        """
        for network, share in zip(networks(address), (1, WIDE), strict=False):
            if network in self._full_at:
                self._full_at[network] -= self._interval / share


def too_many_requests(wait: float) -> Problem:
    """What an address is told that has no token left."""
    return Problem(429, "rate_limit", retry_after=math.ceil(wait))


class RateLimitMiddleware:
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
        await self._pages.refusal(too_many_requests(wait), scope)(scope, receive, send)


def with_rate_limit(app: ASGIApp, settings: WebSettings, pages: Pages, on_refusal: Callable[[], None]) -> ASGIApp:
    """The application, with a doorkeeper if the settings want one."""
    if not settings.rate_limit:
        return app
    limit = RateLimit(settings.rate_limit, settings.rate_burst)
    return RateLimitMiddleware(app, limit, settings.trusted_proxies, pages, on_refusal)
