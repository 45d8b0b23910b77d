"""A meeting: one person runs a session of four polls with 500 people."""

import asyncio
import csv
import io
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import psycopg
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.e2e.audience import Audience, Snapshot, numbers_in, profile_of, shows
from tests.e2e.stack import Stack
from tests.waiting import PLAIN, until
from voting.polls.poll import Poll
from voting.polls.state import is_over
from voting.polls.tally import evaluate

pytestmark = pytest.mark.anyio

PEOPLE = 500
POLLS: list[dict[str, Any]] = [
    {"question": "Cats or dogs?", "options": ["Cats", "Dogs"], "kind": "single", "results": "live"},
    {
        "question": "Which days?",
        "options": ["Mon", "Tue", "Wed", "Thu"],
        "kind": "multiple",
        "max_choices": 2,
        "results": "hidden",
    },
    {"question": "How was it?", "kind": "rating", "scale": 10, "results": "after_close"},
    {"question": "Rank them", "options": ["A", "B", "C"], "kind": "ranking", "results": "after_vote"},
]
CHOICES = {
    "single": ["a", "b"],
    "multiple": ["a", "ab", "bd", "dc", "d"],
    "rating": [str(number) for number in range(11)],
    "ranking": ["abc", "cab", "b", "ca", "bca"],
}


@pytest.fixture
async def host(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API with the admin key."""
    async with stack.async_admin() as client:
        yield client


async def change(host: httpx.AsyncClient, path: str, **fields: object) -> dict[str, Any]:
    response = await host.patch(path, json=fields)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def test_500_people_follow_four_polls_and_every_tally_is_exact(stack: Stack, host: httpx.AsyncClient) -> None:
    """All states arrive, tallies equal the votes, hidden results never leak, and the export equals the database."""
    slugs = [(await host.post("/api/polls", json=poll)).raise_for_status().json()["slug"] for poll in POLLS]
    made = await host.post("/api/sessions", json={"title": "The meeting", "polls": slugs})
    code = made.raise_for_status().json()["code"]
    randomly = random.Random(1)  # noqa: S311
    async with Audience(stack.vote_url, stack.result_url, code, PEOPLE) as audience:
        watched: list[dict[str, Any]] = []
        for poll, slug in zip(POLLS, slugs, strict=True):
            await change(host, f"/api/sessions/{code}", current=slug)
            await audience.wait_for(shows(slug, "draft"))
            await change(host, f"/api/polls/{slug}", state="open")
            await audience.wait_for(shows(slug, "open"))
            ballot = f"{stack.vote_url}/p/{slug}"
            await until(lambda url=ballot: "state-card" not in httpx.get(url, verify=PLAIN).text)  # type: ignore[misc]
            choices = [randomly.choice(CHOICES[poll["kind"]]) for _ in audience.phones]
            async with connect(f"ws{stack.result_url.removeprefix('http')}/p/{slug}/ws") as wall:
                responses = await audience.vote(slug, choices)
                assert {response.status_code for response in responses} == {200}
                await until(stack.drained)
                await check_exact(stack, host, slug, choices)
                watched += await hidden_numbers(stack, slug, poll["results"])
                if poll["results"] == "live":
                    await frames_until(wall, lambda frame: bool(frame["total"] == PEOPLE))
                await change(host, f"/api/polls/{slug}", state="closed")
                *earlier, _ = await frames_until(wall, lambda frame: is_over(frame["state"]))
                assert poll["results"] == "live" or not [frame for frame in earlier if numbers_in(frame)]
            await audience.wait_for(shows(slug, "final"))
            refused = await audience.phones[0].vote(stack.vote_url, slug, choices[0])
            assert (refused.status_code, refused.json()["reason"], refused.json()["counted"]) == (409, "closed", "no")
            await check_exact(stack, host, slug, choices)
        assert not [numbers_in(frame) for phone in audience.phones for _, frame in phone.frames if numbers_in(frame)]
    assert len(watched) == 3
    assert not [numbers_in(snapshot) for snapshot in watched if numbers_in(snapshot)]


async def frames_until(wall: ClientConnection, expected: Callable[[Snapshot], bool]) -> list[Snapshot]:
    """Return the snapshots of a socket up to the first that is as expected."""
    frames: list[Snapshot] = []
    async with asyncio.timeout(30):
        while not (frames and expected(frames[-1])):
            frames.append(json.loads(await wall.recv()))
    return frames


async def hidden_numbers(stack: Stack, slug: str, results: str) -> list[dict[str, Any]]:
    """Return the public snapshot of an open poll whose numbers are hidden."""
    if results == "live":
        return []
    async with httpx.AsyncClient(verify=PLAIN) as client:
        return [(await client.get(f"{stack.result_url}/p/{slug}/api/results")).raise_for_status().json()]


async def check_exact(stack: Stack, host: httpx.AsyncClient, slug: str, choices: list[str]) -> None:
    """Compare the votes sent with tallies, rows, the API and the export."""
    with psycopg.connect(stack.state["database_url"]) as connection:
        (row,) = connection.execute("SELECT question, options, poll_fields(polls) FROM polls WHERE slug = %s", [slug])
        poll = Poll.from_parts(slug, *row)
        tallies: dict[str, int] = dict(
            connection.execute("SELECT choice, votes FROM tallies WHERE poll = %s AND votes > 0", [slug])
        )
        counted: dict[str, int] = dict(
            connection.execute("SELECT choice, count(*) FROM votes WHERE poll = %s GROUP BY 1", [slug])
        )
    expected = profile_of(poll, choices)
    assert tallies == counted == expected
    result = evaluate(poll, expected)
    found = (await host.get(f"/api/polls/{slug}/results.json")).raise_for_status().json()
    assert {option["key"]: option["votes"] for option in found["options"]} == result.votes
    assert found["total"] == result.total == PEOPLE
    if result.points is not None:
        assert {option["key"]: option["points"] for option in found["options"]} == result.points
    if result.mean is not None:
        assert found["mean"] == pytest.approx(result.mean)
    text = (await host.get(f"/api/polls/{slug}/results.csv")).raise_for_status().content.decode("utf-8-sig")
    rows = {row["key"]: int(row["votes"]) for row in csv.DictReader(io.StringIO(text)) if row["key"] in result.votes}
    assert rows == result.votes
