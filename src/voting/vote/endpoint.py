"""The endpoint that shows the ballot and accepts votes.

It handles most requests, so it uses plain ASGI without a framework. Pages are kept when they are rendered, and every
body that the ballot's form can send is prepared when a poll is read from Redis. The main cost of a request is the HMAC
of its cookie.
"""

import asyncio
import functools
import hmac
import re
import time
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from voting.broker.monitor import BrokerMonitor
from voting.broker.producer import Refused, VoteProducer
from voting.polls.poll import DEFAULT_POLL
from voting.polls.session import Session
from voting.service.tracing import OFF, Recorder
from voting.settings.services import VoteSettings
from voting.vote.ballot_pages import BallotPages, BallotView
from voting.vote.ballots import Ballots
from voting.vote.code_voters import CodeVoter, CodeVoters
from voting.vote.metrics import VoteMetrics
from voting.vote.new_voters import NewVoters, idempotency_key
from voting.vote.opening import not_open
from voting.vote.prepared import PreparedBallot
from voting.vote.voter import Voter, Voters
from voting.web import language
from voting.web.language import translatable
from voting.web.origin import same_site, service_url
from voting.web.problems import Problem
from voting.web.rendering import Pages
from voting.web.responses import OK_HEAD, OkHead, headers_for, ok_head, prefers_json, send_ok

MAX_VOTE_BODY = 4096  # bytes
MAX_HOSTS = 100  # values of Host whose headers are kept; the least recently used leave first
_VOTED = re.compile(rb"(?:^|&)voted=([0-9a-f-]{1,100})(?:&|$)")
_FORM = b"application/x-www-form-urlencoded"
_HTML = b"text/html; charset=utf-8"
_JSON = b"application/json"

OkResponse = tuple[bytes | None, bytes, bytes]  # a 200: the Set-Cookie value, the media type and the body


