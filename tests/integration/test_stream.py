"""The consumer group on a real Valkey: no entry is skipped or lost, and none stays pending."""

import time
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from voting.broker import removals, stream
from voting.broker.stream import GROUP, STREAM, Backlog, Consumer
from voting.polls.vote import EntryId, max_entry_ms

pytestmark = pytest.mark.anyio
ZERO = EntryId(0, 0)


async def add(redis: Redis, number: int) -> list[EntryId]:
    return [EntryId.parse(cast("bytes", await redis.xadd(STREAM, {"n": str(n)}))) for n in range(number)]


async def claimed(consumer: Consumer, count: int, idle: float) -> list[EntryId]:
    return [entry for entries in [each async for each in consumer.claim(count, idle)] for entry, _ in entries]


async def test_votes_cast_before_the_first_worker_are_read(redis: Redis) -> None:
    ids = await add(redis, 3)
    consumer = Consumer(redis, "w1")
    assert await consumer.ensure_group(ZERO)
    assert not await consumer.ensure_group(ZERO)
    assert [entry for entry, _ in await consumer.read_new(10, 0.1)] == ids


async def test_a_worker_reads_its_own_pending_entries_after_a_restart(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    ids = await add(redis, 3)
    await consumer.read_new(2, 0.1)
    again = Consumer(redis, "w1")
    assert [entry for entry, _ in await again.read_own_pending(10)] == ids[:2]
    assert [entry for entry, _ in await again.read_new(10, 0.1)] == ids[2:]


async def test_a_dead_workers_entries_can_be_claimed_once_they_are_idle(redis: Redis) -> None:
    dead, alive = Consumer(redis, "w1"), Consumer(redis, "w2")
    await dead.ensure_group(ZERO)
    ids = await add(redis, 3)
    await dead.read_new(10, 0.1)
    assert await claimed(alive, 10, idle=60) == []
    assert await claimed(alive, 10, idle=0) == ids
    await alive.acknowledge(ids)
    assert await dead.read_own_pending(10) == []


async def test_acknowledged_entries_are_neither_pending_nor_on_the_stream(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    ids = await add(redis, 5)
    await consumer.read_new(3, 0.1)
    found = await stream.backlog(redis)
    assert found is not None
    assert (found.lag, found.pending, found.waiting, found.accepted) == (2, 3, 5, 5)
    await consumer.acknowledge(ids[:3])
    assert await redis.xlen(STREAM) == 2
    found = await stream.backlog(redis)
    assert found is not None
    assert (found.lag, found.pending) == (2, 0)


async def test_an_entry_deleted_while_pending_has_no_fields_and_can_be_acknowledged(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    ids = await add(redis, 1)
    await consumer.read_new(10, 0.1)
    await redis.xdel(STREAM, str(ids[0]))
    assert await consumer.read_own_pending(10) == [(ids[0], [])]
    await consumer.acknowledge(ids)
    assert await consumer.read_own_pending(10) == []


async def test_a_stream_created_again_starts_above_the_newest_id_counted_though_the_clock_is_behind(
    redis: Redis,
) -> None:
    future = EntryId(int(time.time() * 1000) + 86_400_000, 5)
    consumer = Consumer(redis, "w1")
    assert await consumer.ensure_group(future)
    (entry,) = await add(redis, 1)
    assert entry > future


async def test_a_group_created_again_reads_the_entries_and_does_not_lower_the_last_id(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    ids = await add(redis, 2)
    await redis.xgroup_destroy(STREAM, GROUP)
    with pytest.raises(ResponseError, match="NOGROUP"):
        await consumer.read_new(10, 0.1)
    assert await consumer.ensure_group(ZERO)
    assert [entry for entry, _ in await consumer.read_new(10, 0.1)] == ids
    assert (await add(redis, 1))[0] > ids[-1]


async def test_without_a_stream_or_group_there_is_no_backlog(redis: Redis) -> None:
    assert await stream.backlog(redis) is None
    await redis.xadd(STREAM, {"n": "1"})
    assert await stream.backlog(redis) is None


async def test_the_backlog_has_the_age_of_its_oldest_entry(redis: Redis) -> None:
    await Consumer(redis, "w1").ensure_group(ZERO)
    await redis.xadd(STREAM, {"n": "1"}, id=f"{int(time.time() * 1000) - 60_000}-0")
    found = await stream.backlog(redis)
    assert found is not None
    assert 59 < found.oldest < 70


FORGED = "18446744073709551615-18446744073709551615"


async def test_a_stream_with_the_largest_possible_id_gives_usable_ids_again(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    (vote,) = await add(redis, 1)
    await redis.xadd(STREAM, {"n": "0"}, id=FORGED)
    with pytest.raises(ResponseError):
        await add(redis, 1)
    assert await consumer.align(ZERO, max_entry_ms()) == ""  # a vote is on it
    await consumer.acknowledge([entry for entry, _ in await consumer.read_new(10, 0.1)])
    assert await consumer.align(vote, max_entry_ms()) == "renewed"
    assert await consumer.align(vote, max_entry_ms()) == ""
    (next_,) = await add(redis, 1)
    assert vote < next_
    assert next_.ms < max_entry_ms()
    assert [entry for entry, _ in await consumer.read_new(10, 0.1)] == [next_]
    await redis.xdel(STREAM, str(next_))
    assert await removals.detect(redis, STREAM) == 1  # what was deleted from the stream before does not hide it


async def test_a_claim_finds_idle_entries_behind_many_that_are_not(redis: Redis) -> None:
    alive, dead, other = Consumer(redis, "w1"), Consumer(redis, "w2"), Consumer(redis, "w3")
    await alive.ensure_group(ZERO)
    ids = await add(redis, 50)
    await alive.read_new(49, 0.1)
    await dead.read_new(1, 0.1)
    await redis.execute_command("XCLAIM", STREAM, GROUP, "w2", 0, str(ids[-1]), "IDLE", 60_000)  # type: ignore[no-untyped-call]
    assert await claimed(other, 1, idle=30) == ids[-1:]


async def backlog(redis: Redis) -> Backlog:
    found = await stream.backlog(redis)
    assert found
    return found
