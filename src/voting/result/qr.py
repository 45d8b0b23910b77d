"""QR codes of addresses, for the big screen."""

import segno
from markupsafe import Markup

from voting.web.rate_limit import RateLimit

KEPT = 64  # codes
MADE_PER_SECOND, BURST = 4, 16


class Codes:
    """Makes QR codes and keeps the newest.

    Making one takes 4 to 40 ms of the event loop, and the address may come from a request's Host header. So new ones
    are made at a limited rate; above it `get` returns None, and the page shows the address as text alone.
    """

    def __init__(self) -> None:
        self._made: dict[str, Markup] = {}
        self._limit = RateLimit(MADE_PER_SECOND, BURST)

    def get(self, url: str) -> Markup | None:
        """Return the code of an address as SVG; None if there is none and too many were made just now."""
        code = self._made.pop(url, None)
        if code is None:
            if not self._limit.take(""):
                return None
            code = Markup(segno.make(url, micro=False).svg_inline(border=3, omitsize=True))  # noqa: S704 - segno's own output
        self._made[url] = code  # as the newest
        if len(self._made) > KEPT:
            del self._made[next(iter(self._made))]
        return code
