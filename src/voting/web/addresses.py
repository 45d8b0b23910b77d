"""The networks that limits count as one client: an IPv4 address, or the /64 and the /48 of an IPv6 address."""

import contextlib
import functools
import ipaddress
from collections import Counter

SLASH_48_FACTOR = 16  # the limit of a /48, as a multiple of that of a /64


@functools.lru_cache(10_000)
def client_network(peer: str) -> str:
    """Return the /64 of an IPv6 address; return anything else unchanged."""
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
    """Return the networks that a request is counted for: the client's address and, if that is a /64 of IPv6, its /48.

    One customer may have a whole /48, with 65,536 /64s in it (RFC 6177); a mobile carrier gives each phone one /64, of
    a /48 that many phones share. So the limit of a /48 is a multiple of that of an address (`SLASH_48_FACTOR`).
    """
    if address.endswith("/64"):
        with contextlib.suppress(ValueError):  # X-Forwarded-For may say anything
            return address, str(ipaddress.IPv6Network(address).supernet(new_prefix=48))
    return (address,)


class ConnectionLimit:
    """Limits the number of open connections.

    A /48 of IPv6 may have `SLASH_48_FACTOR` times as many as one address, but at most half of all.

    Args:
        total: maximum number of connections.
        per_address: maximum number from one address; 0 means no limit.
    """

    def __init__(self, total: int, per_address: int) -> None:
        one = per_address or total
        self._max_total, self._per_network = total, (one, max(one, min(SLASH_48_FACTOR * one, total // 2)))
        self._open: Counter[str] = Counter()
        self._total = 0

    def acquire(self, address: str) -> bool:
        """Count one more connection and return True, or return False if a limit is reached."""
        counted = networks(address)
        full = any(self._open[each] >= limit for each, limit in zip(counted, self._per_network, strict=False))
        if full or self._total >= self._max_total:
            return False
        self._total += 1
        self._open.update(counted)
        return True

    def release(self, address: str) -> None:
        self._total -= 1
        for network in networks(address):
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]


def is_loopback(host: str) -> bool:
    """Whether a host name or address leads to this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
