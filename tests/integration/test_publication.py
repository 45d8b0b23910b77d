"""Publishers of definitions between a real Valkey and what they read from a database."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from voting.broker.connection import redis_client
from voting.broker.poll_hash import CHANNEL, POLLS, read_polls
from voting.broker.publication import Definitions, other_names, publish, published_numbers
from voting.polls.poll import Option, Poll

pytestmark = pytest.mark.anyio
OPTIONS = (Option("a", "A"), Option("b", "Süß 🍰"))
ONE, TWO = Poll("default", "?", OPTIONS, changed=1), Poll("lunch", "What?", OPTIONS, changed=2)


class Rows:
    """What a database holds; a read takes some turns of the event loop, before or after it sees the rows."""

    def __init__(self, *polls: Poll, before: int = 0, after: int = 0) -> None:
        self.polls = {poll.slug: poll for poll in polls}
        self.bad: dict[str, str] = {}
        self.before, self.after = before, after

    async def read(self, slugs: Sequence[str]) -> Definitions:
        for _ in range(self.before):
            await asyncio.sleep(0)
        found = {slug: self.polls[slug] for slug in slugs if slug in self.polls and slug not in self.bad}
        bad = {slug: why for slug, why in self.bad.items() if slug in slugs}
        for _ in range(self.after):
            await asyncio.sleep(0)
        return found, bad


async def test_what_is_published_is_exactly_what_is_defined_and_each_change_is_announced(redis: Redis) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(CHANNEL)
        assert (await publish(redis, "poll", ["default", "lunch"], Rows(ONE, TWO).read)).changed == ["default", "lunch"]
        assert await read_polls(redis) == ({"default": ONE, "lunch": TWO}, {})
        assert (await publish(redis, "poll", ["default", "lunch"], Rows(ONE, TWO).read)).changed == []
        assert (await publish(redis, "poll", ["default", "lunch"], Rows(TWO).read)).removed == ["default"]
        assert await read_polls(redis) == ({"lunch": TWO}, {})
        messages = [await channel.get_message(timeout=5) for _ in range(4)]
    assert [message and message["data"] for message in messages][1:] == [
        b"poll default " + ONE.to_json().encode(),
        b"poll lunch " + TWO.to_json().encode(),
        b"poll default",
    ]


async def test_what_is_published_of_an_invalid_row_stays(redis: Redis) -> None:
    rows = Rows(ONE, TWO)
    await publish(redis, "poll", ["default"], rows.read)
    rows.bad = {"default": "why", "lunch": "because"}
    outcome = await publish(redis, "poll", ["default", "lunch"], rows.read)
    assert outcome == ([], [], {"lunch"}, rows.bad)
    assert await read_polls(redis) == ({"default": ONE}, {})
    assert await published_numbers(redis) == {"poll": 1, "session": 0}


async def test_names_that_nothing_can_have_are_removed(redis: Redis) -> None:
    await redis.hset("polls", mapping={b"\xff": b"x", b"a b": b"x", b"\0": b"x", b"lunch": b"x", b"default": b"x"})
    assert await other_names(redis, "poll", {"default"}) == ["lunch"]
    assert set(await redis.hkeys("polls")) == {b"lunch", b"default"}


async def test_a_publisher_that_read_earlier_does_not_overwrite_what_is_newer(redis: Redis) -> None:
    new = Poll("default", "new", OPTIONS, changed=9)
    read = 0

    async def read_slowly(slugs: Sequence[str]) -> Definitions:
        nonlocal read
        read += 1
        if read == 1:
            async with redis.client() as other:
                await publish(other, "poll", ["default"], Rows(new).read)
            return await Rows(ONE).read(slugs)
        return await Rows(new).read(slugs)

    await publish(redis, "poll", ["default"], read_slowly)
    assert read == 2
    assert await read_polls(redis) == ({"default": new}, {})


async def test_a_database_that_is_older_than_what_is_published_is_published(redis: Redis) -> None:
    """It was restored from a backup: the database is the system of record."""
    await publish(redis, "poll", ["default"], Rows(Poll("default", "new", OPTIONS, changed=9)).read)
    await publish(redis, "poll", ["default"], Rows(ONE).read)
    assert await read_polls(redis) == ({"default": ONE}, {})


@settings(max_examples=60)
@given(delays=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=8))
def test_whatever_the_order_of_publishers_a_definition_is_never_replaced_by_an_older_one(
    servers: tuple[str, str], delays: list[tuple[int, int, int]]
) -> None:
    async def check() -> None:
        async with redis_client(servers[0], timeout=5) as redis:
            await redis.delete(POLLS)
            rows = Rows()

            async def change_and_publish(number: int, start: int, before: int, after: int) -> None:
                for _ in range(start):
                    await asyncio.sleep(0)
                changed = 1 + max((each.changed for each in rows.polls.values()), default=0)
                rows.polls["default"] = Poll("default", f"{number}", OPTIONS, changed=changed)
                mine = Rows(before=before, after=after)
                mine.polls = rows.polls
                async with redis_client(servers[0], timeout=5) as client:
                    await publish(client, "poll", ["default"], mine.read)
                    assert (await read_polls(client))[0]["default"].changed >= changed

            await asyncio.gather(*(change_and_publish(number, *each) for number, each in enumerate(delays)))
            assert (await read_polls(redis))[0] == rows.polls

    asyncio.run(check())
