"""A connection to Redis that sends commands without waiting for earlier replies.

redis-py opens the connection (address, TLS, password); `Pipeline` then replaces the protocol of its transport, because
redis-py's reader runs three coroutines for each reply where this one runs a callback.
https://redis.io/docs/latest/develop/using-commands/pipelining/
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import hiredis
import redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ResponseError

from voting.broker.connection import closed_is_lost, new_client

TESTED = "redis-py 6.0.0, 7.0.0, 8.1.0"  # versions whose private attribute `_transport` reads

Reply = bytes | list[bytes | None] | hiredis.ReplyError | None


class NotSent(Disconnected):
    """The connection was lost before the command was written to it, so Redis cannot have run it."""


class Pipeline(asyncio.Protocol):
    """Writes the commands of one iteration of the event loop together, and matches replies to commands by order.

    Args:
        transport: connected to Redis, without pending commands.
        timeout: seconds after which the connection is aborted if a reply is missing.
        before_write: called before commands are written; it may send further ones, which Redis runs after them.

    Attributes:
        lost: a future whose result is the error, once the connection is lost.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        timeout: float,
        before_write: Callable[["Pipeline"], None] = lambda _pipeline: None,
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._before_write = before_write
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._unsent: list[bytes] = []
        self._pending: deque[tuple[asyncio.Future[Reply], float]] = deque()  # replies and their deadlines
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self.lost: asyncio.Future[Exception] = self._loop.create_future()
        transport.set_protocol(self)

    def send(self, command: bytes) -> asyncio.Future[Reply]:
        """Send an encoded command and return a future of its reply; an error reply is a result, not an exception.

        The future raises `NotSent` if the connection is lost before the command is written to it, and `Disconnected`
        if it is lost later: then it is unknown whether Redis ran the command.

        Raises:
            NotSent: the connection is already lost.
        """
        if self._transport.is_closing():
            raise NotSent("The connection is lost.")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._pending.append((future, self._loop.time() + self._timeout))
        if not self._unsent:
            self._loop.call_soon(self._write)
        self._unsent.append(command)
        return future

    def _write(self) -> None:
        if self._transport.is_closing():  # `connection_lost` handles the unsent commands
            return
        self._before_write(self)
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        if not self._timer:
            self._check_timeout()

    def _check_timeout(self) -> None:
        """Abort the connection if the oldest reply is overdue; else check again when it would be."""
        self._timer = None
        if not self._pending:
            return
        deadline = self._pending[0][1]
        if deadline > self._loop.time():
            self._timer = self._loop.call_at(deadline, self._check_timeout)
        else:
            self._abort(TimeoutError(f"no answer within {self._timeout:g} s"))

    def _abort(self, error: Exception) -> None:
        self._error = error
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                future, _ = self._pending.popleft()
                if not future.done():  # else it was cancelled, because its client disconnected
                    future.set_result(reply)
        except (hiredis.ProtocolError, IndexError) as error:  # not RESP, or more replies than commands
            self._abort(Disconnected(f"the peer is not Redis: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        error = self._error or Disconnected(str(exc or "Connection closed by server."))
        sent = len(self._pending) - len(self._unsent)
        for number, (future, _) in enumerate(self._pending):
            if not future.done():
                future.set_exception((Disconnected if number < sent else NotSent)(str(error)))
        self._pending.clear()
        self._unsent.clear()
        if not self.lost.done():  # else it was cancelled with the task that awaited it
            self.lost.set_result(error)


@asynccontextmanager
async def open_pipeline(
    url: str, timeout: float, before_write: Callable[[Pipeline], None] = lambda _pipeline: None
) -> AsyncIterator[Pipeline]:
    """Connect to Redis for the duration of the block; `before_write` is that of `Pipeline`.

    Raises:
        redis.RedisError, OSError: Redis is unreachable, does not answer, is still loading, or refuses the login.
    """
    connection = new_client(url, timeout=timeout).connection_pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(timeout):
            with closed_is_lost():
                await connection.connect()
            opened = Pipeline(_transport(connection), timeout, before_write)
            reply = await opened.send(b"*1\r\n$4\r\nPING\r\n")
        if isinstance(reply, hiredis.ReplyError):
            raise ResponseError(str(reply))
        yield opened
    finally:
        await connection.disconnect(nowait=True)  # without `nowait`, a silent peer would delay this
        await asyncio.sleep(0)  # the transport closes in the next iteration of the loop


def _transport(connection: AbstractConnection) -> asyncio.Transport:
    """Return the transport of a connection of redis-py, which has no public attribute for it."""
    transport: asyncio.Transport | None = getattr(getattr(connection, "_writer", None), "transport", None)
    if transport is None:
        raise RuntimeError(f"redis-py {redis.__version__} has no Connection._writer.transport; tested: {TESTED}")
    return transport
