"""The endpoint that shows the ballot and accepts votes.

It handles most requests, so it uses plain ASGI without a framework. The pages, and every body that the ballot's form
can send, are prepared when a poll is read from Redis. The main cost of a request is the HMAC of its cookie.
"""

import asyncio
import functools
import time

from starlette.types import Receive, Scope, Send

from voting.broker.monitor import BrokerMonitor
from voting.broker.poll_cache import BrokerAway, PollCache
from voting.broker.producer import Refused, VoteProducer
from voting.polls.poll import DEFAULT_POLL, Poll
from voting.service.tracing import OFF, Recorder
from voting.settings.services import VoteSettings
from voting.vote.metrics import VoteMetrics
from voting.vote.new_voters import NewVoters, idempotency_key
from voting.vote.prepared import PreparedBallot
from voting.vote.voter import Voter, Voters
from voting.web import language
from voting.web.language import translatable
from voting.web.origin import same_site
from voting.web.problems import Problem
from voting.web.rendering import Pages
from voting.web.responses import prefers_json, send_ok

MAX_VOTE_BODY = 4096  # bytes
_FORM = b"application/x-www-form-urlencoded"
_HTML = b"text/html; charset=utf-8"
_JSON = b"application/json"

OkResponse = tuple[Voter, bytes, bytes]  # a 200: the voter, the media type and the body


class VoteEndpoint:
    """The ASGI application for `/` and `/p/{poll}`: GET returns the ballot, POST accepts a vote while `run` runs."""

    def __init__(self, settings: VoteSettings, pages: Pages, metrics: VoteMetrics, recorder: Recorder = OFF) -> None:
        self._pages = pages
        self._metrics = metrics
        keys = settings.secret_key, settings.secret_key_old
        self._voters = Voters(*keys, https=settings.https, days=settings.cookie_days)
        self._new_voters = NewVoters(settings, self._voters)
        self._allowed_origins = settings.allowed_origins
        self._ballots: dict[str, PreparedBallot] = {}
        url = functools.partial(settings.reread, "redis_url")
        self._producer = VoteProducer(url, max_in_flight=settings.max_in_flight, on_lost=metrics.interruptions.inc)
        self._cache = PollCache(url, on_poll=self._prepare_ballot)
        self._monitor = BrokerMonitor(
            url,
            self._producer,
            self._cache,
            on_in_flight=metrics.in_flight.set,
            on_memory=metrics.memory.set,
        )
        self._publish = recorder.trace_publish(self._producer.publish)

    @property
    def ready(self) -> bool:
        return self._monitor.ready

    async def run(self) -> None:
        """Keep the connections to Redis, and monitor Redis, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._producer.run())
            tasks.create_task(self._cache.run())
            tasks.create_task(self._monitor.run())

    def _prepare_ballot(self, slug: str, poll: Poll | None) -> None:
        if poll is None:
            self._ballots.pop(slug, None)
        else:
            self._ballots[slug] = PreparedBallot(poll, self._pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request; see https://asgi.readthedocs.io/en/latest/specs/www.html."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_post = scope["method"] == "POST"
        try:
            ballot = await self._find_ballot(scope.get("path_params", {}).get("poll", DEFAULT_POLL))
            if is_post:
                voter, media_type, body = await self._post(ballot, scope, headers, receive)
            else:
                voter, media_type, body = self._get(ballot, scope, headers)
        except Problem as problem:
            if is_post:
                self._metrics.refused.labels(problem.reason).inc()
            back = scope["path"] if problem.reason != "unknown_poll" else "/"  # the page links to this ballot
            await self._pages.refusal(problem, scope, back)(scope, receive, send)
            return
        response_headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]
        if voter.cookie is not None:
            response_headers.append((b"set-cookie", voter.cookie))
        if code := language.from_query(scope["query_string"]):
            response_headers.append((b"set-cookie", language.cookie(code)))
        await send_ok(scope, send, response_headers, body)

    async def _find_ballot(self, slug: str) -> PreparedBallot:
        try:
            if self._cache.find(slug) or await self._cache.load(slug):
                return self._ballots[slug]
        except BrokerAway:
            message = translatable("The vote could not be stored just now. Please send it again in a moment.")
            raise Problem(503, "broker_away", message) from None
        if not self._cache.has_polls:
            raise Problem(503, "no_polls", translatable("Voting has not opened yet. Please try again in a moment."))
        raise Problem(404, "unknown_poll")

    def _get(self, ballot: PreparedBallot, scope: Scope, headers: dict[bytes, bytes]) -> OkResponse:
        voter = self._voters.recognise(headers.get(b"cookie")) or self._new_voters.create_for_page(scope)
        return voter, _HTML, ballot.page(language.negotiate(headers, scope["query_string"]))

    async def _post(
        self, ballot: PreparedBallot, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> OkResponse:
        """Accept one vote and return the response with its receipt, or raise a `Problem`."""
        started = time.perf_counter()
        if not same_site(headers, self._allowed_origins):
            message = translatable("This vote was sent by another site. Open the ballot and vote there.")
            raise Problem(403, "cross_site", message)
        if not headers.get(b"content-type", b"").startswith(_FORM):
            message = translatable("Send the vote as a form: {type} with the field vote.")
            raise Problem(415, "media_type", message, type=_FORM.decode())
        form = await _read_body(headers, receive)
        choice = ballot.plain_forms.get(form) or ballot.parse_choice(form)
        key = idempotency_key(headers[b"idempotency-key"]) if b"idempotency-key" in headers else None
        voter, client_address = self._voters.recognise(headers.get(b"cookie")), ""
        if voter is None:
            voter, client_address = self._new_voters.create_for_vote(scope, form, key)
        try:
            receipt = await self._publish(ballot.slug, voter.pseudonym(ballot.slug), choice)
        except Refused as refused:
            if not refused.sent:
                self._new_voters.release(client_address)
            raise _publish_problem(refused, ballot, choice, voter) from None
        if prefers_json(headers):
            media_type, body = _JSON, ballot.receipt(choice, receipt)
        else:
            media_type, body = _HTML, ballot.page(language.negotiate(headers), choice, receipt)
        self._metrics.accepted.inc()
        self._metrics.seconds.observe(time.perf_counter() - started)
        return voter, media_type, body


async def _read_body(headers: dict[bytes, bytes], receive: Receive) -> bytes:
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_VOTE_BODY:
        raise _too_large()
    body: bytes = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Problem(400, "disconnected")
        body += event.get("body", b"")
        if len(body) > MAX_VOTE_BODY:
            raise _too_large()
        if not event.get("more_body"):
            return body


def _too_large() -> Problem:
    message = translatable("A vote has at most {size} bytes. Send only the form field vote.")
    return Problem(413, "too_large", message, size=MAX_VOTE_BODY)


def _publish_problem(refused: Refused, ballot: PreparedBallot, choice: bytes, voter: Voter) -> Problem:
    """Return the 503 for a vote that was not published, with the form fields for a retry.

    If Redis may have the vote, the response sets the voter's cookie, so that a retry replaces the vote.
    """
    fields = {"ballot": ballot.digest, "vote": choice.decode()}
    if not refused.sent:
        message = translatable("The vote could not be stored just now. Please send it again in a moment.")
        return Problem(503, refused.reason, message, again=fields)
    message = translatable("It is not known whether your vote was counted. Please send it again: it counts once.")
    return Problem(503, refused.reason, message, counted="unknown", again=fields, cookie=voter.cookie)
