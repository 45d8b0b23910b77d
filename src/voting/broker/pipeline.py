"""A connection to Redis on which commands go out without waiting for the answers to those before.

redis-py makes the connection (address, TLS, password) and hands its transport over: for an answer its own reader takes
three coroutines, this one a callback. https://redis.io/docs/latest/develop/using-commands/pipelining/
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hiredis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError

from voting.broker.connection import redis_client

Answer = bytes | hiredis.ReplyError | None


class NotSent(Disconnected):
    """The connection was lost before a command was written to it, so Redis can never run it."""


class Pipeline(asyncio.Protocol):
    """Commands that are asked in one turn of the event loop go out together, and answers come in the same order.

    Args:
        transport: to Redis, on which nothing is under way.
        patience: seconds that an answer may take; then the connection is given up.

    Attributes:
        lost: says what was wrong as soon as the connection has gone, however that happened.
    """

    def __init__(self, transport: asyncio.Transport, patience: float) -> None:
        self._transport = transport
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._unsent: list[bytes] = []
        self._asked: deque[tuple[asyncio.Future[Answer], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._trouble: Exception | None = None
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        transport.set_protocol(self)

    def ask(self, command: bytes) -> asyncio.Future[Answer]:
        """Send a command in its wire form; the answer, also one that says no, is the result of the future.

        The future fails with `NotSent` if the connection is lost before the command is written to it, and with
        `Disconnected` if it is lost later: then it is not known whether Redis ran the command.

        Raises:
            NotSent: it is lost already.
        """
        if self._transport.is_closing():
            raise NotSent("The connection is lost.")
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._asked.append((future, self._loop.time() + self._patience))
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(command)
        return future

    def _send(self) -> None:
        if self._transport.is_closing():  # `connection_lost` deals with what was not sent
            return
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        if not self._watch:
            self._look()

    def _look(self) -> None:
        """Give up if the oldest answer is overdue; else look again when it would be."""
        self._watch = None
        if not self._asked:
            return
        deadline = self._asked[0][1]
        if deadline > self._loop.time():
            self._watch = self._loop.call_at(deadline, self._look)
        else:
            self._give_up(TimeoutError(f"no answer within {self._patience:g} s"))

    def _give_up(self, trouble: Exception) -> None:
        self._trouble = trouble
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Give each answer to whoever waits for it."""
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                future, _ = self._asked.popleft()
                if not future.done():  # its client has gone
                    future.set_result(answer)
        except (hiredis.ProtocolError, IndexError) as error:  # no answer at all, or one that nobody asked for
            self._give_up(Disconnected(f"this is no Redis: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody will answer any more."""
        if self._watch:
            self._watch.cancel()
        trouble = self._trouble or Disconnected(str(exc or "Connection closed by server."))
        sent = len(self._asked) - len(self._unsent)
        for number, (future, _) in enumerate(self._asked):
            if not future.done():
                future.set_exception((Disconnected if number < sent else NotSent)(str(trouble)))
        self._asked.clear()
        self._unsent.clear()
        if not self.lost.done():  # nobody cares any more
            self.lost.set_result(trouble)


@asynccontextmanager
async def pipeline(url: str, patience: float) -> AsyncIterator[Pipeline]:
    """Connect, for a while.

    Raises:
        redis.RedisError, OSError: Redis is not there, does not answer, is still loading, or does not let us in.
    """
    connection = redis_client(url, timeout=patience).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(patience):
            await connection.connect()
            opened = Pipeline(connection._writer.transport, patience)  # noqa: SLF001 - redis-py has no other way to it
            greeting = await opened.ask(b"*1\r\n$4\r\nPING\r\n")
        if isinstance(greeting, hiredis.ReplyError):
            raise ResponseError(str(greeting))
        yield opened
    finally:
        await connection.disconnect(nowait=True)  # a silent peer would let us wait
        await asyncio.sleep(0)  # the transport closes in the next turn of the loop
