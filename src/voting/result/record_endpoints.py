"""The endpoints of a final round: its record, the published ballots, and the page "Is my vote in?".

They are public where the result is visible to everybody. All requests share one connection to the database, which is
opened when it is needed; each reads for some milliseconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from voting.database.connection import OUTAGES, Connection, deadline, open_connection
from voting.database.records import BallotReader, StoredRecord, find_choice, read_record
from voting.polls.poll import DEFAULT_POLL, Poll
from voting.polls.record import header_line, parse_record
from voting.polls.state import is_visible
from voting.polls.tracker import parse_tracker, tracker_text
from voting.result.channel import Channel
from voting.result.demand import Key
from voting.result.hub import Hub
from voting.settings.services import ResultSettings
from voting.web import language
from voting.web.language import translatable
from voting.web.problems import Problem
from voting.web.rendering import Pages
from voting.web.responses import HEADERS

TIMEOUT = 2.0  # seconds; time limit of the database for each read
DOWNLOADS = 4  # of lists at the same time
LOOKUPS = 50  # reads that wait for the connection

T = TypeVar("T")
Read = Callable[[Connection], Awaitable[T]]


class _Round(NamedTuple):
    """A final round that a request asks for."""

    poll: Poll
    number: int
    stored: StoredRecord


class RecordEndpoints:
    """The endpoints of the records of all polls."""

    def __init__(self, settings: ResultSettings, pages: Pages, hub: Hub) -> None:
        self._settings, self._pages, self._hub = settings, pages, hub
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._waiting = self._downloads = 0

    def routes(self) -> list[Route]:
        """Return the routes of the default poll and the others."""
        endpoints = (("final.json", self.record), ("ballots.csv", self.ballots), ("ballots", self.page))
        prefixes = ("", "/p/{poll}")
        return [Route(f"{prefix}/{name}", endpoint) for prefix in prefixes for name, endpoint in endpoints]

    async def record(self, request: Request) -> Response:
        """Return the record of a round, byte for byte as it is stored."""
        found = await self._find(request)
        return Response(found.stored.record, headers=HEADERS | {"content-type": "application/json; charset=utf-8"})

    async def ballots(self, request: Request) -> Response:
        """Return the list of ballots; its SHA-256 is in the record."""
        found = await self._find(request)
        _require_ballots(found)
        if self._downloads >= DOWNLOADS:
            raise Problem(503, "busy", translatable("Others are downloading just now. Please try again in a moment."))
        name = f'attachment; filename="{found.poll.slug}-round-{found.number}-ballots.csv"'
        headers = HEADERS | {"content-type": "text/csv; charset=utf-8", "content-disposition": name}
        return StreamingResponse(self._lines(BallotReader(found.poll.slug, found.number)), headers=headers)

    async def _lines(self, reader: BallotReader) -> AsyncIterator[bytes]:
        """Yield the list. After an outage of the database the response breaks off, so it is not taken for complete."""
        self._downloads += 1
        try:
            yield header_line()
            while lines := await self._read(reader.read):
                yield lines
        finally:
            self._downloads -= 1

    async def page(self, request: Request) -> Response:
        """Return the page on which a voter looks for the ballot with a tracker (`?tracker=`)."""
        found = await self._find(request)
        typed = request.query_params.get("tracker", "")
        tracker = parse_tracker(typed)
        record = parse_record(found.stored.record or "")
        choice = None
        if tracker and found.stored.publishes:
            slug, number = found.poll.slug, found.number
            choice = await self._read(lambda connection: find_choice(connection, slug, number, tracker))
        query = request.scope["query_string"]
        reader = language.negotiate(dict(request.scope["headers"]), query)
        context = {
            "record": record,
            "final_at": found.stored.final.timestamp() if found.stored.final else None,
            "publishes": found.stored.publishes,
            "typed": typed[:50],
            "tracker": tracker_text(tracker) if tracker else "",
            "labels": None if choice is None else _labels(record.poll, choice),
            "round": found.number if found.number != found.poll.round else None,
            "prefix": found.poll.path,
        }
        headers = HEADERS | {"content-type": "text/html; charset=utf-8"}
        if code := language.from_query(query):
            headers["set-cookie"] = language.cookie(code).decode()
        return Response(self._pages.render("ballots.html", reader, **context), headers=headers)

    async def _find(self, request: Request) -> _Round:
        """Return the round that a request names, by default the current one; or raise a `Problem`."""
        key = Key("poll", request.path_params.get("poll", DEFAULT_POLL))
        if loading := self._hub.load(key):
            await asyncio.shield(loading)
        held = self._hub.find(key)
        assert isinstance(held, Channel)  # noqa: S101 - the key is of a poll
        poll = held.poll
        if not is_visible(poll.results, "final", has_ticket=False):
            raise Problem(404, "hidden", translatable("The result of this poll is not public."))
        number = _round(request.query_params.get("round"), poll)
        stored = await self._read(lambda connection: read_record(connection, poll.slug, number))
        if stored is None:
            raise Problem(404, "not_final", translatable("Voting has not closed yet, so there is no final result."))
        if stored.final is None:
            raise Problem(404, "closing", translatable("Voting is closing: the last votes are being counted."))
        return _Round(poll, number, stored)

    async def _read(self, read: Read[T]) -> T:
        """Read with the shared connection; an outage is a 503."""
        if self._waiting >= LOOKUPS:
            raise Problem(503, "busy")
        self._waiting += 1
        try:
            async with self._lock:
                return await self._read_locked(read)
        finally:
            self._waiting -= 1

    async def _read_locked(self, read: Read[T]) -> T:
        try:
            if self._connection is None or self._connection.closed:
                url = await self._settings.reread("database_url")
                self._connection = await open_connection(url, name="result records", timeout=TIMEOUT)
            async with deadline(self._connection, TIMEOUT):
                return await read(self._connection)
        except OUTAGES:
            await self.close()
            raise Problem(503, "database_away") from None

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection:
            with contextlib.suppress(*OUTAGES):
                await connection.close()


def _require_ballots(found: _Round) -> None:
    if not found.stored.publishes:
        raise Problem(404, "not_published", translatable("The ballots of this poll are not published."))


def _round(text: str | None, poll: Poll) -> int:
    if text is None:
        return poll.round
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Problem(404, "unknown_round", translatable("This poll has no such round."))
    return int(text)


def _labels(poll: Poll, choice: str) -> list[str]:
    """Return the labels of the options that a choice names, in its order."""
    labels = {option.key: option.label for option in poll.options}
    return [labels.get(key, key) for key in (choice if poll.limit > 1 else [choice])]