class VoteEndpoint:
    """The ASGI application for `/` and `/p/{poll}`: GET returns the ballot, POST accepts a vote while `run` runs.

    `/{code}` is the ballot of a session's current poll. With `?s={code}` the ballot of a poll leads back there.
    """

    def __init__(self, settings: VoteSettings, pages: Pages, metrics: VoteMetrics, recorder: Recorder = OFF) -> None:
        self._settings = settings
        self._pages = pages
        self._ballot_pages = BallotPages(settings, pages)
        self._metrics = metrics
        keys = settings.secret_key, settings.secret_key_old
        self._voters = Voters(*keys, https=settings.https, days=settings.cookie_days)
        self._new_voters = NewVoters(settings, self._voters)
        self._code_voters = CodeVoters(settings, hops=settings.trusted_proxies, https=settings.https)
        self._allowed_origins = settings.allowed_origins
        self._page_head = functools.lru_cache(MAX_HOSTS)(self._make_page_head)
        url = functools.partial(settings.reread, "redis_url")
        self._ballots = Ballots(url)
        self._producer = VoteProducer(url, max_in_flight=settings.max_in_flight, on_lost=metrics.interruptions.inc)
        self._monitor = BrokerMonitor(
            url, self._producer, self._ballots.cache, on_in_flight=metrics.in_flight.set, on_memory=metrics.memory.set
        )
        self._publish = recorder.trace_publish(self._producer.publish)

    @property
    def ready(self) -> bool:
        return self._monitor.ready

    async def run(self) -> None:
        """Keep the connection to Redis, what is cached, and the state of Redis, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._producer.run())
            tasks.create_task(self._ballots.cache.run())
            tasks.create_task(self._monitor.run())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request; see https://asgi.readthedocs.io/en/latest/specs/www.html."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        is_post = scope["method"] == "POST"
        session: Session | None = None
        try:
            is_code = "code" in scope.get("path_params", {})
            if is_code or (scope["query_string"] and not (is_post and prefers_json(headers))):  # JSON needs no session
                session = await self._ballots.find_session(scope)
            if is_post:
                cookie, media_type, body = await self._post(scope, headers, receive, session)
            else:
                cookie, media_type, body = await self._get(scope, headers, session)
        except Problem as problem:
            if is_post:
                self._metrics.refused.labels(problem.reason).inc()
            # The page links to this ballot; a form that sends the vote again leads there too.
            back = f"{scope['path']}?s={session.code}" if session and is_post else scope["path"]
            back = "/" if problem.status == 404 else back
            await self._pages.refusal(problem, scope, back)(scope, receive, send)
            return
        response_headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]
        if cookie is not None:
            response_headers.append((b"set-cookie", cookie))
        if code := language.from_query(scope["query_string"]):
            response_headers.append((b"set-cookie", language.cookie(code)))
        head = OK_HEAD if media_type is _JSON else self._page_head(headers.get(b"host", b""))
        await send_ok(scope, send, response_headers, body, head)

    def _make_page_head(self, host: bytes) -> OkHead:
        """Return the headers of a page, which may open a WebSocket to the result service."""
        scheme = "https" if self._settings.https else "http"
        try:
            url = service_url(scheme, host.decode("latin-1"), self._settings.result_url, self._settings.result_port)
        except Problem:
            return OK_HEAD
        parts = urlsplit(url)
        sources = f"'self' {'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
        return ok_head(headers_for(connect=sources))

    async def _get(self, scope: Scope, headers: dict[bytes, bytes], session: Session | None) -> OkResponse:
        reader = language.negotiate(headers, scope["query_string"])
        ballot = await (self._ballots.find_current(session) if session else self._ballots.find(_slug(scope)))
        cookies, cookie, has_code = headers.get(b"cookie"), None, False
        if ballot is not None and ballot.codes is not None:
            has_code = self._code_voters.remembered(ballot.codes, cookies) is not None
        elif self._voters.recognise(cookies) is None:
            cookie = self._new_voters.create_for_page(scope).cookie
        if ballot is None:
            assert session  # noqa: S101 - only a session can be without a poll
            return cookie, _HTML, self._ballot_pages.waiting(session, reader)
        state = ballot.state_now()
        found = _VOTED.search(scope["query_string"]) if scope["query_string"] else None
        voted = bool(found and state == "open" and hmac.compare_digest(found[1], ballot.voted_token.encode()))
        view = BallotView(ballot, state, reader.code, session, voted=voted, has_code=has_code)
        return cookie, _HTML, self._ballot_pages.ballot(view)

    async def _post(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, session: Session | None
    ) -> OkResponse:
        """Accept one vote and return the response with its receipt, or raise a `Problem`."""
        started = time.perf_counter()
        ballot = await self._ballots.find(_slug(scope))
        if not same_site(headers, self._allowed_origins):
            message = translatable("This vote was sent by another site. Open the ballot and vote there.")
            raise Problem(403, "cross_site", message)
        if not headers.get(b"content-type", b"").startswith(_FORM):
            message = translatable("Send the vote as a form: {type} with the field vote.")
            raise Problem(415, "media_type", message, type=_FORM.decode())
        form = await _read_body(headers, receive)
        state = ballot.state_now()
        if state != "open":
            raise not_open(state)
        choice = ballot.plain_forms.get(form)
        cookies, client_address = headers.get(b"cookie"), ""
        voter: Voter | CodeVoter | None
        if ballot.codes is not None:
            choice, code = (choice, b"") if choice else ballot.parse_code_form(form)
            voter = self._code_voters.find(scope, ballot.codes, code, cookies)
        else:
            choice = choice or ballot.parse_choice(form)
            key = idempotency_key(headers[b"idempotency-key"]) if b"idempotency-key" in headers else None
            voter = self._voters.recognise(cookies)
            if voter is None:
                voter, client_address = self._new_voters.create_for_vote(
                    scope, form, key, browsers_only=ballot.browsers_only
                )
        try:
            receipt = await self._publish(ballot.box, voter.pseudonym(ballot.box), choice)
        except Refused as refused:
            if not refused.sent:
                self._new_voters.release(client_address)
            problem = _publish_problem(refused, ballot, choice, voter)
            if ballot.codes is not None:
                problem.cookie = voter.cookie  # the form that sends the vote again has no code
            raise problem from None
        tracker = ballot.tracker(receipt)
        if prefers_json(headers):
            media_type, body = _JSON, ballot.receipt(choice, receipt, tracker)
        else:
            has_code = ballot.codes is not None
            view = BallotView(ballot, state, language.negotiate(headers).code, session, choice, has_code=has_code)
            media_type, body = _HTML, self._ballot_pages.ballot(view, receipt, tracker)
        self._metrics.accepted.inc()
        self._metrics.seconds.observe(time.perf_counter() - started)
        return voter.cookie, media_type, body


def _slug(scope: Scope) -> str:
    slug: str = scope.get("path_params", {}).get("poll", DEFAULT_POLL)
    return slug


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


def _publish_problem(refused: Refused, ballot: PreparedBallot, choice: bytes, voter: Voter | CodeVoter) -> Problem:
    """Return the refusal of a vote that was not accepted; a 503 has the form fields for a retry.

    If Redis may have the vote, the response sets the voter's cookie, so that a retry replaces the vote.
    """
    if refused.reason == "closed":
        return not_open("closed")
    fields = {"ballot": ballot.digest, "vote": choice.decode()}
    if not refused.sent:
        message = translatable("The vote could not be stored just now. Please send it again in a moment.")
        return Problem(503, refused.reason, message, again=fields)
    message = translatable("It is not known whether your vote was counted. Please send it again: it counts once.")
    return Problem(503, refused.reason, message, counted="unknown", again=fields, cookie=voter.cookie)
