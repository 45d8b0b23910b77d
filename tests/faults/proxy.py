"""A proxy between two parts that can block, delay or lose what it forwards."""

import asyncio
import contextlib
import threading
from pathlib import Path


class Proxy:
    """Forwards TCP connections to a Unix socket.

    Args:
        target: the socket.

    While it is blocked, nothing is read, forwarded, closed or refused, as with a cable that was pulled.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self.delay = 0.0  # seconds that is added to each answer
        self.withheld = b""  # an answer with this text, and all that follow it on its connection, wait while it is set
        # Drop the answer to a request, and close both sides: the one with the last of these texts in it, after one with
        # each of the others on the same connection.
        self.lose_answer_to: tuple[bytes, ...] = ()
        self.lost = 0
        self.requests = 0  # forwarded so far; one that arrives in pieces counts more than once
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(5)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def begin() -> asyncio.Server:
            server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
            self.port: int = server.sockets[0].getsockname()[1]
            started.set()
            return server

        async def end() -> None:
            server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.05)  # transports close in the next iterations of the loop

        server = self._loop.run_until_complete(begin())
        self._loop.run_forever()
        self._loop.run_until_complete(end())
        self._loop.close()

    def block(self) -> None:
        """Forward nothing."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def unblock(self) -> None:
        """Forward everything again."""
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        """Stop the proxy."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as ends:
            ends.callback(writer.transport.abort)
            await self._open.wait()
            try:
                there_reader, there_writer = await asyncio.open_unix_connection(str(self._target))
            except OSError:
                return
            ends.callback(there_writer.transport.abort)
            doomed = asyncio.Event()
            ways = [
                asyncio.create_task(self._pump(reader, there_writer, doomed, is_answer=False)),
                asyncio.create_task(self._pump(there_reader, writer, doomed, is_answer=True)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event, *, is_answer: bool
    ) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        matched = 0
        while True:
            await self._open.wait()
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            try:
                data = await reader.read(65536)
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                await self._open.wait()
                if is_answer and self.delay:
                    await asyncio.sleep(self.delay)
                while is_answer and self.withheld and self.withheld in data:
                    await asyncio.sleep(0.01)
                if is_answer and doomed.is_set():  # the request was executed, and its answer is lost
                    self.lost += 1
                    return
                if not is_answer and matched < len(self.lose_answer_to) and self.lose_answer_to[matched] in data:
                    matched += 1
                    if matched == len(self.lose_answer_to):
                        self.lose_answer_to = ()
                        doomed.set()
                self.requests += not is_answer
                if not data:
                    return
                writer.write(data)
                await writer.drain()
            except OSError:
                return
