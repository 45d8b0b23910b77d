"""The endpoints of a final round: its record, the published ballots, and the page "Is my vote in?".

They are public where the result is visible to everybody. All requests share one connection to the database, which is
opened when it is needed; each reads for some milliseconds.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from voting.database.connection import OUTAGES, Connection, deadline, open_connection
from voting.database.records import BallotReader, StoredRecord, find_choice, read_record
from voting.polls.poll import DEFAULT_POLL, Poll
from voting.polls.record import Record, header_line, parse_record
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

TIMEOUT = 2.0  # seconds; time limit of each read, with the wait for the connection
DOWNLOADS = 4  # of lists at the same time
DOWNLOAD_SECONDS = 600.0  # time limit of each
LOOKUPS = 50  # reads that wait for the connection
BUSY = translatable("Many people are reading this just now. Please try again in a moment.")
AWAY = translatable("The database does not answer just now. Please try again in a moment.")

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
        if self._downloads >= DOWNLOADS:
            raise Problem(503, "busy", BUSY)
        self._downloads += 1
        try:
            found = await self._find(request)
            _require_ballots(found)
        except BaseException:
            self._end_download()
            raise
        name = f'attachment; filename="{found.poll.slug}-round-{found.number}-ballots.csv"'
        headers = HEADERS | {"content-type": "text/csv; charset=utf-8", "content-disposition": name}
        return _Download(self._lines(BallotReader(found.poll.slug, found.number)), headers, self._end_download)

    async def _lines(self, reader: BallotReader) -> AsyncIterator[bytes]:
        """Yield the list. After an outage of the database the response breaks off, so it is not taken for complete."""
        yield header_line()
        while lines := await self._read(reader.read):
            yield lines

    def _end_download(self) -> None:
        self._downloads -= 1

    async def page(self, request: Request) -> Response:
        """Return the page on which a voter looks for the ballot with a tracker (`?tracker=`)."""
        found = await self._find(request)
        typed = request.query_params.get("tracker", "")
        tracker = parse_tracker(typed)
        record = await asyncio.to_thread(_parse, found.stored.record or "")
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
        """Return the round that a request names, by default the last that was opened; or raise a `Problem`."""
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
            raise Problem(503, "busy", BUSY)
        loop = asyncio.get_running_loop()
        ends = loop.time() + TIMEOUT
        self._waiting += 1
        try:
            async with asyncio.timeout_at(ends) as limit, self._lock:
                connection = await self._connect()
                limit.reschedule(None)  # from here on, `deadline` is the limit
                try:
                    async with deadline(connection, ends - loop.time()):
                        return await read(connection)
                except OUTAGES:
                    await self.close()
                    raise
        except OUTAGES:
            raise Problem(503, "database_away", AWAY) from None
        finally:
            self._waiting -= 1

    async def _connect(self) -> Connection:
        if self._connection is None or self._connection.closed:
            url = await self._settings.reread("database_url")
            self._connection = await open_connection(url, name="result records", timeout=TIMEOUT)
        return self._connection

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection:
            with contextlib.suppress(*OUTAGES):
                await connection.close()


class _Download(StreamingResponse):
    """A response that calls `on_end` when it was sent; it breaks off after its time limit, or a `Problem`."""

    def __init__(self, lines: AsyncIterator[bytes], headers: dict[str, str], on_end: Callable[[], None]) -> None:
        super().__init__(lines, headers=headers)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(TimeoutError, Problem):
                async with asyncio.timeout(DOWNLOAD_SECONDS):
                    await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _require_ballots(found: _Round) -> None:
    if not found.stored.publishes:
        raise Problem(404, "not_published", translatable("The ballots of this poll are not published."))


@functools.lru_cache(4)
def _parse(text: str) -> Record:
    """Parse a stored record, which can have as many choices as voters."""
    return parse_record(text)


def _round(text: str | None, poll: Poll) -> int:
    if text is None:
        return poll.round - 1 if poll.state == "draft" and poll.round > 1 else poll.round
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= poll.round:
        raise Problem(404, "unknown_round", translatable("This poll has no such round."))
    return int(text)


def _labels(poll: Poll, choice: str) -> list[str]:
    """Return the labels of the options that a choice names, in its order."""
    labels = {option.key: option.label for option in poll.options}
    return [labels.get(key, key) for key in (choice if poll.limit > 1 else [choice])]
