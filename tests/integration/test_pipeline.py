"""A pipelined connection to a real Valkey: replies in order, in any pieces; after its end no command waits."""

import asyncio
import socket
import time

import hiredis
import pytest
import redis
from redis.asyncio import Connection
from redis.exceptions import ConnectionError as Disconnected

from tests.integration.broker import Broker
from voting.broker.pipeline import NotSent, Pipeline, _transport, open_pipeline

pytestmark = pytest.mark.anyio


def pack(*words: bytes) -> bytes:
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]
    return packed


async def test_each_command_gets_its_own_reply_in_whatever_pieces_it_arrives(broker: Broker) -> None:
    sizes = [0, 1, 100_000, 3, 5_000_000, 7, 65_536, 11]
    async with open_pipeline(broker.url, 5) as opened:
        texts = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        assert await asyncio.gather(*(opened.send(pack(b"ECHO", text)) for text in texts)) == texts
        numbers = [b"%d" % number for number in range(10_000)]
        assert await asyncio.gather(*(opened.send(pack(b"ECHO", number)) for number in numbers)) == numbers


async def test_an_error_reply_is_a_result_and_does_not_affect_other_replies(broker: Broker) -> None:
    async with open_pipeline(broker.url, 5) as opened:
        commands = [pack(b"ECHO", b"1"), pack(b"NONSENSE"), pack(b"GET", b"nothing"), pack(b"ECHO", b"2")]
        first, error, nothing, last = await asyncio.gather(*map(opened.send, commands))
    assert (first, nothing, last) == (b"1", None, b"2")
    assert isinstance(error, hiredis.ReplyError)


async def test_a_cancelled_command_does_not_take_the_reply_of_another(broker: Broker) -> None:
    async with open_pipeline(broker.url, 5) as opened:
        gone, stays = opened.send(pack(b"ECHO", b"1")), opened.send(pack(b"ECHO", b"2"))
        gone.cancel()
        assert await stays == b"2"


async def test_a_connection_lost_while_idle_is_detected_and_then_refuses_at_once(broker: Broker) -> None:
    async with open_pipeline(broker.url, 5) as opened:
        broker.kill()
        async with asyncio.timeout(10):
            assert isinstance(await opened.lost, Disconnected)
        with pytest.raises(NotSent):
            opened.send(pack(b"PING"))


async def test_every_waiting_command_fails_when_the_connection_is_lost(broker: Broker) -> None:
    async with open_pipeline(broker.url, 5) as opened:
        broker.pause()
        sent = [opened.send(pack(b"PING")) for _ in range(3)]
        await asyncio.sleep(0)  # they go out
        broker.kill()
        later = opened.send(pack(b"PING"))
        outcomes = await asyncio.gather(*sent, later, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[:3]] == [Disconnected] * 3
    assert isinstance(outcomes[3], Disconnected)


async def test_commands_written_before_the_connection_was_lost_and_those_not_written_raise_different_errors(
    broker: Broker,
) -> None:
    async with open_pipeline(broker.url, 5) as opened:
        broker.pause()
        sent = [opened.send(pack(b"RPUSH", b"list", b"sent")) for _ in range(2)]
        await asyncio.sleep(0)  # they are written
        unsent = [opened.send(pack(b"RPUSH", b"list", b"unsent")) for _ in range(2)]
        opened._transport.abort()
        with pytest.raises(NotSent):
            opened.send(pack(b"RPUSH", b"list", b"late"))
        outcomes = await asyncio.gather(*sent, *unsent, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Disconnected] * 2 + [NotSent] * 2
    broker.resume()
    with redis.Redis.from_url(broker.url) as client:
        assert set(client.lrange("list", 0, -1)) <= {b"sent"}


async def test_the_connection_is_aborted_when_the_oldest_reply_is_overdue(broker: Broker) -> None:
    async with open_pipeline(broker.url, 0.3) as opened:
        assert await opened.send(pack(b"ECHO", b"1")) == b"1"
        broker.pause()
        began = time.monotonic()
        with pytest.raises(Disconnected, match="no answer within"):
            await opened.send(pack(b"PING"))
        assert 0.25 < time.monotonic() - began < 10
        assert isinstance(await opened.lost, TimeoutError)


async def test_a_refused_login_is_reported(broker: Broker) -> None:
    with redis.Redis.from_url(broker.url) as client:
        client.config_set("requirepass", "secret")
    with pytest.raises(redis.RedisError, match="Authentication"):
        async with open_pipeline(broker.url, 5):
            pass


@pytest.mark.parametrize("nonsense", [b"\x00\r\n", b"+unasked\r\n"])
async def test_a_peer_that_does_not_speak_the_protocol_is_a_lost_connection(nonsense: bytes) -> None:
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    with theirs:
        opened = Pipeline(transport, 5)
        theirs.send(nonsense)
        async with asyncio.timeout(10):
            assert isinstance(await opened.lost, Disconnected)


def test_a_redis_py_that_keeps_its_transport_elsewhere_is_named() -> None:
    with pytest.raises(RuntimeError, match=r"tested: redis-py 6"):
        _transport(Connection())  # not connected, so it has none
