"""A network between two parts that can fall silent, be slow, or lose an answer."""

import asyncio
import contextlib
import threading
from pathlib import Path


class Proxy:
    """Passes TCP connections on to a Unix socket.

    Args:
        target: the socket.

    While it is `silent` nothing is read, passed on, closed or refused: packets vanish, as with a cable that was pulled.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        self.delay = 0.0  # seconds that an answer takes longer
        self.lose_answer_to = b""  # of the next request that has this in it; then both sides are cut
        self.lost = 0
        self.requests = 0  # passed on so far, as far as one comes in one piece
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(5)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def begin() -> asyncio.Server:
            server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
            self.port: int = server.sockets[0].getsockname()[1]
            started.set()
            return server

        async def end() -> None:
            server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.05)  # transports close in the next turns of the loop

        server = self._loop.run_until_complete(begin())
        self._loop.run_forever()
        self._loop.run_until_complete(end())
        self._loop.close()

    def silence(self) -> None:
        """Let everything vanish."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        """Pass everything on again."""
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
        while True:
            await self._open.wait()
            reader._transport.resume_reading()  # type: ignore[attr-defined]
            try:
                data = await reader.read(65536)
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                await self._open.wait()
                if is_answer and self.delay:
                    await asyncio.sleep(self.delay)
                if is_answer and doomed.is_set():  # what was asked has happened; nobody will hear of it
                    self.lost += 1
                    return
                if not is_answer and self.lose_answer_to and self.lose_answer_to in data:
                    self.lose_answer_to = b""
                    doomed.set()
                self.requests += not is_answer
                if not data:
                    return
                writer.write(data)
                await writer.drain()
            except OSError:
                return
