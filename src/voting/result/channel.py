"""One poll that is held in memory: its definition, its numbers, and a feed for each audience."""

import time
from collections import deque
from typing import Literal, Protocol

from voting.database.poll_state import Backlog, PollState
from voting.polls.poll import Poll
from voting.polls.state import is_visible
from voting.polls.tally import Evaluation, evaluate
from voting.result.feed import Feed, Outbox
from voting.result.snapshot import numbers_view, state_view

RATES_SECONDS = 60

Audience = Literal["ballot", "public", "voter"]  # voter: a browser with the poll's ticket


class Follower(Protocol):
    """What shows the feeds of a channel too: a session whose current poll this is."""

    def refresh(self) -> None:
        """Publish what the channel's feeds have now."""


class Channel:
    """A poll with three feeds: `ballot` has always the state view, the others have the numbers where they are visible.

    A subscriber stays with its feed when the visibility changes; the feed then has the other view.

    Definition and numbers are set separately: numbers that take long to evaluate arrive later, and must never bring
    back an older definition, in which they were visible.
    """

    def __init__(self, outbox: Outbox, state: PollState, evaluation: Evaluation) -> None:
        self._outbox = outbox
        self.feeds: dict[Audience, Feed] = {"ballot": Feed(outbox), "public": Feed(outbox), "voter": Feed(outbox)}
        self.followers: dict[Follower, None] = {}
        self.rates: deque[int] = deque([0] * RATES_SECONDS, maxlen=RATES_SECONDS)  # votes of each second
        self.asked_at = time.monotonic()  # when it was last asked for
        self._last_total = evaluation.total
        self._stale_since: str | None = None
        self._state, self._evaluation, self._counted = state, evaluation, state.revision
        self._show()

    @property
    def poll(self) -> Poll:
        return self._state.poll

    @property
    def revision(self) -> int:
        """The revision of the newest state."""
        return self._state.revision

    @property
    def viewers(self) -> int:
        return sum(feed.size for feed in self.feeds.values())

    def update(self, state: PollState, evaluation: Evaluation | None) -> Feed | None:
        """Take over a newer state, with the numbers if they have been evaluated; else the last ones of this round stay.

        Return a feed whose subscribers must be closed, if any: the ticket that they have shown is not valid any more.
        """
        before, self._state, self._stale_since = self._state, state, None
        meaning = state.poll.box, state.poll.kind, state.poll.options
        if evaluation:
            self._evaluation, self._counted = evaluation, state.revision
        elif meaning != (before.poll.box, before.poll.kind, before.poll.options):
            self._evaluation, self._counted = evaluate(state.poll, {}), state.defined
        revoked = None
        if state.poll.ticket != before.poll.ticket:
            revoked, self.feeds["voter"] = self.feeds["voter"], Feed(self._outbox)
        self._show()
        return revoked

    def set_numbers(self, state: PollState, evaluation: Evaluation) -> None:
        """Take over the numbers of a state, whose definition may be older; those of another round are ignored."""
        if state.poll.box == self.poll.box:
            self._evaluation, self._counted = evaluation, state.revision
            self._show()

    def set_backlog(self, backlog: Backlog) -> None:
        if backlog != self._state.backlog:
            self._state = self._state._replace(backlog=backlog)
            self._show()

    def mark_stale(self, since: str) -> None:
        if self._stale_since is None:
            self._stale_since = since
            self._show()

    def record_rate(self) -> None:
        """Append the votes of the last second; called once a second."""
        total = self._evaluation.total
        self.rates.append(max(0, total - self._last_total))
        self._last_total = total
        for feed in self.feeds.values():
            if feed.snapshot["total"] is not None:
                feed.touch()

    def _show(self) -> None:
        state, poll = self._state, self.poll
        revision = max(self._counted, state.defined)
        stale = {"stale_since": self._stale_since}
        without = state_view(poll, state.defined, state.backlog) | stale
        numbers = numbers_view(poll, revision, state.backlog, self._evaluation, state.final) | stale
        published = []
        for audience, feed in self.feeds.items():
            is_shown = is_visible(poll.results, poll.state, has_ticket=audience == "voter")
            published.append(feed.publish(numbers if is_shown and audience != "ballot" else without))
        if any(published):
            for follower in self.followers:
                follower.refresh()
