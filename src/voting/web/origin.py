"""Where a request comes from, and where the other web service is."""

import ipaddress
import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import Scope

from voting.web.addresses import network
from voting.web.problems import Problem

# A DNS name (underscores are no host name's, but containers have them), an IPv4 address or an IPv6 one; perhaps a port.
_HOST = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[(?P<literal>[0-9A-Fa-f:.]{2,45})\])(:[0-9]{0,5})?")


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


def other_service_url(request: Request, url: str, port: int) -> str:
    """Return where the other web service is: its public address if that is set, else the same host at its port.

    Without a public address, whoever decides what Host says decides where this leads: `voting doctor` says so.

    Raises:
        Problem: Host is needed, and is missing or is none (RFC 9110, section 7.2).
    """
    if not url:
        url = f"{request.scope['scheme']}://{_host(request.headers.get('host', ''))}:{port}"
    slug = request.path_params.get("poll")
    return url.rstrip("/") + (f"/p/{slug}" if slug else "/")


def _host(header: str) -> str:
    """Return the name or address in a Host header, without its port."""
    host = _HOST.fullmatch(header)
    if host is None:
        raise Problem(400, "host")
    if literal := host["literal"]:
        try:
            ipaddress.IPv6Address(literal)
        except ValueError:
            raise Problem(400, "host") from None
    return host["name"]


def redirect_to_other_service(request: Request, url: str, port: int) -> RedirectResponse:
    """Lead to the other web service."""
    return RedirectResponse(other_service_url(request, url, port), 302, headers={"cache-control": "no-store"})


def client_address(scope: Scope, hops: int) -> str:
    """Return whose request it is: an IPv4 address, or the /64 of an IPv6 one, which is the least that a customer has.

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
    return network(peer[:50])
