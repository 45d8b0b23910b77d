"""Publishes definitions of polls and sessions, so that an older one never replaces a newer one.

`publish` reads the database after WATCH. So what it reads is at least as new as all that was published until then, and
if anything is published later, EXEC fails and it reads again. Any number of workers may publish the same names. A
database that was restored from a backup is older than what is published, and is published nevertheless.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError

from voting.broker.poll_hash import CHANNEL, POLLS, SESSIONS
from voting.polls.poll import Poll
from voting.polls.session import CODE, Session
from voting.polls.slug import SLUG

T = TypeVar("T")
U = TypeVar("U")
Kind = Literal["poll", "session"]
HASHES: dict[Kind, bytes] = {"poll": POLLS, "session": SESSIONS}
_PATTERNS: dict[Kind, re.Pattern[str]] = {"poll": SLUG, "session": CODE}
Definitions = tuple[Mapping[str, Poll] | Mapping[str, Session], Mapping[str, str]]  # by name; errors of invalid rows
Read = Callable[[Sequence[str]], Awaitable[Definitions]]


class Published(NamedTuple):
    """The outcome of `publish`."""

    changed: list[str]  # names that were published
    removed: list[str]
    withheld: set[str]  # names of invalid rows that are not published
    bad: Mapping[str, str]  # the error of each invalid row


async def publish(client: Redis, kind: Kind, names: Sequence[str], read: Read) -> Published:
    """Publish what the database holds under some names, if it differs from what is published.

    Args:
        client: has the rights of a worker.
        kind: what the names are: slugs of polls, or codes of sessions.
        names: at most some hundreds.
        read: returns the definitions of names. Those that it does not return are removed, and those whose row is
            invalid stay as they were published.
    """
    key = HASHES[kind]
    while True:
        async with client.pipeline(transaction=True) as transaction:
            await transaction.watch(key)
            published, (defined, bad) = await _both(_published(transaction, key, names), read(names))
            new = {name: each.to_json().encode() for name, each in defined.items()}
            changed = {name: text for name, text in new.items() if published[name] != text}
            removed = [name for name, text in published.items() if text is not None and name not in {*new, *bad}]
            if changed or removed:
                transaction.multi()  # type: ignore[no-untyped-call]
                if changed:
                    transaction.hset(key, mapping=cast("dict[Any, Any]", changed))
                if removed:
                    transaction.hdel(key, *removed)
                for name, text in changed.items():
                    transaction.publish(CHANNEL, f"{kind} {name} ".encode() + text)
                for name in removed:
                    transaction.publish(CHANNEL, f"{kind} {name}")
                try:
                    await transaction.execute()
                except WatchError:
                    continue  # another worker has published something
            return Published(list(changed), removed, {name for name in bad if published[name] is None}, bad)


async def _published(transaction: Pipeline, key: bytes, names: Sequence[str]) -> dict[str, bytes | None]:
    texts = cast("list[bytes | None]", await transaction.hmget(key, list(names)))
    return dict(zip(names, texts, strict=True))


async def _both(first: Awaitable[T], second: Awaitable[U]) -> tuple[T, U]:
    """Await two at once; an error is raised when both have ended, so that nothing uses their connections any more."""
    results = await asyncio.gather(first, second, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("tuple[T, U]", tuple(results))


async def published_numbers(client: Redis) -> dict[Kind, int]:
    """Return how many polls and sessions are published."""
    async with client.pipeline(transaction=False) as commands:
        for key in HASHES.values():
            commands.hlen(key)
        return dict(zip(HASHES, await commands.execute(), strict=True))


async def other_names(client: Redis, kind: Kind, known: Container[str]) -> list[str]:
    """Return the published names that are not among those known; remove those that nothing can have."""
    names, impossible = [], []
    for raw in cast("list[bytes]", await client.hkeys(HASHES[kind])):
        name = raw.decode(errors="replace")
        if not _PATTERNS[kind].fullmatch(name):
            impossible.append(raw)
        elif name not in known:
            names.append(name)
    if impossible:
        await client.hdel(HASHES[kind], *cast("list[str]", impossible))
    return names
