"""Entries removed by others are detected; entries deleted by workers are not reported."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from tests.integration.broker import Broker
from tests.integration.test_stream import ZERO, add, backlog
from voting.broker import removals
from voting.broker.connection import redis_client
from voting.broker.stream import STREAM, Consumer

pytestmark = pytest.mark.anyio


async def count(consumer: Consumer, number: int) -> None:
    """Read entries as a worker does, and delete them."""
    entries = await consumer.read_new(number, 0.1)
    assert len(entries) == number
    await consumer.acknowledge([entry for entry, _ in entries])


async def test_removed_entries_are_reported_once_and_kept_for_a_day(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    assert await removals.detect(redis, STREAM) == 0
    await add(redis, 5)
    await count(consumer, 2)
    assert await removals.detect(redis, STREAM) == 0
    await redis.xadd(STREAM, {"n": "0"}, maxlen=1, approximate=False)
    await add(redis, 3)
    await count(consumer, 4)  # new entries hide the removed ones from XINFO's lag
    assert await removals.detect(redis, STREAM) == 3
    assert await removals.detect(redis, STREAM) == 0
    await redis.xdel(STREAM, *[str(entry) for entry in await add(redis, 2)])
    assert await removals.detect(redis, STREAM) == 2
    assert (await backlog(redis)).removed == 5
    assert 0 < await redis.ttl(removals.REMOVED) <= removals.KEEP_SECONDS


async def test_a_stream_without_a_count_of_deleted_entries_is_no_alarm(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    await add(redis, 5)
    await count(consumer, 3)
    await redis.delete(removals.DELETED)  # as with a version that did not count what it deleted
    assert await removals.detect(redis, STREAM) == 0
    await count(consumer, 2)
    assert await removals.detect(redis, STREAM) == 0


async def test_entries_acknowledged_twice_and_a_new_stream_are_no_alarm(redis: Redis) -> None:
    consumer = Consumer(redis, "w1")
    await consumer.ensure_group(ZERO)
    await add(redis, 5)
    entries = [entry for entry, _ in await consumer.read_new(5, 0.1)]
    await consumer.acknowledge(entries)
    await consumer.acknowledge(entries)
    assert await removals.detect(redis, STREAM) == 0
    await redis.delete(STREAM)
    await consumer.ensure_group(ZERO)
    assert await removals.detect(redis, STREAM) == 0
    await redis.xtrim(STREAM, maxlen=0)
    await redis.xdel(STREAM, *[str(entry) for entry in await add(redis, 2)])
    assert await removals.detect(redis, STREAM) == 2


async def test_the_stream_of_a_full_broker_can_be_emptied(broker: Broker) -> None:
    async with redis_client(broker.url, timeout=5) as redis:
        consumer = Consumer(redis, "w1")
        await consumer.ensure_group(ZERO)
        await add(redis, 10)
        await redis.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            await add(redis, 1)
        await count(consumer, 10)
        assert await removals.detect(redis, STREAM) == 0
        assert await redis.xlen(STREAM) == 0
