"""Where a request comes from, and where the other web service is."""

import functools
import ipaddress
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import Scope

from voting.core.rendering import Problem


def same_site(headers: Mapping[bytes, bytes], allowed_origins: tuple[str, ...]) -> bool:
    """Whether a request can be one that our own page, or no page at all, has sent.

    Browsers say where a request comes from in Sec-Fetch-Site and Origin; a program without them is no browser and
    carries nobody's cookie. Behind a proxy that changes Host, ALLOWED_ORIGINS names the public address.
    https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
    """
    origin = headers.get(b"origin")
    if origin is not None:
        if origin.decode("latin-1") in allowed_origins:
            return True
        if origin.partition(b"://")[2] != headers.get(b"host"):
            return False
    return headers.get(b"sec-fetch-site", b"none") in {b"same-origin", b"none"}


def neighbour_url(request: Request, url: str, port: int) -> str:
    """Where the other web service is: at its public address if that is set, else on the same host at its port."""
    if not url:
        try:
            host = request.url.hostname or "localhost"
        except ValueError:  # Host can be anything
            raise Problem(400, "host") from None
        url = f"{request.url.scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    slug = request.path_params.get("poll")
    return url.rstrip("/") + (f"/p/{slug}" if slug else "/")


def neighbour(request: Request, url: str, port: int) -> RedirectResponse:
    """Lead to the other web service."""
    return RedirectResponse(neighbour_url(request, url, port), 302, headers={"cache-control": "no-store"})


def client_address(scope: Scope, hops: int) -> str:
    """Whose request it is: an IPv4 address, or the /64 of an IPv6 one, since a single customer has as many as that.

    Args:
        scope: of ASGI.
        hops: how many proxies of ours it came through. Each adds the address that it saw to the end of X-Forwarded-For,
            so the one that counts is the last but (hops - 1); what stands before it anybody could have written.
    """
    peer = scope["client"][0] if scope.get("client") else ""
    if hops:
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        seen = [each.strip() for line in lines for each in line.decode("latin-1").split(",")]
        if len(seen) >= hops:
            peer = seen[-hops]
    return _network(peer[:50])


@functools.lru_cache(10_000)
def _network(peer: str) -> str:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return peer
