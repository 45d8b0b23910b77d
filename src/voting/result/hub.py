"""The polls and sessions that are held in memory: those with viewers, and those that were asked for recently.

A request for another one waits until it has been read. The poll `default` is always held.
"""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from voting.database.poll_state import Backlog, PollState
from voting.polls.poll import DEFAULT_POLL
from voting.polls.session import Session, parse_code
from voting.polls.slug import SLUG
from voting.polls.tally import Evaluation
from voting.result.channel import Channel
from voting.result.demand import Demand, Key
from voting.result.feed import Feed, Outbox
from voting.result.metrics import ResultMetrics
from voting.result.session_channel import SessionChannel
from voting.service.lifecycle import Stop, pause
from voting.web.problems import Problem

CHECK_SECONDS = 1.0  # between two checks for due keepalives, and for what can be forgotten
KEEP_SECONDS = 180.0  # for which a poll without viewers is held after it was asked for
MAX_IDLE = 1000  # polls and sessions without viewers that are held
CLOSE_DELETED = 4404  # a private close code (RFC 6455, section 7.4.2), unlike 1001, which proxies also send
CLOSE_RESTART = 1012  # the viewer connects again


class Hub:
    """The channels of polls and sessions."""

    def __init__(self, metrics: ResultMetrics) -> None:
        self.demand = Demand()
        self.channels: dict[str, Channel] = {}  # by slug
        self.sessions: dict[str, SessionChannel] = {}  # by code
        self.loaded = False  # whether the database has been read
        self._outbox = Outbox(metrics)
        self._stale_since: str | None = None
        self._closing: list[tuple[Feed, int, str]] = []
        metrics.held.set_function(lambda: len(self.channels) + len(self.sessions))

    def find(self, key: Key) -> Channel | SessionChannel:
        """Return what is held under a key, or raise a `Problem`."""
        found = self._held(key)
        if found is None:
            is_away = not self.loaded or self._stale_since is not None
            raise Problem(503, "no_polls") if is_away else Problem(404, "unknown_poll")
        found.asked_at = time.monotonic()
        return found

    def _held(self, key: Key) -> Channel | SessionChannel | None:
        return self.channels.get(key.name) if key.kind == "poll" else self.sessions.get(key.name)

    def load(self, key: Key) -> asyncio.Future[None] | None:
        """Have a poll or session read; return what is done afterwards, or None if `find` need not wait.

        The future belongs to all who wait for it, and must not be cancelled.

        Raises:
            Problem: too many requests wait.
        """
        is_away = not self.loaded or self._stale_since is not None
        is_possible = SLUG.fullmatch(key.name) if key.kind == "poll" else parse_code(key.name) == key.name
        if is_away or not is_possible or self._held(key):
            return None
        return self.demand.ask(key)

    def hint(self, key: Key, *, urgent: bool) -> None:
        """Have a poll or session read again if it is held; urgent if its definition has changed."""
        if self._held(key):
            self.demand.add(key, urgent=urgent)
        elif urgent:
            self.demand.forget_missing(key)

    def refresh(self) -> None:
        """Have everything read again that is held, and the default poll."""
        for key in self._keys():
            self.demand.add(key, urgent=True)
        self.demand.add(Key("poll", DEFAULT_POLL), urgent=True)

    def _keys(self) -> list[Key]:
        return [*(Key("poll", slug) for slug in self.channels), *(Key("session", code) for code in self.sessions)]

    def check(self, revisions: Mapping[str, tuple[int, Backlog]], changes: Mapping[str, int]) -> None:
        """Have everything read again that differs from the database, given revisions of polls, changes of sessions."""
        for slug, channel in self.channels.items():
            revision, backlog = revisions.get(slug, (None, None))
            if revision != channel.revision:
                self.demand.add(Key("poll", slug), urgent=revision is None)
            elif backlog:
                channel.set_backlog(backlog)
        for code, session in self.sessions.items():
            if changes.get(code) != session.session.changed:
                self.demand.add(Key("session", code), urgent=True)
            elif session.session.current and not session.channel:
                self.demand.add(Key("poll", session.session.current))
        self.demand.add(Key("poll", DEFAULT_POLL))  # whatever its revision, so that a missing right or table is noticed

    def update_sessions(self, asked: Collection[str], sessions: Collection[Session]) -> None:
        """Show sessions that were read, and close those that were asked for and are deleted.

        The current polls of sessions that are shown for the first time have been read before.
        """
        self._succeed()
        for session in sessions:
            channel = self.channels.get(session.current or "")
            if held := self.sessions.get(session.code):
                held.define(session, channel)
            else:
                self.sessions[session.code] = SessionChannel(self._outbox, session, channel)
        found = {session.code for session in sessions}
        for code in asked:
            if code not in found and (gone := self.sessions.pop(code, None)):
                gone.unfollow()
                self._close(gone, "this session was deleted")
            self.demand.answer(Key("session", code), found=code in found)

    def update(self, state: PollState, evaluation: Evaluation | None) -> None:
        """Show a poll that was read; one that is not held yet is held as soon as it has numbers.

        Args:
            state: newer than the one before.
            evaluation: its numbers; None if they come later, with `count`.
        """
        self._succeed()
        slug = state.poll.slug
        if channel := self.channels.get(slug):
            if revoked := channel.update(state, evaluation):
                self._closing.append((revoked, CLOSE_RESTART, "the ticket has changed"))
        elif evaluation:
            self._hold(state, evaluation)
        if evaluation:
            self.demand.answer(Key("poll", slug), found=True)

    def count(self, state: PollState, evaluation: Evaluation) -> None:
        """Show the numbers of a poll, which were evaluated after its state was read."""
        slug = state.poll.slug
        if channel := self.channels.get(slug):
            channel.set_numbers(state, evaluation)
        else:
            self._hold(state, evaluation)
            self.demand.add(Key("poll", slug), urgent=True)  # a change of what was not held yet was not noticed
        self.demand.answer(Key("poll", slug), found=True)

    def _hold(self, state: PollState, evaluation: Evaluation) -> None:
        slug = state.poll.slug
        channel = self.channels[slug] = Channel(self._outbox, state, evaluation)
        for session in self.sessions.values():
            if session.session.current == slug:
                session.follow(channel)

    def remove(self, slug: str, *, unreadable: bool = False) -> None:
        """Close the connections of viewers of a poll that does not exist.

        If its row is only unreadable, its last snapshot is kept, marked as stale.
        """
        self._succeed()
        channel = self.channels.get(slug)
        if channel and unreadable:
            channel.mark_stale(_now())
        elif channel:
            del self.channels[slug]
            for session in self.sessions.values():
                if session.channel is channel:
                    session.follow(None)
            self._close(channel, "this poll was deleted")
        self.demand.answer(Key("poll", slug), found=channel is not None and unreadable)

    def _close(self, gone: Channel | SessionChannel, reason: str) -> None:
        self._closing += [(feed, CLOSE_DELETED, reason) for feed in gone.feeds.values()]

    def _succeed(self) -> None:
        self.loaded, self._stale_since = True, None

    def record_rates(self) -> None:
        """Append the votes of the last second to the rates of every poll; called once a second."""
        for channel in self.channels.values():
            channel.record_rate()

    def mark_stale(self) -> None:
        """Add to each snapshot that it is stale, because the database does not respond."""
        if self._stale_since is None:
            self._stale_since = _now()
            for channel in self.channels.values():
                channel.mark_stale(self._stale_since)
            for session in self.sessions.values():
                session.mark_stale(self._stale_since)
        self.demand.give_up()

    def close(self) -> None:
        """Let no request wait any more, because nothing will be read."""
        self.loaded = False
        self.demand.give_up()

    async def run(self, stop: Stop) -> None:
        """Send published snapshots, close what was deleted, and forget what nobody watches, until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._outbox.run())
            while not stop.is_set():
                while self._closing:
                    feed, code, reason = self._closing.pop()
                    await feed.close(code, reason)
                feeds = [each.feeds for each in self.channels.values()] + [
                    each.feeds for each in self.sessions.values()
                ]
                for feed in (feed for each in feeds for feed in each.values()):
                    feed.keep_alive()
                self._forget()
                await pause(stop, CHECK_SECONDS)
            sending.cancel()

    def _forget(self) -> None:
        """Forget the polls and sessions that have no viewers and were not asked for recently."""
        for code in _idle(self.sessions):
            self.sessions.pop(code).unfollow()
        for slug in _idle({slug: each for slug, each in self.channels.items() if not each.followers}):
            if slug != DEFAULT_POLL:
                del self.channels[slug]


def _idle(held: Mapping[str, Channel] | Mapping[str, SessionChannel]) -> list[str]:
    """Return the names to forget."""
    idle = sorted((each.asked_at, name) for name, each in held.items() if not each.viewers)
    oldest = time.monotonic() - KEEP_SECONDS
    return [name for n, (asked_at, name) in enumerate(idle) if asked_at < oldest or n < len(idle) - MAX_IDLE]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
