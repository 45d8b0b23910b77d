"""An audience: people who joined a session with a code, each with a WebSocket and a cookie, as their phones have."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Self

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.waiting import PLAIN, when_not_busy
from voting.polls.poll import Poll

Snapshot = dict[str, Any]


class Phone:
    """One person: `frames` are all snapshots that have arrived, each with the time of its arrival (monotonic)."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._headers = {"accept": "application/json"}
        self._changed = asyncio.Event()
        self.frames: list[tuple[float, Snapshot]] = []
        self.receipts: list[dict[str, Any]] = []

    async def join(self, vote_url: str, code: str) -> None:
        """Open the ballot, which gives a cookie."""
        page = await self._client.get(f"{vote_url}/{code}")
        assert page.status_code == 200, page.text
        self._headers["cookie"] = page.headers["set-cookie"].partition(";")[0]

    async def listen(self, socket: ClientConnection) -> None:
        """Collect frames until the socket is closed."""
        async for message in socket:
            self.frames.append((time.monotonic(), json.loads(message)))
            self._changed.set()

    async def wait_for(self, expected: Callable[[Snapshot], bool]) -> float:
        """Wait until the newest snapshot is as expected; return when it arrived."""
        while not (self.frames and expected(self.frames[-1][1])):
            self._changed.clear()
            await self._changed.wait()
        return self.frames[-1][0]

    async def vote(self, vote_url: str, slug: str, choice: str) -> httpx.Response:
        """Send a vote, again while the service is busy; return the last response."""
        url, form = f"{vote_url}/p/{slug}", {"vote": choice}
        return await when_not_busy(lambda: self._client.post(url, data=form, headers=self._headers))


class Audience:
    """Many phones in one session."""

    def __init__(self, vote_url: str, result_url: str, code: str, people: int) -> None:
        self.vote_url, self._code = vote_url, code
        self._socket = f"ws{result_url.removeprefix('http')}/s/{code}/ws?view=ballot"
        limits = httpx.Limits(max_connections=64)
        self._client = httpx.AsyncClient(verify=PLAIN, limits=limits, timeout=30)
        self.phones = [Phone(self._client) for _ in range(people)]

    async def __aenter__(self) -> Self:
        """Let everybody join, and open all sockets."""
        await asyncio.gather(*(phone.join(self.vote_url, self._code) for phone in self.phones))
        self._sockets = await asyncio.gather(*(connect(self._socket, compression=None) for _ in self.phones))
        pairs = zip(self.phones, self._sockets, strict=True)
        self._listening = [asyncio.create_task(phone.listen(socket)) for phone, socket in pairs]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything; raise the error of a socket that broke."""
        await asyncio.gather(*(socket.close() for socket in self._sockets))
        await asyncio.gather(*self._listening)
        await self._client.aclose()

    async def wait_for(self, expected: Callable[[Snapshot], bool], within: float = 30) -> list[float]:
        """Wait until every phone's newest snapshot is as expected; return when each arrived."""
        async with asyncio.timeout(within):
            return await asyncio.gather(*(phone.wait_for(expected) for phone in self.phones))

    async def vote(self, slug: str, choices: list[str]) -> list[httpx.Response]:
        """Let each phone send its choice; return the responses."""
        pairs = zip(self.phones, choices, strict=True)
        return await asyncio.gather(*(phone.vote(self.vote_url, slug, choice) for phone, choice in pairs))


def shows(slug: str, state: str) -> Callable[[Snapshot], bool]:
    """Return a check that a snapshot is of a poll in a state."""
    return lambda snapshot: snapshot["poll"] == slug and snapshot["state"] == state


def numbers_in(snapshot: Snapshot) -> list[Any]:
    """Return everything in a snapshot that depends on votes, but not None and 0."""
    values = [snapshot.get(name) for name in ("total", "mean", "runoff", "winner", "waiting")]
    options = snapshot.get("options") or []
    values += [option.get(name) for option in options for name in ("votes", "points")]
    return [value for value in values if value]


def profile_of(poll: Poll, choices: list[str]) -> dict[str, int]:
    """Return the tallies that votes must lead to: stored choice -> voters."""
    stored = [poll.parse_choice([choice]) for choice in choices]
    return {choice: stored.count(choice) for choice in set(stored)}
