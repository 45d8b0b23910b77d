"""The hashes `polls` and `sessions`, in which workers publish definitions (name -> JSON) for the vote service.

Each change is also sent on the channel `definitions`, as `poll SLUG JSON` or `session CODE JSON`; without the JSON if
it was removed.
"""

import contextlib
from collections.abc import Iterable
from typing import cast

from redis.asyncio import Redis

from voting.polls.poll import BadPoll, Poll

POLLS = b"polls"
SESSIONS = b"sessions"
CHANNEL = b"definitions"


async def read_polls(client: Redis) -> tuple[dict[str, Poll], dict[str, str]]:
    """Return all published polls by slug, and the error of each invalid entry by slug."""
    polls, bad = {}, {}
    for raw, text in cast("dict[bytes, bytes]", await client.hgetall(POLLS)).items():
        slug = raw.decode(errors="replace")
        try:
            polls[slug] = Poll.from_json(slug, text)
        except BadPoll as error:
            bad[slug] = str(error)
    return polls, bad


async def read_published(client: Redis, slugs: Iterable[str]) -> list[Poll]:
    """Return the published polls of some slugs, without those that are missing or invalid."""
    names = list(slugs)
    polls = []
    for slug, text in zip(names, cast("list[bytes | None]", await client.hmget(POLLS, names)), strict=True):
        with contextlib.suppress(BadPoll):
            polls += [Poll.from_json(slug, text)] if text is not None else []
    return polls
