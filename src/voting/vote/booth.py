"""The way of one vote through the vote service: from a request to an entry on the stream, and its answer.

This is the hot path, so it is a bare ASGI application: what can be made once (pages, headers, the bodies that
a form can send) is made when a poll arrives, and a request costs little more than its cookie's HMAC.
"""

import json
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from voting.core import language
from voting.core.ballot import DEFAULT_POLL, Poll
from voting.core.ballotbox import BallotBox, Refused
from voting.core.config import VoteSettings
from voting.core.language import Language, mark
from voting.core.metrics import VoteMetrics
from voting.core.origin import same_site
from voting.core.rendering import Pages, Problem, answer, prefers_json
from voting.vote.newvoters import NewVoters, idempotency_key
from voting.vote.voter import Voter, Voters

if TYPE_CHECKING:
    from voting.core.spans import Spans

MAX_BODY = 4096
_FORM = b"application/x-www-form-urlencoded"
_RECEIPT = "0000000000000-receipt"  # stands for the entry id in prepared pages
_HTML = b"text/html; charset=utf-8"
_JSON = b"application/json"


class Paper:
    """A poll made ready to be voted on: its pages, and the choice that each plain form body means."""

    def __init__(self, poll: Poll, pages: Pages) -> None:
        self.slug = poll.slug.encode()
        self.ballot = poll.digest  # the hidden field of the page's form says which ballot was shown
        self.keys = {option.key: option.key.encode() for option in poll.offered}
        self.choices = {
            f"{ballot}vote={key}".encode(): choice
            for key, choice in self.keys.items()
            for ballot in ("", f"ballot={self.ballot}&")
        }
        self._documents = {
            key: json.dumps({"poll": poll.slug, "choice": choice, "receipt": _RECEIPT})
            .encode()
            .split(_RECEIPT.encode())
            for choice, key in self.keys.items()
        }
        self.expected = ", ".join(f"{option.key} ({option.label})" for option in poll.offered)
        self._context = {"poll": poll, "action": poll.path or "/", "results_href": f"{poll.path}/results"}
        self._context["ballot"] = self.ballot
        self._pages = pages
        self._ready: dict[tuple[str, bytes | None], list[bytes]] = {}

    def page(self, reader: Language, choice: bytes | None = None, receipt: bytes = b"") -> bytes:
        """The ballot in the reader's language, with a choice and its receipt if there is one; all else is made once."""
        pieces = self._ready.get((reader.code, choice))
        if pieces is None:
            chosen, place = (choice.decode(), _RECEIPT) if choice else (None, None)
            page = self._pages.render("ballot.html", reader, choice=chosen, receipt=place, **self._context)
            pieces = self._ready[reader.code, choice] = page.split(_RECEIPT.encode())
        return receipt.join(pieces)

    def document(self, choice: bytes, receipt: bytes) -> bytes:
        """Return the answer to a program whose vote was accepted."""
        return receipt.join(self._documents[choice])

    def choice(self, body: bytes) -> bytes:
        """Return the option that a form body chooses.

        Raises:
            Problem: it chooses none, several, or one that the poll does not have; or the poll has changed since its
                page was made.
        """
        try:
            fields = parse_qsl(body.decode(), keep_blank_values=True)
        except UnicodeDecodeError:
            fields = []
        if any(name == "ballot" and value != self.ballot for name, value in fields):
            raise Problem(
                409, "poll_changed", mark("This poll has changed since you opened it. Open it again and vote.")
            )
        given = [value for name, value in fields if name == "vote"]
        if len(given) != 1 or given[0] not in self.keys:
            message = mark("Choose exactly one option: send the form field vote as one of {expected}.")
            raise Problem(400, "bad_choice", message, expected=self.expected)
        return self.keys[given[0]]


class Booth:
    """The ASGI application behind `/` and `/p/{poll}`: GET gives the ballot, POST takes a vote."""

    def __init__(
        self, settings: VoteSettings, pages: Pages, metrics: VoteMetrics, spans: "Spans | None" = None
    ) -> None:
        self._pages = pages
        self._metrics = metrics
        self._voters = Voters(
            settings.secret_key, settings.secret_key_old, https=settings.https, days=settings.voter_lifetime
        )
        self._new_voters = NewVoters(settings, self._voters)
        self._origins = settings.allowed_origins
        self._papers: dict[str, Paper] = {}
        self.box = BallotBox(
            settings,
            limit=settings.max_in_flight,
            on_polls=self._prepare,
            on_look=metrics.in_flight.set,
            on_memory=metrics.memory.set,
            on_lost=metrics.interruptions.inc,
        )
        self._cast = spans.cast(self.box.cast) if spans else self.box.cast

    def _prepare(self, polls: dict[str, Poll]) -> None:
        self._papers = {slug: Paper(poll, self._pages) for slug, poll in polls.items()}

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
                kind, body = _HTML, paper.page(language.choose(headers, scope["query_string"]))
        except Problem as problem:
            if scope["method"] == "POST":
                self._metrics.refused.labels(problem.reason).inc()
            back = scope["path"] if problem.reason != "unknown_poll" else "/"
            await self._pages.refusal(problem, scope, back)(scope, receive, send)
            return
        extra = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if voter is not None and voter.cookie is not None:
            extra.append((b"set-cookie", voter.cookie))
        if asked := language.asked(scope["query_string"]):
            extra.append((b"set-cookie", language.cookie(asked)))
        await answer(scope, send, extra, body)

    def _paper(self, slug: str) -> Paper:
        paper = self._papers.get(slug)
        if paper is not None:
            return paper
        if not self._papers:
            raise Problem(503, "no_polls", mark("Voting has not opened yet. Please try again in a moment."))
        raise Problem(404, "unknown_poll")

    async def _vote(
        self, paper: Paper, scope: Scope, headers: dict[bytes, bytes], voter: Voter | None, receive: Receive
    ) -> tuple[Voter, bytes, bytes]:
        """Take one vote; return the voter and the answer.

        Raises:
            Problem: it was not taken, for the reason that the problem names.
        """
        if not same_site(headers, self._origins):
            message = mark("This vote was sent by another site. Open the ballot and vote there.")
            raise Problem(403, "cross_site", message)
        if not headers.get(b"content-type", b"").startswith(_FORM):
            message = mark("Send the vote as a form: {type} with the field vote.")
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
                message = mark("The vote could not be stored just now. Please send it again in a moment.")
                raise Problem(503, refused.reason, message, again=again) from None
            message = mark("It is not known whether your vote was counted. Please send it again: it counts once.")
            cookie = voter.cookie
            raise Problem(503, refused.reason, message, counted="unknown", again=again, cookie=cookie) from None
        if prefers_json(headers):
            return voter, _JSON, paper.document(choice, receipt)
        return voter, _HTML, paper.page(language.choose(headers), choice, receipt)


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
    message = mark("A vote has at most {size} bytes. Send only the form field vote.")
    return Problem(413, "too_large", message, size=MAX_BODY)
