"""TODO voting.broker.poll_hash."""

from collections.abc import Container
from typing import Any, cast

from redis.asyncio import Redis

from voting.polls import BadPoll, Poll

POLLS = b"polls"


async def publish_polls(client: Redis, polls: tuple[Poll, ...], kept: Container[str] = ()) -> None:
    """Make the hash of polls say exactly this, but leave those in `kept` as they are; vote reads it."""
    wanted: dict[Any, Any] = {poll.slug.encode(): poll.to_json().encode() for poll in polls}
    held = cast("dict[bytes, bytes]", await client.hgetall(POLLS))
    gone = [slug for slug in held if slug not in wanted and slug.decode(errors="replace") not in kept]
    wanted = {slug: poll for slug, poll in wanted.items() if held.get(slug) != poll}
    if not wanted and not gone:
        return
    async with client.pipeline(transaction=True) as transaction:
        if gone:
            transaction.hdel(POLLS, *gone)
        if wanted:
            transaction.hset(POLLS, mapping=wanted)
        await transaction.execute()


async def read_polls(client: Redis) -> tuple[dict[str, Poll], dict[str, str]]:
    """Return the polls as the worker published them, by slug; and of what is none, what is wrong."""
    good, bad = {}, {}
    for raw, text in cast("dict[bytes, bytes]", await client.hgetall(POLLS)).items():
        slug = raw.decode(errors="replace")
        try:
            good[slug] = Poll.from_json(slug, text)
        except BadPoll as error:
            bad[slug] = str(error)
    return good, bad
