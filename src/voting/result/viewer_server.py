"""TODO voting.result.viewer_server."""

import re
from collections.abc import Callable
from typing import Any

from websockets.http11 import Request

from voting.polls import DEFAULT_POLL
from voting.result.hub import Channel, Hub
from voting.result.viewer import Viewer
from voting.settings.services import ResultSettings
from voting.web.addresses import ConnectionLimit
from voting.web.origin import client_address, same_site
from voting.web.problems import Problem
from voting.web.rate_limit import RateLimit, too_many_requests

RETRY_SECONDS = 10  # after which a viewer for whom there was no room should try again
_PATH = re.compile(r"(?:/p/([^/?]+))?/ws(?:\?.*)?")


class ViewerServer:
    """Lets viewers in, to the channel that they ask for.

    Args:
        settings: of the service.
        hub: has the channels.
        on_refusal: called for each viewer that is refused for its address (429) or the site that it comes from (403).
    """

    def __init__(self, settings: ResultSettings, hub: Hub, on_refusal: Callable[[], None]) -> None:
        self._hub = hub
        self._hops = settings.trusted_proxies
        self._origins = settings.allowed_origins
        self._limit = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self.viewers = ConnectionLimit(settings.max_viewers, settings.max_viewers_per_address)
        self._on_refusal = on_refusal

    def viewer(self, server_state: Any, **_: object) -> "Viewer":
        """What uvicorn calls for each upgrade: its setting `ws`."""
        return Viewer(self, server_state.connections)

    def admit(self, request: Request, peer: object) -> tuple[Channel, str]:
        """The channel that a request asks for, and the address for which a seat is taken there.

        Raises:
            Problem: this viewer may not watch, or there is nothing to watch.
        """
        path = _PATH.fullmatch(request.path)
        channel = self._hub.channel(path[1] or DEFAULT_POLL) if path else None
        if channel is None:
            raise Problem(404 if self._hub.loaded else 503, "unknown_poll")
        try:
            return channel, self._take(request, peer)
        except Problem:
            self._on_refusal()
            raise

    def _take(self, request: Request, peer: object) -> str:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()]
        if not same_site(dict(headers), self._origins):
            raise Problem(403, "cross_site", "This socket was opened by another site.")
        address = client_address({"client": peer, "headers": headers}, self._hops)
        if self._limit and (wait := self._limit.take(address)):
            raise too_many_requests(wait)
        if not self.viewers.take(address):
            raise too_many_requests(RETRY_SECONDS)
        return address
