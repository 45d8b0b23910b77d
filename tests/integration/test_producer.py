"""Publishing votes to a real Valkey, also when it is killed, silent or full."""

import asyncio
import functools
import itertools
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import pytest
import redis

from tests.integration.broker import Broker
from tests.published import publish_polls
from tests.waiting import background, until
from voting.broker import stream
from voting.broker.connection import redis_client
from voting.broker.monitor import BrokerMonitor
from voting.broker.poll_cache import PollCache
from voting.broker.producer import Refused, VoteProducer
from voting.polls.poll import Option, Poll
from voting.polls.vote import EntryId, max_entry_ms
from voting.settings.services import RedisSettings

pytestmark = pytest.mark.anyio
POLL = Poll("default", "?", (Option("a", "A"), Option("b", "B")))


async def open_poll(url: str) -> None:
    async with redis_client(url, timeout=5) as client:
        await stream.Consumer(client, "w1").ensure_group(EntryId(0, 0))
        await publish_polls(client, (POLL,))


class Publisher:
    """A producer and its monitor, as the vote service runs them."""

    def __init__(self, url: str, limit: int) -> None:
        redis_url = functools.partial(RedisSettings(redis_url=url).reread, "redis_url")
        self.producer = VoteProducer(redis_url, max_in_flight=limit)
        self.cache = PollCache(redis_url)
        self.monitor = BrokerMonitor(redis_url, self.producer, self.cache)

    @property
    def ready(self) -> bool:
        return self.monitor.ready

    def tasks(self) -> list[Coroutine[object, object, None]]:
        return [each.run() for each in (self.producer, self.cache, self.monitor)]


@asynccontextmanager
async def running(url: str, limit: int = 1000, *, wait: bool = True) -> AsyncIterator[Publisher]:
    publisher = Publisher(url, limit)
    async with background(*publisher.tasks()):
        if wait:
            await until(lambda: publisher.ready)
        yield publisher


async def publish(publisher: Publisher, number: int, first: int = 0) -> list[bytes | BaseException]:
    votes = (publisher.producer.publish(b"default", n.to_bytes(16), b"a") for n in range(first, first + number))
    return await asyncio.gather(*votes, return_exceptions=True)


def reasons(outcomes: list[bytes | BaseException]) -> set[str]:
    return {str(outcome) for outcome in outcomes}


def were_sent(outcomes: list[bytes | BaseException]) -> set[bool]:
    return {outcome.sent for outcome in outcomes if isinstance(outcome, Refused)}


async def test_votes_in_flight_together_share_round_trips_and_each_gets_its_own_entry_id(broker: Broker) -> None:
    await open_poll(broker.url)
    async with running(broker.url) as publisher:
        with redis.Redis.from_url(broker.url) as client:
            before = client.info("stats")["total_reads_processed"]
            receipts = await publish(publisher, 500)
            reads = client.info("stats")["total_reads_processed"] - before
            entries = client.xrange(stream.STREAM)
    assert [entry for entry, _ in entries] == receipts
    assert [int.from_bytes(fields[b"voter"]) for _, fields in entries] == list(range(500))
    assert reads < 50


async def test_a_vote_is_refused_while_there_is_no_stream(broker: Broker) -> None:
    await open_poll(broker.url)
    with redis.Redis.from_url(broker.url) as client:
        client.delete(stream.STREAM)
    async with running(broker.url) as publisher:
        refused = await publish(publisher, 3)
    assert reasons(refused) == {"no_stream"}
    assert were_sent(refused) == {False}


async def test_too_many_votes_in_flight_are_refused_and_not_queued(broker: Broker) -> None:
    await open_poll(broker.url)
    async with running(broker.url, limit=10) as publisher:
        outcomes = await publish(publisher, 25)
        assert sum(isinstance(outcome, bytes) for outcome in outcomes) == 10
        assert were_sent(outcomes) == {False}
        assert publisher.producer.in_flight == 0


async def test_votes_to_a_silent_broker_are_refused_and_accepted_when_it_is_back(
    broker: Broker,
) -> None:
    await open_poll(broker.url)
    async with running(broker.url) as publisher:
        broker.pause()
        async with asyncio.timeout(10):
            silent = await publish(publisher, 20)
        assert reasons(silent) == {"broker_silent"}
        assert were_sent(silent) == {True}
        away = await publish(publisher, 20)
        assert reasons(away) == {"broker_away"}
        assert were_sent(away) == {False}
        await until(lambda: not publisher.ready)
        broker.resume()
        await until(lambda: publisher.ready)
        assert all(isinstance(receipt, bytes) for receipt in await publish(publisher, 20))


