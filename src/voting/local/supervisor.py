"""Runs child processes: a part that ends is restarted, with backoff, until the supervisor stops."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from voting.local.datadir import DataDir
from voting.service.lifecycle import Backoff, pause

START_SECONDS = 30.0
STOP_SECONDS = 10.0
STEADY_SECONDS = 10.0  # the backoff of a part that has run longer is reset
ROTATE_SECONDS = 1.0
QUICK_EXITS = 5  # number of exits after which the end of the log is shown
BAD_SETTINGS = 2  # exit code of `voting`


@dataclass
class Part:
    """A child process to keep running."""

    name: str
    command: list[str]
    is_ready: Callable[[], Awaitable[bool]]
    environment: dict[str, str] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    options: dict[str, Any] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    log_start: int = 0  # bytes in its log from earlier processes


class Failed(Exception):
    """A part could not be started; `code` is the exit code for `voting up`."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Supervisor:
    """Starts parts, restarts those that end, and stops all in reverse order."""

    def __init__(self, data: DataDir, write_line: Callable[[str], None]) -> None:
        self._data = data
        self._write_line = write_line
        self._restarters: list[asyncio.Task[None]] = []
        self._parts: list[Part] = []
        self._rotating: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self, *parts: Part) -> None:
        """Start parts at the same time and wait until all are ready; raise `Failed` for bad settings or a timeout."""
        for part in parts:
            await self._spawn(part)
            self._parts.append(part)
            self._restarters.append(asyncio.create_task(self._restart(part)))
        if not self._rotating:
            self._rotating = asyncio.create_task(self._rotate())
        await asyncio.gather(*map(self._await_ready, parts))

    async def run_once(self, part: Part) -> None:
        """Run a part until it ends; raise `Failed` if its exit code is not 0."""
        await self._spawn(part)
        assert part.process  # noqa: S101 - spawned in the line before
        code = await part.process.wait()
        self._data.remove_pid(part.name)
        if code:
            raise Failed(self._last_lines(part), code)

    async def _spawn(self, part: Part) -> None:
        with self._data.log_file(part.name).open("ab") as log:
            part.log_start = log.tell()
            part.process = await asyncio.create_subprocess_exec(
                *part.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=part.environment,
                cwd="/",
                start_new_session=True,  # Ctrl-C goes only to the supervisor
                **part.options,
            )
        self._data.write_pid(part.name, part.process.pid)

    async def _restart(self, part: Part) -> None:
        backoff = Backoff(0.2, 5)
        exits = 0
        while True:
            assert part.process  # noqa: S101 - start() spawned it
            began = time.monotonic()
            code = await part.process.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                backoff.reset()
                exits = 0
            exits += 1
            wait = backoff.next()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            log = self._data.log_file(part.name)
            self._write_line(f"{part.name} ended ({how}); started again in {wait:.1f} s. Log: {log}")
            if exits % QUICK_EXITS == 0:
                self._write_line(self._last_lines(part))
            await pause(self._stopping, wait)
            if self._stopping.is_set():
                return
            await self._spawn(part)
            if self._stopping.is_set():  # `stop` was called before it could see the new process
                await self._stop_part(part)

    async def _rotate(self) -> None:
        while not self._stopping.is_set():
            self._data.rotate_logs()
            await pause(self._stopping, ROTATE_SECONDS)

    async def _await_ready(self, part: Part) -> None:
        end = time.monotonic() + START_SECONDS
        while not await part.is_ready():
            if part.process and part.process.returncode == BAD_SETTINGS:
                raise Failed(self._last_lines(part), BAD_SETTINGS)
            if time.monotonic() > end:
                raise Failed(f"{part.name} is not ready after {START_SECONDS:.0f} s.\n{self._last_lines(part)}", 1)
            await asyncio.sleep(0.03)

    def _last_lines(self, part: Part) -> str:
        path = self._data.log_file(part.name)
        with contextlib.suppress(OSError):
            text = path.read_bytes()
            recent = text[part.log_start :] or text  # all of it if the log was rotated since
            lines = recent.decode(errors="replace").splitlines()[-12:]
            return "\n".join([f"Last lines of {path}:", *(f"    {line}" for line in lines)])
        return f"No log at {path}."

    async def stop(self) -> None:
        """Stop all parts in reverse order; kill those that do not end in `STOP_SECONDS`."""
        self._stopping.set()
        for part in reversed(self._parts):
            await self._stop_part(part)
        await asyncio.gather(*self._restarters, *filter(None, [self._rotating]))

    async def _stop_part(self, part: Part) -> None:
        process = part.process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(part.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._write_line(f"{part.name} did not stop within {STOP_SECONDS:.0f} s and is killed.")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._data.remove_pid(part.name)

    def kill(self) -> None:
        for part in self._parts:
            with contextlib.suppress(ProcessLookupError):
                if part.process and part.process.returncode is None:
                    part.process.kill()


async def stop_orphan(data: DataDir, name: str) -> None:
    """Stop a part of an earlier run that was killed; raise `Failed` if it belongs to another user."""
    end, signum = time.monotonic() + STOP_SECONDS, signal.SIGINT if name == "postgres" else signal.SIGTERM
    pid = data.running_pid(name)
    try:
        if pid:
            os.kill(pid, signum)
        while (pid := data.running_pid(name)) and time.monotonic() < end:  # noqa: ASYNC110 - not our child
            await asyncio.sleep(0.05)
        if pid:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended
    except PermissionError:
        message = f"{name} (process {pid}) of an earlier run belongs to another user: stop it as that user"
        raise Failed(message, 1) from None
    data.remove_pid(name)
