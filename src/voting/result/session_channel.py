"""One session that is held in memory: it shows its current poll, whichever that is."""

import time

from voting.polls.session import Session
from voting.result.channel import Audience, Channel
from voting.result.feed import Feed, Outbox


class SessionChannel:
    """A session with two feeds, `ballot` and `public`: those of its current poll, with the field `session`.

    There is no feed for voters: the ticket of one poll says nothing about the next.
    """

    def __init__(self, outbox: Outbox, session: Session, channel: Channel | None) -> None:
        self.feeds: dict[Audience, Feed] = {"ballot": Feed(outbox), "public": Feed(outbox)}
        self.asked_at = time.monotonic()  # when it was last asked for
        self.channel: Channel | None = None  # of the current poll
        self._stale_since: str | None = None
        self.define(session, channel)

    @property
    def viewers(self) -> int:
        return sum(feed.size for feed in self.feeds.values())

    @property
    def people(self) -> int:
        """The number of ballots that are open."""
        return self.feeds["ballot"].size

    def define(self, session: Session, channel: Channel | None) -> None:
        """Show a session as it is defined now, with the channel of its current poll, if it has one."""
        self.session, self._stale_since = session, None
        self.follow(channel)

    def follow(self, channel: Channel | None) -> None:
        if self.channel is not channel:
            self.unfollow()
        self.channel = channel
        if channel:
            channel.followers[self] = None
        self.refresh()

    def unfollow(self) -> None:
        """Let the channel of the current poll be forgotten."""
        if self.channel:
            self.channel.followers.pop(self, None)
        self.channel = None

    def refresh(self) -> None:
        """Publish what the current poll's feeds have now."""
        session = self.session
        about = {"code": session.code, "title": session.title, "polls": len(session.polls)}
        about["position"] = session.position(session.current)
        nothing = {"poll": None, "version": session.changed, "stale_since": self._stale_since}
        for audience, feed in self.feeds.items():
            shown = self.channel.feeds[audience].snapshot if self.channel else nothing
            feed.publish(shown | {"session": about})

    def mark_stale(self, since: str) -> None:
        if self._stale_since is None:
            self._stale_since = since
            self.refresh()
