"""Admission of WebSockets: who may watch a poll, and how many WebSockets may be open."""

import functools
import re
from typing import Any

from websockets.http11 import Request

from voting.polls.poll import DEFAULT_POLL
from voting.result.hub import Channel, Hub
from voting.result.metrics import ResultMetrics
from voting.result.viewer import Viewer
from voting.settings.services import ResultSettings
from voting.web.addresses import ConnectionLimit
from voting.web.origin import client_address, same_site
from voting.web.problems import Problem
from voting.web.rate_limit import RateLimit, too_many_requests

RETRY_SECONDS = 10  # Retry-After where too many viewers are connected
_PATH = re.compile(r"(?:/p/([^/?]+))?/ws(?:\?.*)?")


class ViewerServer:
    """Creates a `Viewer` for each WebSocket, and admits it to its channel or refuses it."""

    def __init__(self, settings: ResultSettings, hub: Hub, metrics: ResultMetrics) -> None:
        self._hub, self._metrics = hub, metrics
        self._hops, self._origins = settings.trusted_proxies, settings.allowed_origins
        self._rate_limit = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self._viewer_limit = ConnectionLimit(settings.max_viewers, settings.max_viewers_per_address)
        release, on_cut = self._viewer_limit.release, metrics.cut.inc
        # All viewers share these three bound methods, which saves 200 bytes a viewer.
        self._viewer = functools.partial(Viewer, admit=self._admit, release=release, on_cut=on_cut)

    def viewer(self, server_state: Any, **_: object) -> Viewer:
        """Return the protocol of an upgraded connection; this method is Uvicorn's setting `ws`."""
        return self._viewer(server_state.connections)

    def _admit(self, request: Request, peer: object) -> tuple[Channel, str]:
        """Return the channel of a request and the address counted by `_viewer_limit`, or raise a `Problem`."""
        path = _PATH.fullmatch(request.path)
        channel = self._hub.find_channel(path[1] or DEFAULT_POLL) if path else None
        if channel is None:
            raise Problem(404 if self._hub.loaded else 503, "unknown_poll")
        try:
            return channel, self._count(request, peer)
        except Problem:
            self._metrics.limited.inc()
            raise

    def _count(self, request: Request, peer: object) -> str:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()]
        if not same_site(dict(headers), self._origins):
            raise Problem(403, "cross_site", "This socket was opened by another site.")
        address = client_address({"client": peer, "headers": headers}, self._hops)
        if self._rate_limit and not self._rate_limit.take(address):
            raise too_many_requests(self._rate_limit.retry_after(address))
        if not self._viewer_limit.acquire(address):
            raise too_many_requests(RETRY_SECONDS)
        return address
