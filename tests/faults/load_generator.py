"""Voters who vote and change their votes at random times, with random numbers from a seed.

Two in three are browsers: the page gives them a cookie, and every third vote is its voter's last; a new voter takes
the place. So many votes are never replaced, and the loss of one shows.

The others are programs, which vote once, with an idempotency key instead of a cookie. A program whose vote was refused
as not counted gives up, so a row of that voter breaks promise 7. A program that does not know, because the refusal says
so or no answer came, sends the vote again until it is accepted: with the cookie if it got one, else with the key.
"""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator

from tests.faults.history import Attempt, History
from tests.waiting import eventually
from tests.wire import COOKIE, Client, get, post
from voting.service.lifecycle import pause

VOTERS = 300  # at a time
PATIENCE = 4.0  # seconds after which a voter gives up; longer than any answer may take
LAST = 1 / 3  # probability that an accepted vote is its voter's last
PROGRAMS = 3  # one voter in so many is a program; VOTERS is a multiple of it


class LoadGenerator:
    """Voters in a thread of their own. A voter sends one vote at a time.

    Args:
        port: of vote.
        history: gets every attempt.
        seed: of all random numbers.
        voters: how many at a time.
        rate: votes a second in all.
        addresses: how many they come from.
        programs: whether some of them are programs.
    """

    def __init__(
        self,
        port: int,
        history: History,
        seed: int,
        *,
        voters: int = VOTERS,
        rate: float = 250,
        addresses: int = 1,
        programs: bool = True,
    ) -> None:
        self._port, self._history, self._seed = port, history, seed
        self._voters, self._interval, self._addresses = voters, voters / rate, addresses
        self._programs = programs
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._paused = threading.Event()
        self._under_way = 0
        self._unclear: set[int] = set()  # programs that do not know whether their vote is counted
        self.worst_delay = 0.0  # seconds by which this machine delayed the load itself at most
        self._thread = threading.Thread(target=self._run_loop, daemon=True)

    def start(self) -> None:
        """Start voting."""
        self._thread.start()

    def stop(self) -> None:
        """Stop when each voter has its answer."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Send no votes inside the block."""
        self._paused.set()
        eventually(lambda: self._under_way == 0)
        try:
            yield
        finally:
            self._paused.clear()

    def wait_for_votes(self, votes: int = 100, within: float = 30) -> None:
        """Wait until so many more votes are accepted."""
        began = time.monotonic()
        eventually(lambda: self._history.count("ok", began) >= votes, within=within)

    def _run_loop(self) -> None:
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._voters):
                tasks.create_task(self._vote_always(number))
            tasks.create_task(self._measure_delay())
        await asyncio.sleep(0.05)  # connections close in the next iterations of the loop

    async def _measure_delay(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self.worst_delay = max(self.worst_delay, time.monotonic() - due)

    async def _vote_always(self, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")  # noqa: S311 - has to be the same for the same seed
        client: Client | None = None
        await pause(self._stop, rng.random() * self._interval)
        while not self._stop.is_set():
            if self._paused.is_set():
                await asyncio.sleep(0.02)
                continue
            self._under_way += 1
            try:
                if self._is_program(number):
                    client = await self._vote(number, "ab"[number % 2], client)
                    done = number not in self._unclear
                else:
                    client = await self._vote(number, rng.choice("ab"), client)
                    done = bool(client) and number in self._history.cookies and rng.random() < LAST
            finally:
                self._under_way -= 1
            if done:
                number += self._voters
            await pause(self._stop, rng.expovariate(1 / self._interval))
        if client:
            client.close()

    def _is_program(self, number: int) -> bool:
        return self._programs and not number % PROGRAMS

    def _address(self, number: int) -> str:
        return f"127.0.1.{1 + number % self._addresses}" if self._addresses > 1 else ""

    async def _vote(self, number: int, choice: str, client: Client | None) -> Client | None:
        """Vote once; return the connection if it is still usable."""
        began = time.monotonic()
        cookie = self._history.cookies.get(number, "")
        key = ""
        if not cookie and self._is_program(number):
            key = self._history.keys[number] = f"program-{number}"
        try:
            async with asyncio.timeout(PATIENCE):
                if not client or not client.is_open:  # as a browser does
                    client = await Client.connect(self._port, self._address(number))
                if not cookie and not key:
                    cookie = self._keep_cookie(number, await client.ask(get(self._port)))
                    if not cookie:
                        return client
                    began = time.monotonic()
                answer = await client.ask(post(self._port, cookie.encode(), choice.encode(), key.encode()))
        except (OSError, TimeoutError):
            if client:
                client.close()
            if cookie or key:
                self._unclear.add(number)
                sent = bool(cookie)
                self._history.add(Attempt(number, choice, began, time.monotonic(), "unknown", sent_cookie=sent))
            await asyncio.sleep(0.1)
            return None
        ended, status = time.monotonic(), int(answer[9:12])
        sent, got = bool(cookie), bool(self._keep_cookie(number, answer))
        body = _read(answer)
        if status == 200:
            self._unclear.discard(number)
            receipt = body["receipt"]
            self._history.add(Attempt(number, choice, began, ended, "ok", status, receipt, "", "", sent, got))
            return client
        counted = body.get("counted", "")
        if counted != "no":
            self._unclear.add(number)
        retry = "yes" if b"\r\nretry-after:" in answer.lower() else ""
        self._history.add(Attempt(number, choice, began, ended, "refused", status, "", retry, counted, sent, got))
        return client

    def _keep_cookie(self, number: int, answer: bytes) -> str:
        """Return the cookie of an answer, and keep it for later requests."""
        found = COOKIE.search(answer.partition(b"\r\n\r\n")[0])
        if not found:
            return ""
        cookie = self._history.cookies[number] = found[1].decode()
        return cookie


def _read(answer: bytes) -> dict[str, str]:
    """Return the JSON of an answer; empty if it has none."""
    with contextlib.suppress(ValueError):
        return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))
    return {}
