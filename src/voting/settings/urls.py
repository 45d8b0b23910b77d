"""TODO voting.settings.urls."""

import re

_HOST = r"(?:[\w.-]*|\[[\da-fA-F:.]*\])(?::\d*)?"
_STORE_URL = re.compile(
    rf"(postgres(?:ql)?|rediss?|unix)://(?:[^/?#]*@)?({_HOST}(?:,{_HOST})*)(/[^@?#\s]*)?(?:[?#][^@]*)?", re.ASCII
)


def redacted(url: str) -> str:
    """Return the address of a store for logs and messages: scheme, hosts and path, and never a user or a password.

    Of a text that can be read in another way (an `@` after the hosts, as in a password that was not quoted), only
    the scheme is returned.
    """
    if found := _STORE_URL.fullmatch(url):
        return "{}://{}{}".format(*found.groups(""))
    scheme = re.match(r"(postgres(ql)?|rediss?|unix)://", url)
    return f"{scheme[0] if scheme else ''}..."
