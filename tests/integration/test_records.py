"""The record and the ballots of a final round, as the result service publishes them."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from tests.integration.test_visibility import Installation, serving
from tests.waiting import until
from voting.database.closings import finish, store_cut
from voting.database.connection import connect
from voting.database.roles import define_role
from voting.polls.closing import Closing
from voting.polls.tracker import tracker, tracker_text
from voting.polls.vote import EntryId
from voting.result import record_endpoints

pytestmark = pytest.mark.anyio
OPTIONS = '[{"key": "a", "label": "<b>Ä</b>"}, {"key": "b", "label": "B"}, {"key": "c", "label": "C"}]'
PASSWORD = "p" * 32
PATHS = ("/p/x/final.json", "/p/x/ballots.csv", "/p/x/ballots")


class Result(Installation):
    """A result service with the rights of its role, and a poll x in whose first round 30 people have voted."""

    @contextlib.contextmanager
    def ballots_locked(self) -> Iterator[None]:
        """Let nobody read the ballots."""
        with psycopg.connect(self._database_url) as owner:
            owner.execute("LOCK TABLE ballots")
            yield

    def define(self, kind: str = "ranking", *, publish: bool = True) -> None:
        self.run(
            "INSERT INTO polls (slug, question, options, kind, publish) VALUES ('x', 'Which?', %s, %s, %s)",
            OPTIONS,
            kind,
            publish,
        )
        choices = ("ab", "ba", "c") if kind in {"ranking", "multiple"} else ("a", "b", "c")
        for number in range(30):
            voter = number.to_bytes(16)
            self.run("INSERT INTO votes VALUES ('x', %s, %s, %s, 0)", voter, choices[number % 7 % 3], number)
        self.run("INSERT INTO tallies SELECT poll, choice, count(*) FROM votes GROUP BY poll, choice")

    async def close(self, database_url: str) -> None:
        self.run("UPDATE polls SET state = 'closed' WHERE slug = 'x'")
        async with connect(database_url, name="test", timeout=10) as database:
            await store_cut(database, Closing("x", 1, None), EntryId(30, 0))
            assert await finish(database, Closing("x", 1, EntryId(30, 0)))


@pytest.fixture
async def result(database_url: str) -> AsyncIterator[Result]:
    async with connect(database_url, name="test", timeout=10) as database:
        await define_role(database, "result", PASSWORD)
    role = database_url.replace("//voting@", f"//voting_result:{PASSWORD}@")
    async with serving(role) as started:
        yield Result(started.hub, started.port, database_url)


@pytest.fixture
async def final(result: Result, database_url: str) -> Result:
    """The same, when that round is final."""
    result.define()
    await result.close(database_url)
    return result


@pytest.mark.parametrize("kind", ["single", "multiple", "ranking"])
async def test_each_voter_finds_the_own_ballot_and_the_file_has_the_hash_in_the_record(
    result: Result, database_url: str, kind: str
) -> None:
    result.define(kind)
    ((key,),) = result.run("SELECT key FROM tracker_keys WHERE poll = 'x'")
    votes = result.run("SELECT choice, entry_ms FROM votes")
    await result.close(database_url)
    record = (await result.get("/p/x/final.json")).json()
    file = await result.get("/p/x/ballots.csv")
    assert file.headers["content-disposition"] == 'attachment; filename="x-round-1-ballots.csv"'
    assert hashlib.sha256(file.content).hexdigest() == record["ballots"]
    lines = file.text.split("\r\n")[1:-1]
    mine = {f"{tracker_text(tracker(key, EntryId(ms, 0)))},{choice}" for choice, ms in votes}
    assert set(lines) == mine
    assert lines == sorted(lines)
    labels = {"a": "&lt;b&gt;Ä&lt;/b&gt;", "b": "B", "c": "C"}
    sign = " \u203a " if kind == "ranking" else ", "
    for line in lines[:5]:
        text, _, choice = line.partition(",")
        page = (await result.get("/p/x/ballots", params={"tracker": text.upper().replace("-", " ")})).text
        assert f"<bdi>{sign.join(labels[each] for each in choice)}</bdi>" in page
        assert record["fingerprint"] in page


async def test_a_tracker_that_is_not_in_the_list_or_no_tracker_is_said(result: Result, database_url: str) -> None:
    result.define()
    await result.close(database_url)
    page = (await result.get("/p/x/ballots?tracker=0000-0000-0000-0000&lang=en")).text
    assert "No ballot in the list has this tracker." in page
    page = (await result.get("/p/x/ballots?tracker=%3Cb%3E&lang=en")).text
    assert "A tracker has 16 digits" in page
    assert 'value="&lt;b&gt;"' in page


async def test_nothing_is_published_before_the_round_is_final(result: Result) -> None:
    result.define()
    for state, reason in (("open", "not_final"), ("closed", "closing")):
        result.run("UPDATE polls SET state = %s WHERE slug = 'x'", state)
        for path in PATHS:
            answer = await result.get(path, headers={"accept": "application/json"})
            assert (answer.status_code, answer.json()["reason"]) == (404, reason)


async def test_what_is_hidden_has_no_record_and_without_publishing_there_are_no_ballots(
    result: Result, database_url: str
) -> None:
    result.define(publish=False)
    await result.close(database_url)
    answers = [await result.get(path) for path in PATHS]
    assert [answer.status_code for answer in answers] == [200, 404, 200]
    assert answers[0].json()["ballots"] is None
    assert "ballots.csv" not in answers[2].text
    result.run("UPDATE polls SET results = 'hidden' WHERE slug = 'x'")
    await result.has_read("x")
    for path in (*PATHS, "/p/x/final.json?round=1", "/p/y/final.json"):
        answer = await result.get(path)
        assert answer.status_code == 404
        assert "fingerprint" not in answer.text


async def test_an_earlier_round_keeps_its_record(result: Result, database_url: str) -> None:
    result.define()
    await result.close(database_url)
    before = [(await result.get(path)).content for path in PATHS[:2]]
    result.run(
        "INSERT INTO rounds (poll, round, question, options, kind) SELECT slug, 1, '?', options, kind FROM polls"
    )
    result.run("UPDATE polls SET round = 2, state = 'draft' WHERE slug = 'x'")
    await result.has_read("x")
    assert [(await result.get(f"{path}?round=1")).content for path in PATHS[:2]] == before
    assert [(await result.get(path)).content for path in PATHS[:2]] == before, "until the next round is opened"
    assert "Round 1" in (await result.get("/p/x/ballots?lang=en")).text
    result.run("UPDATE polls SET state = 'open' WHERE slug = 'x'")
    await result.has_read("x")
    assert [(await result.get(path)).status_code for path in PATHS] == [404] * 3
    for text in ("0", "3", "x", "9" * 10, "-1", "²"):
        answer = await result.get("/p/x/final.json", params={"round": text}, headers={"accept": "application/json"})
        assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_round")


async def test_pages_show_when_the_result_became_final(result: Result, database_url: str) -> None:
    result.define()
    async with result.socket("/p/x/ws") as socket:
        result.run("UPDATE polls SET state = 'closed' WHERE slug = 'x'")
        await result.has_read("x")
        assert "Closing …" in (await result.get("/p/x?lang=en")).text
        await result.close(database_url)
        async with asyncio.timeout(10):
            while (frame := json.loads(await socket.recv()))["state"] != "final":
                assert "final" not in frame
    record = (await result.get("/p/x/final.json")).json()
    final = {"fingerprint": record["fingerprint"], "revision": record["revision"], "published": True}
    assert {name: frame["final"][name] for name in final} == final
    for path in ("/p/x", "/p/x/present"):
        page = (await result.get(f"{path}?lang=en")).text
        assert str(record["revision"]) in page
        assert record["fingerprint"][:16] in page


async def test_one_download_more_than_the_limit_is_refused_and_does_not_stop_the_others(
    final: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_endpoints, "TIMEOUT", 20.0)
    monkeypatch.setattr(record_endpoints, "DOWNLOADS", 0)
    answer = await final.get("/p/x/ballots.csv", headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (503, "busy", "1")
    monkeypatch.setattr(record_endpoints, "DOWNLOADS", 1)
    with final.ballots_locked():
        first = asyncio.create_task(final.get("/p/x/ballots.csv"))
        await until(lambda: bool(final.run("SELECT 1 FROM pg_locks WHERE NOT granted")))
        assert (await final.get("/p/x/ballots.csv")).status_code == 503
    assert (await first).status_code == 200
    for _ in range(3):  # each ends before the next begins
        assert (await final.get("/p/x/ballots.csv")).status_code == 200


async def test_requests_that_wait_for_one_connection_share_its_time_limit(
    final: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_endpoints, "TIMEOUT", 0.5)
    with final.ballots_locked():
        async with asyncio.timeout(8):
            paths = ["/p/x/ballots?tracker=0000-0000-0000-0000"] * 20
            answers = await asyncio.gather(*(final.get(path, headers={"accept": "application/json"}) for path in paths))
    assert {(answer.status_code, answer.json()["reason"]) for answer in answers} == {(503, "database_away")}
    monkeypatch.undo()
    assert (await final.get("/p/x/final.json")).status_code == 200


async def test_the_connection_is_opened_anew_after_the_database_has_closed_it(
    result: Result, database_url: str
) -> None:
    result.define()
    await result.close(database_url)
    assert (await result.get("/p/x/final.json")).status_code == 200
    closed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'voting result records'"
    assert result.run(closed) == [(True,)]
    answers = [(await result.get("/p/x/final.json")).status_code for _ in range(2)]
    assert answers[-1] == 200
