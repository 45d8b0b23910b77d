"""A pipelined connection to a real Valkey: answers in order, in any pieces, and an end that leaves nobody waiting."""

import asyncio
import socket
import time

import hiredis
import pytest
import redis
from redis.exceptions import ConnectionError as Disconnected

from tests.integration.broker import Broker
from voting.broker.pipeline import NotSent, Pipeline, pipeline

pytestmark = pytest.mark.anyio


def pack(*words: bytes) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


async def test_each_command_gets_its_own_answer_whatever_pieces_they_come_in(broker: Broker) -> None:
    sizes = [0, 1, 100_000, 3, 5_000_000, 7, 65_536, 11]
    async with pipeline(broker.url, 5) as opened:
        texts = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        assert await asyncio.gather(*(opened.ask(pack(b"ECHO", text)) for text in texts)) == texts
        numbers = [b"%d" % number for number in range(10_000)]
        assert await asyncio.gather(*(opened.ask(pack(b"ECHO", number)) for number in numbers)) == numbers


async def test_an_answer_that_says_no_is_an_answer_and_those_beside_it_are_untouched(broker: Broker) -> None:
    async with pipeline(broker.url, 5) as opened:
        asked = [pack(b"ECHO", b"1"), pack(b"NONSENSE"), pack(b"GET", b"nothing"), pack(b"ECHO", b"2")]
        first, no, nothing, last = await asyncio.gather(*map(opened.ask, asked))
    assert (first, nothing, last) == (b"1", None, b"2")
    assert isinstance(no, hiredis.ReplyError)


async def test_one_who_no_longer_waits_takes_nobody_elses_answer(broker: Broker) -> None:
    async with pipeline(broker.url, 5) as opened:
        gone, stays = opened.ask(pack(b"ECHO", b"1")), opened.ask(pack(b"ECHO", b"2"))
        gone.cancel()
        assert await stays == b"2"


async def test_a_lost_connection_is_noticed_while_idle_and_then_refuses_at_once(broker: Broker) -> None:
    async with pipeline(broker.url, 5) as opened:
        broker.kill()
        async with asyncio.timeout(1):
            assert isinstance(await opened.lost, Disconnected)
        with pytest.raises(NotSent):
            opened.ask(pack(b"PING"))


async def test_whoever_waits_when_the_connection_is_lost_hears_of_it(broker: Broker) -> None:
    async with pipeline(broker.url, 5) as opened:
        broker.pause()
        asked = [opened.ask(pack(b"PING")) for _ in range(3)]
        await asyncio.sleep(0)  # they go out
        broker.kill()
        later = opened.ask(pack(b"PING"))
        outcomes = await asyncio.gather(*asked, later, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:3]] == [Disconnected] * 3
    assert isinstance(outcomes[3], Disconnected)


async def test_a_command_that_was_not_written_before_the_connection_was_lost_is_told_from_one_that_was(
    broker: Broker,
) -> None:
    async with pipeline(broker.url, 5) as opened:
        broker.pause()
        sent = [opened.ask(pack(b"RPUSH", b"list", b"sent")) for _ in range(2)]
        await asyncio.sleep(0)  # they are written
        unsent = [opened.ask(pack(b"RPUSH", b"list", b"unsent")) for _ in range(2)]
        opened._transport.abort()
        with pytest.raises(NotSent):
            opened.ask(pack(b"RPUSH", b"list", b"late"))
        outcomes = await asyncio.gather(*sent, *unsent, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Disconnected] * 2 + [NotSent] * 2
    broker.resume()
    with redis.Redis.from_url(broker.url) as client:
        assert set(client.lrange("list", 0, -1)) <= {b"sent"}


async def test_silence_ends_the_connection_when_the_oldest_answer_is_overdue(broker: Broker) -> None:
    async with pipeline(broker.url, 0.3) as opened:
        assert await opened.ask(pack(b"ECHO", b"1")) == b"1"
        broker.pause()
        began = time.monotonic()
        with pytest.raises(Disconnected, match="no answer within"):
            await opened.ask(pack(b"PING"))
        assert 0.25 < time.monotonic() - began < 1
        assert isinstance(await opened.lost, TimeoutError)


async def test_a_broker_that_lets_nobody_in_says_so(broker: Broker) -> None:
    with redis.Redis.from_url(broker.url) as client:
        client.config_set("requirepass", "secret")
    with pytest.raises(redis.RedisError, match="Authentication"):
        async with pipeline(broker.url, 5):
            pass


@pytest.mark.parametrize("nonsense", [b"\x00\r\n", b"+unasked\r\n"])
async def test_a_peer_that_talks_nonsense_is_a_lost_connection_like_any_other(nonsense: bytes) -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    with theirs:
        opened = Pipeline(transport, 5)
        theirs.send(nonsense)
        async with asyncio.timeout(1):
            assert isinstance(await opened.lost, Disconnected)
