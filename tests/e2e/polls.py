"""Polls and sessions for tests, made and changed with SQL, as the admin service does."""

import json
from typing import Any

import httpx
import psycopg

from tests.e2e.stack import Stack
from tests.waiting import eventually
from voting.polls.poll import SCALES
from voting.polls.session import new_code

MEALS = ("Soup", "Salad", "Bread", "Cake")


def execute(stack: Stack, query: str, *values: Any) -> None:
    with psycopg.connect(stack.state["database_url"], autocommit=True) as database:
        database.execute(query.encode(), values)


def make_poll(stack: Stack, slug: str, kind: str = "single", labels: tuple[str, ...] = MEALS, **more: Any) -> str:
    """Insert a poll, with these further columns; return its path."""
    options = [{"key": key, "label": label} for key, label in zip("abcdefghijklmnopqrst", labels, strict=False)]
    if kind == "rating":
        options = [{"key": str(number), "label": str(number)} for number in SCALES[more["scale"]]]
    columns = {
        "slug": slug,
        "question": f"The question of {slug}?",
        "kind": kind,
        "options": json.dumps(options),
    } | more
    names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
    execute(stack, f"INSERT INTO polls ({names}) VALUES ({places})", *columns.values())  # noqa: S608 - our names
    return f"/p/{slug}"


def change_poll(stack: Stack, slug: str, changes: str) -> None:
    """Update a poll; `changes` is SQL."""
    execute(stack, f"UPDATE polls SET {changes} WHERE slug = %s", slug)  # noqa: S608 - our SQL


def close_poll(stack: Stack, slug: str) -> None:
    """Close a poll, and wait until its result is final."""
    change_poll(stack, slug, "state = 'closed'")
    eventually(lambda: stack.rows(f"SELECT state FROM polls WHERE slug = '{slug}'") == [("final",)])  # noqa: S608


def make_final(stack: Stack, slug: str, choice: str = "a", **fields: Any) -> str:
    """Make a poll, vote, and close it; return the tracker, empty if the poll publishes no ballots."""
    url = stack.vote_url + make_poll(stack, slug, **fields)

    def vote() -> httpx.Response:
        answer = httpx.post(url, data={"vote": choice}, headers={"accept": "application/json"})
        assert answer.status_code == 200, answer.text
        return answer

    tracker: str = eventually(vote).json().get("tracker", "")
    close_poll(stack, slug)
    return tracker


def make_session(stack: Stack, *slugs: str, current: str | None = None) -> str:
    """Insert a session; return its code."""
    code = new_code()
    execute(
        stack,
        "INSERT INTO sessions (code, title, polls, current, host_hash) VALUES (%s, 'All hands', %s, %s, %s)",
        *(code, list(slugs), current, code.encode()),
    )
    return code


def step(stack: Stack, code: str, current: str | None) -> None:
    """Make a poll the session's current one."""
    execute(stack, "UPDATE sessions SET current = %s WHERE code = %s", current, code)
