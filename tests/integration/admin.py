"""The admin service with a real PostgreSQL, as the role `voting_admin`."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
from prometheus_client import CollectorRegistry

from tests.waiting import background, until
from voting.admin.access import WRONG_KEYS
from voting.admin.app import create_app, make_services
from voting.admin.metrics import AdminMetrics
from voting.admin.services import Services
from voting.admin.sweeper import Sweeper
from voting.database.connection import connect
from voting.database.roles import define_role
from voting.service.lifecycle import Stop
from voting.settings.services import AdminSettings

KEY = "admin-key-" + "k" * 32
PASSWORD = "p" * 32
BASE = "http://admin.test"
DRAFT: dict[str, Any] = {"question": "Tea?", "options": ["Yes", "No"]}


async def as_admin(url: str) -> str:
    """Make the role and return the URL that it uses."""
    async with connect(url, name="test", timeout=10) as connection:
        await define_role(connection, "admin", PASSWORD)
    return url.replace("//voting@", f"//voting_admin:{PASSWORD}@")


class Admin:
    """Clients of a running application."""

    def __init__(self, url: str, services: Services, app: Any, stack: contextlib.AsyncExitStack) -> None:
        self.url, self.services, self.app, self._stack = url, services, app, stack

    async def client(self, key: str | None = KEY, **options: Any) -> httpx.AsyncClient:
        """Return a client with a key, or with its own cookie jar only."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        made = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=BASE, headers=headers, **options)
        return await self._stack.enter_async_context(made)

    def owner(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement as the owner of the database."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def count(self, box: str, choice: str, votes: int) -> None:
        """Let the database have counted votes, as a worker would."""
        row = "INSERT INTO tallies VALUES (%s, %s, %s) ON CONFLICT (poll, choice) DO UPDATE SET votes = excluded.votes"
        self.owner(row, box, choice, votes)
        voters = "SELECT %s, decode(md5(%s || n::text), 'hex'), %s, 1, n FROM generate_series(1, %s) AS n"
        insert = f"INSERT INTO votes {voters} ON CONFLICT DO NOTHING"
        self.owner(insert, box, choice, choice, votes)

    async def sweep(self) -> None:
        """Delete the votes of deleted polls."""
        stop = Stop()

        async def is_swept() -> bool:
            return self.owner(
                "SELECT count(*) FROM votes WHERE split_part(poll, '#', 1) NOT IN (SELECT slug FROM polls)"
            ) == [(0,)]

        async with background(Sweeper(self.services.database).run(stop)):
            await until(is_swept)


@asynccontextmanager
async def serving(url: str, **given: Any) -> AsyncIterator[Admin]:
    """Run the application and its connection to the database."""
    values = {"database_url": await as_admin(url), "admin_key": KEY} | given
    services = make_services(AdminSettings.model_validate(values), AdminMetrics(CollectorRegistry()))
    stop = Stop()
    async with contextlib.AsyncExitStack() as stack, background(services.database.run(stop)):
        await until(lambda: services.database.ready)
        stack.push_async_callback(services.database.close)
        yield Admin(url, services, create_app(services, stop), stack)


async def make(client: httpx.AsyncClient, **more: Any) -> str:
    """Make a poll; return its slug."""
    answer = await client.post("/api/polls", json=DRAFT | more)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/api/polls/{answer.json()['slug']}"
    return str(answer.json()["slug"])


async def patch(client: httpx.AsyncClient, slug: str, **fields: Any) -> httpx.Response:
    """Change fields of a poll."""
    return await client.patch(f"/api/polls/{slug}", json=fields)


async def shown(client: httpx.AsyncClient, slug: str) -> dict[str, Any]:
    """Return a poll as the API shows it."""
    answer = await client.get(f"/api/polls/{slug}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and reason; check that it is a problem as RFC 9457 defines it."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["referrer-policy"] == "no-referrer"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert len(problem["detail"]) > 10
    return answer.status_code, problem["reason"]


def wrong_fields(answer: httpx.Response) -> set[str]:
    """Return the fields that a 422 names."""
    assert refusal(answer) == (422, "invalid")
    assert all(len(each["message"]) > 10 for each in answer.json()["errors"])
    return {each["field"] for each in answer.json()["errors"]}


async def make_session(client: httpx.AsyncClient, *slugs: str) -> tuple[str, str]:
    """Make a session of these polls; return its code and the secret of its host link."""
    answer = await client.post("/api/sessions", json={"title": "All hands", "polls": list(slugs)})
    assert answer.status_code == 201, answer.text
    session = answer.json()
    assert answer.headers["location"] == f"/api/sessions/{session['code']}"
    return session["code"], session["host_url"].rpartition("/")[2]


async def signed_in(admin: Admin) -> httpx.AsyncClient:
    """Return a client with the cookie of the admin."""
    browser = await admin.client(None)
    await browser.get(f"/?key={KEY}")
    return browser


async def guess(ask: Callable[[], Awaitable[httpx.Response]]) -> list[httpx.Response]:
    """Send wrong keys until there is a 429; return all responses. As time passes, an address earns new tries."""
    answers = [await ask()]
    while answers[-1].status_code == 401:
        assert len(answers) < 10 * WRONG_KEYS
        answers.append(await ask())
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    return answers
