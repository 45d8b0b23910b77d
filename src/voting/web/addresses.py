"""What counts as one client under a limit for each client: an IPv4 address, or a /64 of IPv6 and its /48."""

import contextlib
import functools
import ipaddress
from collections import Counter

SLASH_48_FACTOR = 16  # a /48 of IPv6 may have this many times as much as one /64


@functools.lru_cache(10_000)
def network(peer: str) -> str:
    """Return the /64 of an IPv6 address; anything else is returned as it is."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return peer


@functools.lru_cache(10_000)
def networks(address: str) -> tuple[str, ...]:
    """Return the networks that a client's requests count for: its address and, if that is a /64 of IPv6, its /48.

    One customer may have a whole /48, with 65,536 /64s in it (RFC 6177); a mobile carrier gives each phone one /64, of
    a /48 that many phones share. So the limit of a /48 is a multiple of that of an address (`SLASH_48_FACTOR`).
    """
    if address.endswith("/64"):
        with contextlib.suppress(ValueError):  # X-Forwarded-For may say anything
            return address, str(ipaddress.IPv6Network(address).supernet(new_prefix=48))
    return (address,)


class ConnectionLimit:
    """How many connections may be open at a time.

    A /48 of IPv6 may have `SLASH_48_FACTOR` times as many as one address, but at most half of all.

    Args:
        total: from all addresses.
        per_address: from one address; 0 is without a limit.
    """

    def __init__(self, total: int, per_address: int) -> None:
        one = per_address or total
        self._most, self._per_network = total, (one, max(one, min(SLASH_48_FACTOR * one, total // 2)))
        self._open: Counter[str] = Counter()
        self._total = 0

    def take(self, address: str) -> bool:
        """Count one more connection and return True, or return False if a limit is reached."""
        held = networks(address)
        full = any(self._open[network] >= most for network, most in zip(held, self._per_network, strict=False))
        if full or self._total >= self._most:
            return False
        self._total += 1
        self._open.update(held)
        return True

    def release(self, address: str) -> None:
        """Count one connection less; `take` has counted it."""
        self._total -= 1
        for network in networks(address):
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]
