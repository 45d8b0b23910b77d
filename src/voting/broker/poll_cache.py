"""The published polls and sessions that the vote service was asked for, read from Redis.

One connection subscribes to the channel `definitions`, whose messages have what has changed. Another one reads what
requests ask for, what a message names, and once a second all that is cached. So a change is known in milliseconds, but
no message is needed. All that is to be read at one moment is one round trip, so a flood of requests for unknown names
costs Redis one command at a time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import NoPermissionError, RedisError

from voting.broker.cached_hash import CachedHash, T
from voting.broker.connection import RIGHTS_FIX, redis_client
from voting.broker.poll_hash import CHANNEL, POLLS, SESSIONS
from voting.polls.poll import DEFAULT_POLL, Poll
from voting.polls.session import CODE, Session
from voting.polls.slug import SLUG
from voting.service import logs
from voting.service.lifecycle import Backoff, raise_if_cancelled

REFRESH_SECONDS = 1.0
TIMEOUT = 1.0  # seconds; for connecting to Redis, and for each reply
SILENCE_SECONDS = 5.0  # without a message, after which the subscription is checked with PING

log = logs.get()


class BrokerAway(Exception):
    """Redis gave no answer, so it is not known whether there is such a poll or session: answer 503, not 404."""


class PollCache:
    """The published polls and sessions that were asked for: at most 1,000 of each, the least recently used leave first.

    While `run` runs, what is cached is at most a second old, normally some milliseconds. While Redis is away, it stays.
    An entry that becomes invalid stays as it was. `default` is loaded as soon as Redis is reachable, and never evicted.

    Args:
        redis_url: returns the URL of Redis; called for each new connection.
        on_poll: called with slug and poll when a poll enters the cache (before `load` returns) or has changed, and with
            None when it leaves: it was deleted, or evicted. It must not block or raise.
        on_session: the same for sessions, with the code.
    """

    def __init__(
        self,
        redis_url: Callable[[], Awaitable[str]],
        *,
        on_poll: Callable[[str, Poll | None], None] = lambda _slug, _poll: None,
        on_session: Callable[[str, Session | None], None] = lambda _code, _session: None,
    ) -> None:
        self._redis_url = redis_url
        self._polls = CachedHash(POLLS, Poll.from_json, on_poll, DEFAULT_POLL)
        self._sessions = CachedHash(SESSIONS, Session.from_json, on_session)
        self._by_kind: dict[bytes, CachedHash[Poll] | CachedHash[Session]] = {
            b"poll": self._polls,
            b"session": self._sessions,
        }
        self._has_work = asyncio.Event()
        self._next_refresh = float("-inf")
        self._is_away = True
        self._published = 0
        self._bad_polls = logs.BadPollLog()
        self._refused = ""  # the last error of a user without the rights

    @property
    def has_polls(self) -> bool:
        """Whether any poll was published when Redis last answered; False before its first answer."""
        return self._published > 0

    def find(self, slug: str) -> Poll | None:
        """Return a cached poll, without I/O, and mark it as used; None means that it must be loaded."""
        return self._polls.find(slug)

    async def load(self, slug: str) -> Poll | None:
        """Return a poll, from Redis if it is not cached; None if there is none, or an invalid one.

        Concurrent loads share one command. That there is no such poll is remembered for a second at most.

        Raises:
            BrokerAway: at once while Redis is known to be away, else within `TIMEOUT`.
        """
        return await self._load(self._polls, slug) if SLUG.fullmatch(slug) else None

    def find_session(self, code: str) -> Session | None:
        """Return a cached session, as `find` does; the code is one that `parse_code` has returned."""
        return self._sessions.find(code)

    async def load_session(self, code: str) -> Session | None:
        """Return a session, as `load` does."""
        return await self._load(self._sessions, code) if CODE.fullmatch(code) else None

    async def _load(self, table: CachedHash[T], name: str) -> T | None:
        found = table.find(name)
        if found is not None or table.is_missing(name):
            return found
        if self._is_away:
            raise BrokerAway
        self._has_work.set()
        answered, found = await asyncio.shield(table.wait_for(name))
        if not answered:
            raise BrokerAway
        return found

    async def run(self) -> None:
        """Keep what is cached up to date, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            tasks.create_task(self._subscribe())

    async def _read(self) -> None:
        """Read whatever is due; after an outage connect again, with backoff."""
        backoff = Backoff(0.05, 0.5)
        while True:
            try:
                async with redis_client(await self._redis_url(), timeout=TIMEOUT) as client:
                    self._next_refresh = float("-inf")
                    while True:
                        await self._read_due(client)
                        backoff.reset()
                        await self._wait_for_work()
            except (RedisError, OSError) as error:
                log.debug("definitions.unreadable", error=f"{type(error).__name__}: {error}")
            self._is_away = True
            self._polls.refuse()
            self._sessions.refuse()
            raise_if_cancelled()
            await asyncio.sleep(backoff.next())

    async def _wait_for_work(self) -> None:
        raise_if_cancelled()
        try:
            async with asyncio.timeout(self._next_refresh - time.monotonic()):
                await self._has_work.wait()
        except TimeoutError:
            pass

    async def _read_due(self, client: Redis) -> None:
        """Read until nothing is due, one round trip after another."""
        while True:
            raise_if_cancelled()
            if time.monotonic() >= self._next_refresh:
                self._next_refresh = time.monotonic() + REFRESH_SECONDS
                self._mark_all()
            self._has_work.clear()
            names = self._polls.take(), self._sessions.take()
            if not any(names):
                return
            try:
                await self._fetch(client, *names)
                self._refused = ""
            except NoPermissionError as error:
                self._log_refusal(error)
                await self._fetch_with_earlier_rights(client, *names)
            self._is_away = False
            self._bad_polls.log(self._polls.bad | {f"session {code}": why for code, why in self._sessions.bad.items()})

    def _mark_all(self) -> None:
        self._polls.mark_all()
        self._sessions.mark_all()

    async def _fetch(self, client: Redis, slugs: list[str], codes: list[str]) -> None:
        reads = [(table, names) for table, names in ((self._polls, slugs), (self._sessions, codes)) if names]
        async with client.pipeline(transaction=False) as commands:
            commands.hlen(POLLS)
            for table, names in reads:
                commands.hmget(table.key, names)
            self._published, *found = await commands.execute()
        for (table, names), texts in zip(reads, found, strict=True):
            for name, text in zip(names, texts, strict=True):
                table.store(name, text)

    async def _fetch_with_earlier_rights(self, client: Redis, slugs: list[str], codes: list[str]) -> None:
        """Read the polls as earlier versions did; sessions cannot be read."""
        published = cast("dict[bytes, bytes]", await client.hgetall(POLLS))
        self._published = len(published)
        for slug in slugs:
            self._polls.store(slug, published.get(slug.encode()))
        self._sessions.refuse(codes)

    def _log_refusal(self, error: NoPermissionError) -> None:
        if self._refused != (refused := str(error)):
            self._refused = refused
            log.error("definitions.refused", error=refused, fix=RIGHTS_FIX)

    async def _subscribe(self) -> None:
        """Mark what messages name; after an outage connect again, with backoff, and read everything again."""
        backoff = Backoff(0.05, 0.5)
        refused = Backoff(1, 30)
        while True:
            wait = backoff
            try:
                async with redis_client(await self._redis_url(), timeout=TIMEOUT) as client, client.pubsub() as channel:
                    await channel.subscribe(CHANNEL)
                    while True:
                        self._on_message(await self._next_message(channel))
                        backoff.reset()
            except NoPermissionError as error:
                log.error("definitions.refused", error=str(error), fix=RIGHTS_FIX)
                wait = refused
            except (RedisError, OSError) as error:
                log.debug("definitions.unsubscribed", error=f"{type(error).__name__}: {error}")
            raise_if_cancelled()
            await asyncio.sleep(wait.next())

    async def _next_message(self, channel: PubSub) -> dict[str, object]:
        """Return the next message; raise TimeoutError if the server is silent even when asked."""
        for wait in (SILENCE_SECONDS, TIMEOUT):
            raise_if_cancelled()
            message = cast("dict[str, object] | None", await channel.get_message(timeout=wait))
            if message:
                return message
            if wait == SILENCE_SECONDS:
                await channel.ping()
        raise TimeoutError("no answer to PING")

    def _on_message(self, message: dict[str, object]) -> None:
        if message["type"] == "subscribe":  # messages before it were missed
            self._mark_all()
        elif message["type"] == "message":
            kind, _, rest = cast("bytes", message["data"]).partition(b" ")
            name, _, text = rest.partition(b" ")
            if (table := self._by_kind.get(kind)) and text:
                table.receive(name.decode(errors="replace"), text)
            elif table:
                table.mark(name.decode(errors="replace"))
        self._has_work.set()
