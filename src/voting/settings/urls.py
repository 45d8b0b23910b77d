"""URLs of the stores, as logs and messages may show them, and the link to the admin service."""

import re
from urllib.parse import quote

_HOST = r"(?:[\w.-]*|\[[\da-fA-F:.]*\])(?::\d*)?"
_STORE_URL = re.compile(
    rf"(postgres(?:ql)?|rediss?|unix)://(?:[^/?#]*@)?({_HOST}(?:,{_HOST})*)(/[^@?#\s]*)?(?:[?#][^@]*)?", re.ASCII
)


def redacted(url: str) -> str:
    """Return scheme, hosts and path of a store's URL, without user, password and query.

    If the URL is ambiguous (an `@` after the hosts, as in a password that was not quoted), return only its scheme.
    """
    if found := _STORE_URL.fullmatch(url):
        return "{}://{}{}".format(*found.groups(""))
    scheme = re.match(r"(postgres(ql)?|rediss?|unix)://", url)
    return f"{scheme[0] if scheme else ''}..."


def admin_link(url: str, key: str) -> str:
    """Return the link that opens the admin service at an address."""
    return f"{url.rstrip('/')}/?key={quote(key, safe='')}"
