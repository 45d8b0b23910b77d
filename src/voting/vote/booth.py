"""The way of one vote through the vote service: from a request to an entry on the stream, and its answer.

This is the hot path, so it is a bare ASGI application: what can be made once (pages, headers, the bodies that
a form can send) is made when a poll arrives, and a request costs little more than its cookie's HMAC.
"""

import json
import time
from http import HTTPStatus
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from voting.core.ballot import Poll
from voting.core.ballotbox import BallotBox, Refused
from voting.core.config import VoteSettings
from voting.core.metrics import VoteMetrics
from voting.core.web import RAW_HEADERS, Pages, prefers_json, same_site
from voting.vote.voter import Voter, Voters

MAX_BODY = 4096
RETRY_AFTER = b"1"
_FORM = b"application/x-www-form-urlencoded"
_RECEIPT = "0000000000000-receipt"  # stands for the entry id in prepared pages
_HTML = b"text/html; charset=utf-8"
_JSON = b"application/json"


class Problem(Exception):
    """A vote that is answered with a no: the status, a word for the metrics, and a sentence for the voter."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


class Paper:
    """A poll made ready to be voted on: its pages, and the choice that each plain form body means."""

    def __init__(self, poll: Poll, pages: Pages) -> None:
        self.slug = poll.slug.encode()
        self.choices = {f"vote={option.key}".encode(): option.key.encode() for option in poll.options}
        self.keys = {option.key: option.key.encode() for option in poll.options}
        self.expected = ", ".join(f"{option.key} ({option.label})" for option in poll.options)
        context = {"poll": poll, "action": poll.path or "/", "results_href": f"{poll.path}/results"}
        self.page = pages.render("ballot.html", choice=None, receipt=None, **context)
        self.thanks = {
            option.key.encode(): pages.render("ballot.html", choice=option.key, receipt=_RECEIPT, **context)
            for option in poll.options
        }

    def choice(self, body: bytes) -> bytes:
        """The option that a form body chooses.

        Raises:
            Problem: it chooses none, several, or one that the poll does not have.
        """
        try:
            given = [value for name, value in parse_qsl(body.decode(), keep_blank_values=True) if name == "vote"]
        except UnicodeDecodeError:
            given = []
        if len(given) != 1 or given[0] not in self.keys:
            raise Problem(
                400, "bad_choice", f"Choose exactly one option: send the form field vote as one of {self.expected}."
            )
        return self.keys[given[0]]


class Booth:
    """The ASGI application behind `/` and `/p/{poll}`: GET gives the ballot, POST takes a vote."""

    def __init__(self, settings: VoteSettings, pages: Pages, metrics: VoteMetrics) -> None:
        self._pages = pages
        self._metrics = metrics
        self._voters = Voters(settings.secret_key, settings.secret_key_old, https=settings.https)
        self._browsers_only = settings.ballot_policy == "browser"
        self._origins = settings.allowed_origins
        self._papers: dict[str, Paper] = {}
        self.box = BallotBox(settings.redis_url, limit=settings.max_in_flight, on_polls=self._prepare)

    def _prepare(self, polls: dict[str, Poll]) -> None:
        self._papers = {slug: Paper(poll, self._pages) for slug, poll in polls.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see https://asgi.readthedocs.io/en/latest/specs/www.html."""
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        voter = self._voters.recognise(headers.get(b"cookie"))
        try:
            paper = self._paper(scope["path_params"].get("poll", "default"))
            if scope["method"] == "POST":
                voter, status, kind, body = await self._vote(paper, headers, voter, receive)
                self._metrics.accepted.inc()
                self._metrics.seconds.observe(time.perf_counter() - started)
            else:
                voter = voter or self._voters.new()
                status, kind, body = 200, _HTML, paper.page
        except Problem as problem:
            if scope["method"] == "POST":
                self._metrics.refused.labels(problem.reason).inc()
            status = problem.status
            kind, body = self._explain(problem, scope["path"], headers)
        extra = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if voter is not None and voter.cookie is not None:
            extra.append((b"set-cookie", voter.cookie))
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            extra.append((b"retry-after", RETRY_AFTER))
        await send({"type": "http.response.start", "status": status, "headers": RAW_HEADERS + extra})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _paper(self, slug: str) -> Paper:
        paper = self._papers.get(slug)
        if paper is not None:
            return paper
        if not self._papers:
            raise Problem(503, "no_polls", "Voting has not opened yet. Please try again in a moment.")
        raise Problem(404, "unknown_poll", "There is no such poll. Check the address.")

    async def _vote(
        self, paper: Paper, headers: dict[bytes, bytes], voter: Voter | None, receive: Receive
    ) -> tuple[Voter, int, bytes, bytes]:
        """Take one vote; return the voter and the answer.

        Raises:
            Problem: it was not taken, for the reason that the problem names.
        """
        if not same_site(headers, self._origins):
            raise Problem(403, "cross_site", "This vote was sent by another site. Open the ballot and vote there.")
        if not headers.get(b"content-type", b"").startswith(_FORM):
            raise Problem(415, "media_type", f"Send the vote as a form: {_FORM.decode()} with the field vote.")
        body = await _read(headers, receive)
        choice = paper.choices.get(body) or paper.choice(body)
        if voter is None:
            if self._browsers_only:
                raise Problem(
                    403, "no_cookie", "This poll counts browsers. Open the ballot with cookies allowed, and vote there."
                )
            voter = self._voters.new()
        try:
            with self._metrics.in_flight.track_inprogress():
                receipt = await self.box.cast(paper.slug, voter.pseudonym, choice)
        except Refused as refused:
            message = "The vote could not be stored just now. Please send it again in a moment."
            raise Problem(503, refused.reason, message) from None
        if prefers_json(headers.get(b"accept", b"").decode("latin-1")):
            answer = {"poll": paper.slug.decode(), "choice": choice.decode(), "receipt": receipt.decode()}
            return voter, 200, _JSON, json.dumps(answer).encode()
        return voter, 200, _HTML, paper.thanks[choice].replace(_RECEIPT.encode(), receipt)

    def _explain(self, problem: Problem, path: str, headers: dict[bytes, bytes]) -> tuple[bytes, bytes]:
        accept = headers.get(b"accept", b"").decode("latin-1")
        back = path if problem.reason != "unknown_poll" else "/"
        title = HTTPStatus(problem.status).phrase
        body, kind = self._pages.problem(accept, problem.status, title, problem.message, back)
        return kind.encode(), body


async def _read(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    """The request's body, if it is small enough to be a vote."""
    too_large = Problem(413, "too_large", f"A vote has at most {MAX_BODY} bytes. Send only the form field vote.")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise too_large
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "disconnected", "The request ended early.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise too_large
        if not message.get("more_body"):
            return bytes(body)
