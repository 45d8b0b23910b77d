"""What is hidden leaves the result service in no form, and sessions show their current poll."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.waiting import PLAIN, until
from voting.polls.state import STATES, is_visible
from voting.result.app import create_app
from voting.result.hub import CLOSE_DELETED, Hub
from voting.result.metrics import ResultMetrics
from voting.result.viewer_server import ViewerServer
from voting.result.watcher import Watcher
from voting.service import metrics
from voting.settings.services import ResultSettings
from voting.web.rendering import Pages
from voting.web.server import listen, serve

pytestmark = pytest.mark.anyio

OPTIONS = '[{"key": "a", "label": "<b>Ä</b>"}, {"key": "b", "label": "B"}]'
NUMBERS = re.compile(r"7,?311|2,?904|10,?215|71[.]6|28[.]4|7,?999|10,?903")  # of the votes below, counted or not
PATHS = ("", "/present", "/api/results")
RESULTS = ("live", "after_vote", "after_close", "hidden")


class Installation:
    """A result service on a database that the test changes."""

    def __init__(self, hub: Hub, port: int, database_url: str) -> None:
        self.hub, self.port = hub, port
        self._database_url = database_url

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._database_url, autocommit=True) as owner:
            cursor = owner.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def count(self, box: str, **votes: int) -> None:
        """Set the tallies of a box, as a worker does."""
        with psycopg.connect(self._database_url) as owner:
            for choice, number in votes.items():
                owner.execute(
                    "INSERT INTO tallies VALUES (%s, %s, %s) ON CONFLICT (poll, choice) DO UPDATE SET votes = %s",
                    [box, choice, number, number],
                )
            slug = box.partition("#")[0]
            owner.execute("UPDATE polls SET revision = revision + 1 WHERE slug = %s", [slug])
            owner.execute("SELECT pg_notify('tallies', %s)", [slug])

    def revision(self, slug: str) -> int:
        return int(self.run("SELECT revision FROM polls WHERE slug = %s", slug)[0][0])

    async def has_read(self, slug: str) -> None:
        """Wait until the service has read the newest revision of a poll."""
        newest = await asyncio.to_thread(self.revision, slug)
        await until(lambda: (held := self.hub.channels.get(slug)) and held.revision == newest)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        async with httpx.AsyncClient(verify=PLAIN) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}", **options)

    def socket(self, path: str, **headers: str) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers=headers)


@pytest.fixture
async def installation(database_url: str) -> AsyncIterator[Installation]:
    async with serving(database_url) as started:
        yield started


@asynccontextmanager
async def serving(database_url: str) -> AsyncIterator[Installation]:
    measures, stop = ResultMetrics(metrics.registry("result")), asyncio.Event()
    settings = ResultSettings.model_validate(
        {"database_url": database_url, "embed_origins": "https://www.example.org", "vote_port": 8080}
    )
    hub = Hub(measures)
    public = listen("127.0.0.1:0")
    app = create_app(settings, Pages("voting.result"), hub, stop)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(Watcher(settings, hub, measures).run(stop))
        tasks.create_task(hub.run(stop))
        tasks.create_task(serve(app, public, stop, ws=ViewerServer(settings, hub, measures).viewer))
        try:
            await until(lambda: hub.loaded)
            yield Installation(hub, public.getsockname()[1], database_url)
        finally:
            stop.set()


async def next_frame(socket: ClientConnection, **fields: object) -> dict[str, Any]:
    """Return the next frame that has these fields."""
    async with asyncio.timeout(10):
        while True:
            frame: dict[str, Any] = json.loads(await socket.recv())
            if all(frame[name] == value for name, value in fields.items()):
                return frame


async def frame_of_change(
    socket: ClientConnection, changed: dict[str, str], *, was_hidden: bool, visible: bool
) -> dict[str, Any]:
    """Return the frame that shows a change of the state or results, and 10,215 votes where they are visible.

    Where numbers were hidden it is the next one: the votes since the change before have sent none.
    """
    frame = await next_frame(socket, **({} if was_hidden else changed))
    assert frame | changed == frame
    assert numbers_in(frame) == visible, changed
    return await next_frame(socket, total=10215) if visible and frame["total"] != 10215 else frame


def numbers_in(snapshot: dict[str, Any]) -> bool:
    return snapshot["total"] is not None or any(each["votes"] is not None for each in snapshot["options"])


async def test_what_is_hidden_leaves_in_no_form_whatever_the_state(installation: Installation) -> None:
    add_poll = "INSERT INTO polls (slug, question, options) VALUES ('x', '<i>Which?</i>', %s)"
    add_session = (
        "INSERT INTO sessions (code, title, polls, current, host_hash) VALUES ('ACDEFG', 'T', '{x}', 'x', 'h')"
    )
    installation.run(add_poll, OPTIONS)
    installation.run(add_session)
    add_worker = (
        "INSERT INTO workers (name, seen, lag, pending, oldest) VALUES ('w', now() + interval '1 hour', 5, 2, 0)"
    )
    installation.run(add_worker)
    ticket = installation.run("SELECT ticket FROM polls WHERE slug = 'x'")[0][0]
    cookie = {"Cookie": f"other=1; ticket_x={ticket}"}
    wrong = {"Cookie": "ticket_x=" + "0" * 32}
    everybody: list[tuple[str, dict[str, str]]] = [(path, {}) for path in ("/p/x", "/s/ACDEFG")]
    async with (
        installation.socket("/p/x/ws") as public,
        installation.socket("/p/x/ws", **wrong) as guesser,
        installation.socket("/p/x/ws?view=public", **cookie) as wall,
        installation.socket("/s/ACDEFG/ws", **cookie) as session,
        installation.socket("/p/x/ws?view=ballot", **cookie) as ballot,
        installation.socket("/s/ACDEFG/ws?view=ballot") as phone,
        installation.socket("/p/x/ws", **cookie) as voter,
    ):
        for socket in (public, guesser, wall, session, ballot, phone, voter):
            await next_frame(socket)
        hidden = {ballot, phone}
        for state in STATES:
            for results in RESULTS:
                began = 1_000_000 * time.time()
                installation.run("UPDATE polls SET state = %s, results = %s WHERE slug = 'x'", state, results)
                installation.count("x", a=7311, b=2904)
                await installation.has_read("x")
                sees_public, sees_voter = (is_visible(results, state, has_ticket=ticket) for ticket in (False, True))
                assert sees_public == (results == "live" or (results != "hidden" and state in {"closed", "final"}))
                shown = {
                    **dict.fromkeys((public, guesser, wall, session), sees_public),
                    **dict.fromkeys((ballot, phone), False),
                    voter: sees_voter,
                }
                changed = {"state": state, "results": results}
                before = {
                    socket: await frame_of_change(socket, changed, was_hidden=socket in hidden, visible=visible)
                    for socket, visible in shown.items()
                }
                hidden = {socket for socket, visible in shown.items() if not visible}

                installation.run("UPDATE workers SET lag = lag + 1")
                installation.count("x", a=7999)  # more votes: no frame where they are hidden
                await installation.has_read("x")
                for socket, visible in shown.items():
                    if visible:
                        assert (await next_frame(socket, total=10903))["revision"] > before[socket]["revision"]
                    else:
                        assert before[socket]["waiting"] == 0
                        # From the clock: a number that grew with each batch would tell how many there were.
                        if (state, results) != ("draft", "live"):
                            assert began < before[socket]["revision"] < 1_000_000 * time.time()
                        assert not NUMBERS.search(json.dumps(before[socket]))

                forms = [(base + path, headers) for base, headers in everybody for path in PATHS]
                forms += [("/embed/x", {}), ("/embed/x", cookie), ("/p/x/present", cookie), ("/p/x", wrong)]
                forms += [("/s/ACDEFG", cookie), ("/p/x?view=public", cookie)]
                for path, headers in forms:
                    body = (await installation.get(path, headers=headers)).raise_for_status().text
                    assert bool(NUMBERS.search(body)) == sees_public, (path, state, results)
                    assert ("data-rates" in body) <= sees_public
                    assert "<b>Ä" not in body or path.endswith("results")
                body = (await installation.get("/p/x", headers=cookie)).text
                assert bool(NUMBERS.search(body)) == sees_voter
                body = (await installation.get("/p/x/api/results?view=ballot", headers=cookie)).text
                assert not NUMBERS.search(body)
        installation.run("UPDATE polls SET question = 'The end', round = 2, state = 'draft' WHERE slug = 'x'")
        assert {(await next_frame(socket))["question"] for socket in hidden} == {"The end"}


async def test_a_ticket_becomes_a_cookie_of_the_poll_and_leaves_the_address(installation: Installation) -> None:
    installation.run("INSERT INTO polls (slug, question, options) VALUES ('x', '?', %s)", OPTIONS)
    ticket = installation.run("SELECT ticket FROM polls WHERE slug = 'x'")[0][0]
    right = await installation.get(f"/p/x?ticket={ticket}")
    assert (right.status_code, right.headers["location"]) == (303, "/p/x")
    assert right.headers["set-cookie"].startswith(f"ticket_x={ticket}; Path=/p/x; ")
    assert "HttpOnly; SameSite=Lax" in right.headers["set-cookie"]
    for text in ("0" * 32, "ä", ticket[:-1]):
        wrong = await installation.get("/p/x", params={"ticket": text})
        assert (wrong.status_code, wrong.headers["location"]) == (303, "/p/x")
        assert "set-cookie" not in wrong.headers


async def test_a_session_shows_its_current_poll_and_says_when_there_is_none(installation: Installation) -> None:
    for slug in ("x", "y"):
        installation.run("INSERT INTO polls (slug, question, options) VALUES (%s, '?', %s)", slug, OPTIONS)
    installation.run("INSERT INTO sessions (code, title, polls, host_hash) VALUES ('ACDEFG', 'T', '{x,y}', 'h')")
    changed = installation.run("SELECT changed FROM sessions")[0][0]
    about = {"code": "ACDEFG", "title": "T", "position": None, "polls": 2}
    nothing = {"poll": None, "session": about, "version": changed, "stale_since": None}
    async with asyncio.timeout(20), installation.socket("/s/acd-efg/ws?view=ballot") as phone:
        assert json.loads(await phone.recv()) == nothing
        assert (await installation.get("/s/acd-efg/api/results")).json() == nothing
        for position, slug in enumerate(("x", "y"), 1):
            installation.run("UPDATE sessions SET current = %s", slug)
            step = json.loads(await phone.recv())
            assert (step["poll"], step["session"]["position"], step["total"]) == (slug, position, None)
        installation.run("UPDATE polls SET state = 'closed' WHERE slug = 'y'")
        assert json.loads(await phone.recv())["state"] == "closed"
        await until(lambda: installation.run("SELECT people FROM audiences WHERE session = 'ACDEFG'") == [(1,)])
        installation.run("DELETE FROM polls WHERE slug = 'y'")
        while (step := json.loads(await phone.recv()))["poll"]:
            pass
        assert step["session"]["polls"] <= 2
        installation.run("DELETE FROM sessions")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await phone.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == CLOSE_DELETED
    assert (await installation.get("/s/ACDEFG")).status_code == 404


async def test_people_of_a_session_are_counted_and_forgotten_when_the_service_stops(database_url: str) -> None:
    async with serving(database_url) as installation:
        installation.run("INSERT INTO sessions (code, title, host_hash) VALUES ('ACDEFG', 'T', 'h')")
        async with installation.socket("/s/ACDEFG/ws?view=ballot"), installation.socket("/s/ACDEFG/ws"):
            await until(lambda: installation.run("SELECT people FROM audiences") == [(1,)])
        await until(lambda: installation.run("SELECT people FROM audiences") == [(0,)])
        async with installation.socket("/s/ACDEFG/ws?view=ballot"):
            await until(lambda: installation.run("SELECT people FROM audiences") == [(1,)])
    assert installation.run("SELECT * FROM audiences") == []


@pytest.mark.parametrize(
    ("origin", "view", "admitted"),
    [
        ("http://127.0.0.1:8080", "ballot", True),
        ("http://127.0.0.1:8080", "public", False),
        ("http://127.0.0.1:8081", "ballot", False),
        ("http://evil.example:8080", "ballot", False),
        ("null", "ballot", False),
    ],
)
async def test_only_ballots_may_come_from_pages_of_the_vote_service(
    installation: Installation, origin: str, view: str, *, admitted: bool
) -> None:
    if admitted:
        async with installation.socket(f"/ws?view={view}", Origin=origin) as phone:
            assert json.loads(await phone.recv())["total"] is None
        return
    with pytest.raises(InvalidStatus) as refused:
        async with installation.socket(f"/ws?view={view}", Origin=origin):
            pass
    assert refused.value.response.status_code == 403


async def test_unknown_polls_cost_the_database_few_reads_and_a_new_one_is_found(installation: Installation) -> None:
    asked = await asyncio.gather(*(installation.get(f"/p/none-{n % 50}/api/results") for n in range(200)))
    assert {each.status_code for each in asked} == {404}
    assert len(installation.hub.demand._missing) == 50
    assert (await installation.get("/p/x/api/results")).status_code == 404
    installation.run("INSERT INTO polls (slug, question, options) VALUES ('x', '?', %s)", OPTIONS)

    async def is_found() -> bool:
        return (await installation.get("/p/x/api/results")).status_code == 200

    await until(is_found)


async def test_only_the_origins_of_the_settings_may_embed(installation: Installation) -> None:
    policy = "content-security-policy"
    assert "frame-ancestors https://www.example.org" in (await installation.get("/embed/default")).headers[policy]
    assert "frame-ancestors 'none'" in (await installation.get("/")).headers[policy]
    assert (await installation.get("/embed/none")).status_code == 404
