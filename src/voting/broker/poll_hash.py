"""The hash `polls` (slug -> JSON), in which the worker publishes poll definitions for the vote service."""

from collections.abc import Container
from typing import Any, cast

from redis.asyncio import Redis

from voting.polls.poll import BadPoll, Poll

POLLS = b"polls"


async def publish_polls(client: Redis, polls: tuple[Poll, ...], keep: Container[str] = ()) -> None:
    """Replace the published polls by these; do not change those whose slug is in `keep`."""
    defined = {poll.slug.encode(): poll.to_json().encode() for poll in polls}
    published = cast("dict[bytes, bytes]", await client.hgetall(POLLS))
    removed = [slug for slug in published if slug not in defined and slug.decode(errors="replace") not in keep]
    changed: dict[Any, Any] = {slug: text for slug, text in defined.items() if published.get(slug) != text}
    if not changed and not removed:
        return
    async with client.pipeline(transaction=True) as transaction:
        if removed:
            transaction.hdel(POLLS, *removed)
        if changed:
            transaction.hset(POLLS, mapping=changed)
        await transaction.execute()


async def read_polls(client: Redis) -> tuple[dict[str, Poll], dict[str, str]]:
    """Return the published polls by slug, and the error of each invalid entry by slug."""
    polls, bad = {}, {}
    for raw, text in cast("dict[bytes, bytes]", await client.hgetall(POLLS)).items():
        slug = raw.decode(errors="replace")
        try:
            polls[slug] = Poll.from_json(slug, text)
        except BadPoll as error:
            bad[slug] = str(error)
    return polls, bad
