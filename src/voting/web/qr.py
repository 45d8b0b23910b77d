"""QR codes of URLs, for the big screen, the host, and the cards with voting codes."""

import segno
from markupsafe import Markup

from voting.web.rate_limit import RateLimit

CACHED = 64  # codes
PER_SECOND, BURST = 4, 16  # new codes


def qr_code(url: str) -> Markup:
    """Return the code of a URL as SVG. It takes 4 to 40 ms of one processor."""
    return Markup(segno.make(url, micro=False).svg_inline(border=3, omitsize=True))  # noqa: S704 - segno's own output


class QrCodes:
    """Makes QR codes and caches the most recently used.

    Making one blocks the event loop for 4 to 40 ms, and the URL may come from a request's Host header. So new codes are
    made at a limited rate; above it `get` returns None, and the page shows the URL as text alone.
    """

    def __init__(self) -> None:
        self._codes: dict[str, Markup] = {}
        self._limit = RateLimit(PER_SECOND, BURST)

    def get(self, url: str) -> Markup | None:
        """Return the code of a URL as SVG; None if it is not cached and the rate is exceeded."""
        code = self._codes.pop(url, None)
        if code is None:
            if not self._limit.take(""):
                return None
            code = qr_code(url)
        self._codes[url] = code  # now the most recently used
        if len(self._codes) > CACHED:
            del self._codes[next(iter(self._codes))]
        return code
