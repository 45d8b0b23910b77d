"""The site and the client that a request comes from, and the URL of the other web service."""

import ipaddress
import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import Scope

from voting.web.addresses import client_network
from voting.web.problems import Problem

# A DNS name (with underscores, as containers have), an IPv4 or IPv6 address; optionally a port.
_HOST = re.compile(r"(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]{0,252}|\[(?P<literal>[0-9A-Fa-f:.]{2,45})\])(:[0-9]{0,5})?")


def same_site(headers: Mapping[bytes, bytes], allowed_origins: tuple[str, ...]) -> bool:
    """Whether a request comes from a page of this site, or from a program.

    Browsers send Sec-Fetch-Site and Origin. A request with neither is from a program, which has no user's cookie.
    Behind a proxy that changes Host, ALLOWED_ORIGINS names the public address.
    https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
    """
    origin = headers.get(b"origin")
    if origin is not None:
        if origin.decode("latin-1") in allowed_origins:
            return True
        if origin.partition(b"://")[2] != headers.get(b"host"):
            return False
    return headers.get(b"sec-fetch-site", b"none") in {b"same-origin", b"none"}


def from_service(headers: Mapping[bytes, bytes], public_url: str, port: int) -> bool:
    """Whether a request comes from a page of another web service of this installation.

    Args:
        headers: of the request.
        public_url: of the service; "" if it is at `port` of the host that the request names.
        port: of the service.
    """
    scheme, _, netloc = headers.get(b"origin", b"").decode("latin-1").partition("://")
    if public_url:
        public_scheme, _, rest = public_url.partition("://")
        return (scheme, netloc) == (public_scheme, rest.partition("/")[0].lower())
    host = _HOST.fullmatch(headers.get(b"host", b"").decode("latin-1"))
    if host is None:
        return False
    without_port = {"http": 80, "https": 443}.get(scheme) == port and netloc == host["name"]
    return scheme in {"http", "https"} and (without_port or netloc == f"{host['name']}:{port}")


def service_url(scheme: str, host: str, public_url: str, port: int) -> str:
    """Return the URL of a web service, without a slash at its end.

    Without its public URL ("") it is at `port` of the host that the request names (`host`: its header Host). A client,
    or a proxy that passes Host on, can put any host there; `voting doctor` warns of it.

    Raises:
        Problem: Host is needed, and is missing or not valid (RFC 9110, section 7.2).
    """
    return public_url.rstrip("/") or f"{scheme}://{_host(host)}:{port}"


def other_service_url(request: Request, public_url: str, port: int, path: str = "") -> str:
    """Return the URL of a path at another web service, by default of the same poll; see `service_url`."""
    slug = request.path_params.get("poll")
    base = service_url(request.scope["scheme"], request.headers.get("host", ""), public_url, port)
    return base + (path or (f"/p/{slug}" if slug else "/"))


def _host(header: str) -> str:
    host = _HOST.fullmatch(header)
    if host is None:
        raise Problem(400, "host")
    if literal := host["literal"]:
        try:
            ipaddress.IPv6Address(literal)
        except ValueError:
            raise Problem(400, "host") from None
    return host["name"]


def redirect_to_other_service(request: Request, public_url: str, port: int, path: str = "") -> RedirectResponse:
    """Return a redirect to `other_service_url`."""
    url = other_service_url(request, public_url, port, path)
    return RedirectResponse(url, 302, headers={"cache-control": "no-store"})


def client_address(scope: Scope, hops: int) -> str:
    """Return the client's IPv4 address, or the /64 of its IPv6 address, the smallest network that a customer has.

    Args:
        scope: the ASGI scope.
        hops: number of our own proxies that the request came through. Each appends the address of its client to
            X-Forwarded-For, so the hops-th entry from the end is used. The client may have forged those before it.
    """
    peer = scope["client"][0] if scope.get("client") else ""
    if hops:
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        seen = [each.strip() for line in lines for each in line.decode("latin-1").split(",")]
        if len(seen) >= hops:
            peer = seen[-hops]
    return client_network(peer[:50])
