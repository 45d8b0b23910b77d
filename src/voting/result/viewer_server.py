"""Admission of WebSockets: who may watch a poll, and how many WebSockets may be open."""

import asyncio
import contextlib
import functools
import re
from typing import Any

from websockets.http11 import Request

from voting.polls.poll import DEFAULT_POLL
from voting.polls.session import parse_code
from voting.result.channel import Audience, Channel
from voting.result.demand import Key
from voting.result.feed import Feed
from voting.result.hub import Hub
from voting.result.metrics import ResultMetrics
from voting.result.viewer import Viewer
from voting.result.visibility import audience
from voting.settings.services import ResultSettings
from voting.web.addresses import ConnectionLimit
from voting.web.origin import client_address, from_service, same_site
from voting.web.problems import Problem
from voting.web.rate_limit import RateLimit, too_many_requests

RETRY_SECONDS = 10  # Retry-After where too many viewers are connected
_PATH = re.compile(r"(?:/p/([^/]+)|/s/([^/]+))?/ws")


class ViewerServer:
    """Creates a `Viewer` for each WebSocket, and admits it to its channel or refuses it."""

    def __init__(self, settings: ResultSettings, hub: Hub, metrics: ResultMetrics) -> None:
        self._hub, self._metrics = hub, metrics
        self._hops, self._origins = settings.trusted_proxies, settings.allowed_origins
        self._vote_url, self._vote_port = settings.vote_url, settings.vote_port
        self._rate_limit = RateLimit(settings.rate_limit, settings.rate_burst) if settings.rate_limit else None
        self._viewer_limit = ConnectionLimit(settings.max_viewers, settings.max_viewers_per_address)
        release, on_cut = self._viewer_limit.release, metrics.cut.inc
        # All viewers share these four bound methods, which saves 270 bytes a viewer.
        self._viewer = functools.partial(Viewer, load=self._load, admit=self._admit, release=release, on_cut=on_cut)

    def viewer(self, server_state: Any, **_: object) -> Viewer:
        """Return the protocol of an upgraded connection; this method is Uvicorn's setting `ws`."""
        return self._viewer(server_state.connections)

    def _load(self, request: Request) -> asyncio.Future[None] | None:
        key, _ = _parse(request)
        with contextlib.suppress(Problem):  # too many requests wait; `_admit` refuses this one
            return self._hub.load(key) if key else None
        return None

    def _admit(self, request: Request, peer: object) -> tuple[Feed, str]:
        """Return the feed of a request and the address counted by `_viewer_limit`, or raise a `Problem`."""
        key, query = _parse(request)
        if key is None:
            raise Problem(404, "unknown_poll")
        held = self._hub.find(key)
        poll = held.poll if isinstance(held, Channel) else None
        who = audience(poll, query, request.headers.get_all("Cookie"))
        try:
            return held.feeds[who], self._count(request, peer, who)
        except Problem:
            self._metrics.limited.inc()
            raise

    def _count(self, request: Request, peer: object, who: Audience) -> str:
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()]
        is_ballot = who == "ballot" and from_service(dict(headers), self._vote_url, self._vote_port)
        if not is_ballot and not same_site(dict(headers), self._origins):
            raise Problem(403, "cross_site", "This socket was opened by another site.")
        address = client_address({"client": peer, "headers": headers}, self._hops)
        if self._rate_limit and not self._rate_limit.take(address):
            raise too_many_requests(self._rate_limit.retry_after(address))
        if not self._viewer_limit.acquire(address):
            raise too_many_requests(RETRY_SECONDS)
        return address


def _parse(request: Request) -> tuple[Key | None, str]:
    """Return what a request asks for, and its query; None if its path is not that of a socket."""
    path, _, query = request.path.partition("?")
    found = _PATH.fullmatch(path)
    if found is None:
        return None, query
    return (
        Key("session", parse_code(found[2]) or found[2]) if found[2] else Key("poll", found[1] or DEFAULT_POLL)
    ), query
