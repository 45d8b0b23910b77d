"""The ballots and sessions that requests ask for, from what the workers have published in Redis."""

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Scope

from voting.broker.poll_cache import BrokerAway, PollCache
from voting.polls.poll import DEFAULT_POLL, Poll
from voting.polls.session import Session, parse_code
from voting.vote.prepared import PreparedBallot
from voting.web.language import translatable
from voting.web.problems import Problem

T = TypeVar("T")
_SESSION = re.compile(rb"(?:^|&)s=([A-Za-z0-9]{6})(?:&|$)")


class Ballots:
    """Finds the poll and the session of a request; each method raises a `Problem` if there is none.

    Args:
        redis_url: returns the URL of Redis; called for each new connection.

    Attributes:
        cache: keeps what it finds up to date while its `run` runs.
    """

    def __init__(self, redis_url: Callable[[], Awaitable[str]]) -> None:
        self._prepared: dict[str, PreparedBallot] = {}  # of the polls in the cache
        self.cache = PollCache(redis_url, on_poll=self._prepare)

    def _prepare(self, slug: str, poll: Poll | None) -> None:
        if poll is None:
            self._prepared.pop(slug, None)
        else:
            self._prepared[slug] = PreparedBallot(poll)

    async def find(self, slug: str) -> PreparedBallot:
        if slug != DEFAULT_POLL and self.cache.find(slug) is None:  # the default poll never leaves the cache
            await _or_503(self.cache.load(slug))
        ballot = self._prepared.get(slug)
        if ballot is not None:
            return ballot
        if not self.cache.has_polls:
            raise Problem(503, "no_polls", translatable("Voting has not opened yet. Please try again in a moment."))
        raise Problem(404, "unknown_poll")

    async def find_current(self, session: Session) -> PreparedBallot | None:
        """Return the ballot of a session's current poll; None if it has none, or the poll has just been deleted."""
        try:
            return await self.find(session.current) if session.current else None
        except Problem as problem:
            if problem.status == 404:
                return None
            raise

    async def find_session(self, scope: Scope) -> Session | None:
        """Return the session whose code is the path, or in the query (`?s=`); None if the query names none."""
        code: str | None = scope.get("path_params", {}).get("code")
        if code is None:
            found = _SESSION.search(scope["query_string"])
            named = parse_code(found[1].decode()) if found else None
            return await self._session(named) if named else None
        session = await self._session(code)
        if session is None:
            message = translatable("There is no session with the code {code}. Check it and type it again.")
            raise Problem(404, "unknown_session", message, title=translatable("Unknown code"), code=code)
        if scope["method"] not in {"GET", "HEAD"}:
            raise Problem(405, "method_not_allowed")
        return session

    async def _session(self, code: str) -> Session | None:
        return self.cache.find_session(code) or await _or_503(self.cache.load_session(code))


async def _or_503(loading: Awaitable[T]) -> T:
    try:
        return await loading
    except BrokerAway:
        raise Problem(503, "broker_away") from None