async def test_the_first_vote_after_a_restart_of_the_broker_is_accepted(broker: Broker) -> None:
    await open_poll(broker.url)
    async with running(broker.url) as publisher:
        broker.kill()
        await asyncio.to_thread(broker.start)
        await until(lambda: publisher.ready)
        assert all(isinstance(receipt, bytes) for receipt in await publish(publisher, 1))


async def test_when_the_broker_is_killed_repeatedly_acknowledged_votes_are_kept_and_votes_not_sent_are_not_stored(
    broker: Broker,
) -> None:
    await open_poll(broker.url)
    receipts: list[bytes] = []
    not_sent: set[int] = set()
    async with running(broker.url) as publisher:
        stop = asyncio.Event()

        async def vote_on() -> None:
            for first in itertools.count(step=20):
                if stop.is_set():
                    return
                for number, outcome in enumerate(await publish(publisher, 20, first), first):
                    if isinstance(outcome, bytes):
                        receipts.append(outcome)
                    elif isinstance(outcome, Refused) and not outcome.sent:
                        not_sent.add(number)
                await asyncio.sleep(0)

        voting = asyncio.create_task(vote_on())
        for _ in range(3):
            held = len(receipts)
            await until(lambda held=held: len(receipts) > held + 200)  # type: ignore[misc]
            broker.kill()
            await asyncio.to_thread(broker.start)
        held = len(receipts)
        await until(lambda: len(receipts) > held)
        stop.set()
        await voting
    with redis.Redis.from_url(broker.url) as client:
        stored = {entry: int.from_bytes(fields[b"voter"]) for entry, fields in client.xrange(stream.STREAM)}
    assert len(receipts) > 600
    assert set(receipts) <= stored.keys()
    assert not_sent
    assert not_sent.isdisjoint(stored.values())


async def test_votes_are_refused_before_the_broker_runs_out_of_memory(broker: Broker) -> None:
    await open_poll(broker.url)
    with redis.Redis.from_url(broker.url) as client:
        async with running(broker.url) as publisher:
            while client.info("memory")["used_memory"] < 0.92 * 64 * 2**20:
                client.rpush("ballast", b"x" * 500_000)
            await until(lambda: not publisher.ready)
            assert reasons(await publish(publisher, 5)) == {"broker_full"}
            assert client.ping()
            client.delete("ballast")
            await until(lambda: publisher.ready)
            assert all(isinstance(receipt, bytes) for receipt in await publish(publisher, 5))


async def test_after_redis_has_refused_a_write_votes_are_refused_until_the_next_check(broker: Broker) -> None:
    await open_poll(broker.url)
    with redis.Redis.from_url(broker.url) as client:
        async with running(broker.url) as publisher:
            client.config_set("min-replicas-to-write", 1)
            refused = await publish(publisher, 3)
            assert reasons(refused) == {"broker_refused"}
            assert were_sent(refused) == {False}
            assert not publisher.ready
            client.config_set("min-replicas-to-write", 0)
            await until(lambda: publisher.ready)


async def test_it_is_not_ready_until_polls_are_published(broker: Broker) -> None:
    async with running(broker.url, wait=False) as publisher:
        await until(lambda: publisher.monitor._checked > 0)
        assert not publisher.ready
        await open_poll(broker.url)
        await until(lambda: publisher.ready)
        assert publisher.cache.find("default") == POLL


async def test_it_ends_whenever_it_is_cancelled(broker: Broker) -> None:
    await open_poll(broker.url)
    for turns in range(200):  # of the event loop, so that each step of connecting and checking is hit
        tasks = [asyncio.create_task(each) for each in Publisher(broker.url, 1).tasks()]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=2)
        assert not pending, f"it goes on after {turns} turns"


@pytest.mark.parametrize("forged", [(max_entry_ms() + 3_600_000, 0), (max_entry_ms() - 3_600_000, 2**63)])
async def test_a_vote_with_a_forged_id_is_not_acknowledged(broker: Broker, forged: tuple[int, int]) -> None:
    await open_poll(broker.url)
    async with running(broker.url) as publisher:
        with redis.Redis.from_url(broker.url) as client:
            client.xadd(stream.STREAM, {"n": "0"}, id=str(EntryId(*forged)))
        outcomes = await publish(publisher, 1)
        assert (reasons(outcomes), were_sent(outcomes)) == ({"broker_clock"}, {True})
        assert not publisher.ready
