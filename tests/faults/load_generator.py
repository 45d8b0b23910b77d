"""Voters who vote and change their votes at random times, with random numbers from a seed.

Two in three are browsers: the page gives them a cookie, and every third vote is its voter's last; a new voter takes
the place. So many votes are never replaced, and the loss of one shows.

The others are programs, which vote once, with an idempotency key instead of a cookie. A program whose vote was refused
as not counted gives up, so a row of that voter breaks promise 7. A program that does not know, because the refusal says
so or no answer came, sends the vote again until it is accepted: with the cookie if it got one, else with the key.

Visitors are browsers that vote in other polls than the default one: each in several, with one cookie. A visitor's
choices in a round are all different until each was made once, so a row shows which of the visitor's votes it is.
"""

import asyncio
import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.faults.ballots import Ballot
from tests.faults.history import Attempt, History
from tests.waiting import eventually
from tests.wire import COOKIE, Client, get, post
from voting.service.lifecycle import pause

VOTERS = 300  # at a time
RATE = 250  # votes a second of these
PATIENCE = 4.0  # seconds after which a voter gives up; longer than any answer may take
LAST = 1 / 3  # probability that an accepted vote is its voter's last
PROGRAMS = 3  # one voter in so many is a program; VOTERS is a multiple of it
FIRST_VISITOR = 1_000_000  # their numbers begin here
VISITS = 2.0  # votes a second of each visitor
DEFAULT = Ballot()


class LoadGenerator:
    """Voters in a thread of their own. A voter sends one vote at a time.

    Args:
        ports: of the vote processes, among which the voters are divided.
        history: gets every attempt.
        seed: of all random numbers.
        voters: how many at a time.
        rate: votes a second in all.
        addresses: how many they come from.
        programs: whether some of them are programs.
        visitors: how many there are besides, who vote where `voting_in` says.
    """

    def __init__(
        self,
        ports: Sequence[int],
        history: History,
        seed: int,
        *,
        voters: int = VOTERS,
        rate: float = RATE,
        addresses: int = 1,
        programs: bool = True,
        visitors: int = 0,
    ) -> None:
        self._ports, self._history, self._seed = ports, history, seed
        self._voters, self._interval, self._addresses = voters, voters / rate, addresses
        self._programs, self._visitors = programs, visitors
        self._ballots: list[Ballot] = []  # in which visitors vote
        self._voting: Counter[Ballot] = Counter()  # visitors whose vote is under way
        self._visits: Counter[tuple[int, Ballot]] = Counter()  # votes of each visitor
        self._lock = threading.Lock()  # of these two
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

    @contextlib.contextmanager
    def voting_in(self, *ballots: Ballot) -> Iterator[None]:
        """Let visitors vote in these rounds inside the block; afterwards none of these votes is under way."""
        with self._lock:
            self._ballots += ballots
        try:
            yield
        finally:
            with self._lock:
                self._ballots = [ballot for ballot in self._ballots if ballot not in ballots]
            eventually(lambda: not any(self._voting[ballot] for ballot in ballots))

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
            for number in range(FIRST_VISITOR, FIRST_VISITOR + self._visitors):
                tasks.create_task(self._visit_always(number))
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
                    client = await self._vote(number, DEFAULT, "ab"[number % 2], client)
                    done = number not in self._unclear
                else:
                    client = await self._vote(number, DEFAULT, rng.choice("ab"), client)
                    done = bool(client) and number in self._history.cookies and rng.random() < LAST
            finally:
                self._under_way -= 1
            if done:
                number += self._voters
            await pause(self._stop, rng.expovariate(1 / self._interval))
        if client:
            client.close()

    async def _visit_always(self, number: int) -> None:
        rng = random.Random(f"{self._seed} {number}")  # noqa: S311 - has to be the same for the same seed
        client: Client | None = None
        while not self._stop.is_set():
            await pause(self._stop, rng.expovariate(VISITS))
            with self._lock:
                if not self._ballots or self._paused.is_set():
                    continue
                ballot = rng.choice(self._ballots)
                self._voting[ballot] += 1
            self._under_way += 1
            try:
                turn = number + self._visits[number, ballot]
                self._visits[number, ballot] += 1
                client = await self._vote(number, ballot, ballot.choices[turn % len(ballot.choices)], client)
            finally:
                self._under_way -= 1
                self._voting[ballot] -= 1
            if rng.random() < LAST / 2:
                number += self._visitors
        if client:
            client.close()

    def _is_program(self, number: int) -> bool:
        return self._programs and number < FIRST_VISITOR and not number % PROGRAMS

    def _address(self, number: int) -> str:
        return f"127.0.1.{1 + number % self._addresses}" if self._addresses > 1 else ""

    async def _vote(self, number: int, ballot: Ballot, choice: str, client: Client | None) -> Client | None:
        """Vote once; return the connection if it is still usable."""
        began = time.monotonic()
        port = self._ports[number % len(self._ports)]
        cookie = self._history.cookies.get(number, "")
        key = ""
        if not cookie and self._is_program(number):
            key = self._history.keys[number] = f"program-{number}"
        try:
            async with asyncio.timeout(PATIENCE):
                if not client or not client.is_open:  # as a browser does
                    client = await Client.connect(port, self._address(number))
                if not cookie and not key:
                    page = await client.ask(get(port, ballot.path))
                    cookie = self._keep_cookie(number, page)
                    if not cookie:
                        self._add_failed_page(number, ballot, began, int(page[9:12]))
                        return client
                    began = time.monotonic()
                request = post(port, cookie.encode(), choice.encode(), key.encode(), ballot.path)
                answer = await client.ask(request)
        except (OSError, TimeoutError):
            if client:
                client.close()
            if cookie or key:
                self._unclear.add(number)
                self._history.add(
                    Attempt(
                        number, choice, began, time.monotonic(), "unknown", sent_cookie=bool(cookie), box=ballot.box
                    )
                )
            await asyncio.sleep(0.1)
            return None
        ended, status = time.monotonic(), int(answer[9:12])
        sent, got = bool(cookie), bool(self._keep_cookie(number, answer))
        body = _read(answer)
        seen: dict[str, Any] = {"status": status, "sent_cookie": sent, "got_cookie": got, "box": ballot.box}
        if status == 200:
            self._unclear.discard(number)
            self._history.add(Attempt(number, choice, began, ended, "ok", receipt=body["receipt"], **seen))
            return client
        counted = body.get("counted", "")
        if counted != "no":
            self._unclear.add(number)
        seen |= {"counted": counted, "reason": body.get("reason", "")}
        seen["retry_after"] = "yes" if b"\r\nretry-after:" in answer.lower() else ""
        self._history.add(Attempt(number, choice, began, ended, "refused", **seen))
        return client

    def _add_failed_page(self, number: int, ballot: Ballot, began: float, status: int) -> None:
        """Add an attempt that ended with the page, for promise 6, unless there is nothing wrong with its status."""
        if status not in {200, 429, 503}:
            ended = time.monotonic()
            self._history.add(
                Attempt(number, "", began, ended, "refused", status, counted="no", box=ballot.box, reason="page")
            )

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
