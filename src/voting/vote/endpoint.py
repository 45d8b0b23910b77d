"""The way of one vote through the vote service: from a request to an entry on the stream, and its answer.

This is the hot path, so it is a bare ASGI application: what can be made once (pages, headers, the bodies that
a form can send) is made when a poll arrives, and a request costs little more than its cookie's HMAC.
"""

import functools
import time
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from voting.broker.producer import Refused, VoteProducer
from voting.polls import DEFAULT_POLL, Poll
from voting.settings.services import VoteSettings
from voting.vote.metrics import VoteMetrics
from voting.vote.new_voters import NewVoters, idempotency_key
from voting.vote.prepared import PreparedBallot
from voting.vote.voter import Voter, Voters
from voting.web import language
from voting.web.answers import prefers_json, send_ok
from voting.web.language import translatable
from voting.web.origin import same_site
from voting.web.problems import Problem
from voting.web.rendering import Pages

if TYPE_CHECKING:
    from voting.service.spans import SpanRecorder

MAX_BODY = 4096
_FORM = b"application/x-www-form-urlencoded"
_HTML = b"text/html; charset=utf-8"
_JSON = b"application/json"


class VoteEndpoint:
    """The ASGI application behind `/` and `/p/{poll}`: GET gives the ballot, POST takes a vote."""

    def __init__(
        self, settings: VoteSettings, pages: Pages, metrics: VoteMetrics, spans: "SpanRecorder | None" = None
    ) -> None:
        self._pages = pages
        self._metrics = metrics
        self._voters = Voters(
            settings.secret_key, settings.secret_key_old, https=settings.https, days=settings.voter_lifetime
        )
        self._new_voters = NewVoters(settings, self._voters)
        self._origins = settings.allowed_origins
        self._papers: dict[str, PreparedBallot] = {}
        self.box = VoteProducer(
            functools.partial(settings.reread, "redis_url"),
            limit=settings.max_in_flight,
            on_polls=self._prepare,
            on_look=metrics.in_flight.set,
            on_memory=metrics.memory.set,
            on_lost=metrics.interruptions.inc,
        )
        self._cast = spans.cast(self.box.cast) if spans else self.box.cast

    def _prepare(self, polls: dict[str, Poll]) -> None:
        self._papers = {slug: PreparedBallot(poll, self._pages) for slug, poll in polls.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see https://asgi.readthedocs.io/en/latest/specs/www.html."""
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        voter = self._voters.recognise(headers.get(b"cookie"))
        try:
            paper = self._paper(scope.get("path_params", {}).get("poll", DEFAULT_POLL))
            if scope["method"] == "POST":
                voter, kind, body = await self._vote(paper, scope, headers, voter, receive)
                self._metrics.accepted.inc()
                self._metrics.seconds.observe(time.perf_counter() - started)
            else:
                if voter is None:
                    voter = self._new_voters.for_page(scope)
                kind, body = _HTML, paper.page(language.negotiate(headers, scope["query_string"]))
        except Problem as problem:
            if scope["method"] == "POST":
                self._metrics.refused.labels(problem.reason).inc()
            back = scope["path"] if problem.reason != "unknown_poll" else "/"
            await self._pages.refusal(problem, scope, back)(scope, receive, send)
            return
        extra = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if voter is not None and voter.cookie is not None:
            extra.append((b"set-cookie", voter.cookie))
        if asked := language.from_query(scope["query_string"]):
            extra.append((b"set-cookie", language.cookie(asked)))
        await send_ok(scope, send, extra, body)

    def _paper(self, slug: str) -> PreparedBallot:
        paper = self._papers.get(slug)
        if paper is not None:
            return paper
        if not self._papers:
            raise Problem(503, "no_polls", translatable("Voting has not opened yet. Please try again in a moment."))
        raise Problem(404, "unknown_poll")

    async def _vote(
        self, paper: PreparedBallot, scope: Scope, headers: dict[bytes, bytes], voter: Voter | None, receive: Receive
    ) -> tuple[Voter, bytes, bytes]:
        """Take one vote; return the voter and the answer.

        Raises:
            Problem: it was not taken, for the reason that the problem names.
        """
        if not same_site(headers, self._origins):
            message = translatable("This vote was sent by another site. Open the ballot and vote there.")
            raise Problem(403, "cross_site", message)
        if not headers.get(b"content-type", b"").startswith(_FORM):
            message = translatable("Send the vote as a form: {type} with the field vote.")
            raise Problem(415, "media_type", message, type=_FORM.decode())
        body = await _read(headers, receive)
        choice = paper.choices.get(body) or paper.choice(body)
        key = idempotency_key(headers[b"idempotency-key"]) if b"idempotency-key" in headers else None
        address = ""
        if voter is None:
            voter, address = self._new_voters.for_vote(scope, body, key)
        try:
            receipt = await self._cast(paper.slug, voter.pseudonym(paper.slug), choice)
        except Refused as refused:
            again = {"ballot": paper.ballot, "vote": choice.decode()}
            if not refused.sent:
                self._new_voters.give_back(address)
                message = translatable("The vote could not be stored just now. Please send it again in a moment.")
                raise Problem(503, refused.reason, message, again=again) from None
            message = translatable(
                "It is not known whether your vote was counted. Please send it again: it counts once."
            )
            cookie = voter.cookie
            raise Problem(503, refused.reason, message, counted="unknown", again=again, cookie=cookie) from None
        if prefers_json(headers):
            return voter, _JSON, paper.document(choice, receipt)
        return voter, _HTML, paper.page(language.negotiate(headers), choice, receipt)


async def _read(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The request's body, if it is small enough to be a vote."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise _too_large()
    body: bytes = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Problem(400, "disconnected")
        body += event.get("body", b"")
        if len(body) > MAX_BODY:
            raise _too_large()
        if not event.get("more_body"):
            return body


def _too_large() -> Problem:
    message = translatable("A vote has at most {size} bytes. Send only the form field vote.")
    return Problem(413, "too_large", message, size=MAX_BODY)
