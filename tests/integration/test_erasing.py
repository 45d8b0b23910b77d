"""Erasing who voted for what in final rounds, and the end of sessions that are kept for some days only."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from tests.integration.admin import PASSWORD, Admin, make, make_session, patch, refusal, shown
from tests.waiting import background, until
from voting.admin.sweeper import Sweeper
from voting.database.queries import QUERIES
from voting.service.lifecycle import Stop

pytestmark = pytest.mark.anyio
VOTES = {"a": 700, "b": 300}


async def vote(admin: Admin, client: httpx.AsyncClient, **fields: Any) -> str:
    """Make an open poll with votes, which publishes its ballots."""
    slug = await make(client, **fields)
    await patch(client, slug, state="open")
    admin.owner("UPDATE polls SET publish = true WHERE slug = %s", slug)
    for choice, votes in VOTES.items():
        admin.count(slug, choice, votes)
    return slug


def finish(admin: Admin, slug: str) -> None:
    """Do what a worker does with a round that has closed."""
    admin.owner("SELECT seal_round(%s, 1, 1, 1000)", slug)
    admin.owner("SELECT list_ballots(%s, 1)", slug)
    finished = "SELECT finish_round(poll, round, closed, '{\"total\": 1000}') FROM closings WHERE poll = %s"
    assert admin.owner(finished, slug) == [(True,)]


async def final(admin: Admin, client: httpx.AsyncClient, **fields: Any) -> str:
    slug = await vote(admin, client, **fields)
    await patch(client, slug, state="closed")
    finish(admin, slug)
    return slug


def erase(admin: Admin, most: int) -> bool:
    """Call the function as the admin service does."""
    url = admin.url.replace("//voting@", f"//voting_admin:{PASSWORD}@")
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(b"SELECT erase_pseudonyms(%s)", [most]).fetchone()
    return bool(row and row[0])


def votes(admin: Admin, slug: str) -> set[tuple[bytes, int, int]]:
    return set(admin.owner("SELECT voter, entry_ms, entry_seq FROM votes WHERE poll = %s", slug))


def published(admin: Admin, slug: str) -> list[list[tuple[Any, ...]]]:
    """Return what must stay: the tallies, the counts of the votes, the list of ballots and the record."""
    queries = (
        "SELECT choice, votes FROM tallies WHERE poll = %s ORDER BY 1",
        "SELECT choice, count(*) FROM votes WHERE poll = %s GROUP BY choice ORDER BY 1",
        "SELECT tracker, choice FROM ballots WHERE poll = %s ORDER BY 1",
        "SELECT record, final FROM closings WHERE poll = %s",
    )
    return [admin.owner(query, slug) for query in queries]


async def test_erasing_keeps_the_counts_and_no_voter_and_goes_on_after_each_interruption(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug, other = await final(admin, client, erase_days=0), await final(admin, client)
    before, kept, untouched = votes(admin, slug), published(admin, slug), votes(admin, other)
    assert len(kept[2]) == 1000
    sizes = []
    while erase(admin, 300):  # each call is a transaction: the service may end after any of them
        sizes.append(len(votes(admin, slug) & before))
        assert published(admin, slug) == kept
        assert admin.owner(QUERIES["drift"]) == []
    assert sizes == [700, 400, 0, 0]  # not 700, 400, 100, 0: the last call would tell the votes of few
    after = votes(admin, slug)
    assert len(after) == 1000
    assert {(len(voter), ms, seq) for voter, ms, seq in after} == {(16, 0, 0)}
    assert not {voter for voter, _, _ in after} & {voter for voter, _, _ in before}
    assert votes(admin, other) == untouched
    rows = admin.owner("SELECT actor, poll, detail FROM audit WHERE action = 'erase'")
    assert rows == [("schedule", slug, {"round": 1, "votes": 1000})]
    assert not erase(admin, 300)
    assert votes(admin, slug) == after


async def test_rows_of_erased_votes_are_stored_in_an_order_that_tells_nothing(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await final(admin, client, erase_days=0)
    while erase(admin, 1000):
        pass
    choices = [choice for (choice,) in admin.owner("SELECT choice FROM votes WHERE poll = %s ORDER BY ctid", slug)]
    assert sorted(choices) == ["a"] * 700 + ["b"] * 300
    assert choices == sorted(choices) or choices == sorted(choices[300:]) + choices[:300]


async def test_erasing_is_due_days_after_the_result_is_final_as_last_set_before_that(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await vote(admin, client)
    await patch(client, slug, state="closed")
    assert (await patch(client, slug, erase_days=2)).status_code == 200  # the round is closed, and not final
    assert (await shown(client, slug))["erase_days"] == 2
    finish(admin, slug)
    assert refusal(await patch(client, slug, erase_days=None)) == (409, "final")
    assert (await patch(client, slug, erase_days=2)).status_code == 200
    with pytest.raises(psycopg.errors.CheckViolation, match="the round is final"):
        admin.owner("UPDATE polls SET erase_days = 0 WHERE slug = %s", slug)
    assert not erase(admin, 1000)
    admin.owner("ALTER TABLE closings DISABLE TRIGGER keep_final")
    admin.owner("UPDATE closings SET final = final - interval '2 days'")
    admin.owner("ALTER TABLE closings ENABLE TRIGGER keep_final")
    assert erase(admin, 1000)


async def test_the_service_erases_and_a_copy_or_the_next_round_has_the_same_setting(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await final(admin, client, erase_days=0)
    copied = (await client.post(f"/api/polls/{slug}/copy")).json()
    assert copied["erase_days"] == 0
    await patch(client, slug, state="draft")
    assert (await shown(client, slug))["erase_days"] == 0
    async with background(Sweeper(admin.services.database).run(Stop())):
        await until(lambda: admin.owner("SELECT erased IS NOT NULL FROM closings") == [(True,)])
    assert {(ms, seq) for _, ms, seq in votes(admin, slug)} == {(0, 0)}


async def make_kept(client: httpx.AsyncClient, days: int, *slugs: str) -> str:
    code, _ = await make_session(client, *slugs)
    answer = await client.patch(f"/api/sessions/{code}", json={"keep_days": days})
    assert answer.json()["keep_days"] == days
    return code


async def deletes_at(client: httpx.AsyncClient, code: str) -> str | None:
    found: str | None = (await client.get(f"/api/sessions/{code}")).json()["deletes_at"]
    return found


async def test_a_session_ends_with_its_polls_and_votes_but_not_with_those_of_other_sessions(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    mine, shared = await final(admin, client), await final(admin, client)
    code = await make_kept(client, 1, mine, shared)
    other, _ = await make_session(client, shared)
    page = (await client.get(f"/sessions/{code}", headers={"accept-language": "en"})).text
    assert re.search(r"This session, its polls and all votes will be deleted on <bdi>[A-Z][a-z]+ \d+, 20\d\d", page)
    assert "will be deleted on" in (await client.get(f"/sessions/{code}/control")).text
    stop = Stop()
    async with background(Sweeper(admin.services.database).run(stop)):
        admin.owner("UPDATE sessions SET kept_from = kept_from - interval '2 days' WHERE code = %s", code)
        assert await deletes_at(client, code) is not None  # the last closing was just now
        admin.owner("ALTER TABLE closings DISABLE TRIGGER keep_final")
        admin.owner("UPDATE closings SET closed = closed - interval '2 days'")
        admin.owner("ALTER TABLE closings ENABLE TRIGGER keep_final")
        await client.delete(f"/api/polls/{await make(client)}")  # which wakes the sweeper
        await until(lambda: admin.owner("SELECT count(*) FROM votes WHERE poll = %s", mine) == [(0,)])
    assert admin.owner("SELECT slug FROM polls ORDER BY slug") == sorted([("default",), (shared,)])
    assert admin.owner("SELECT code, polls FROM sessions") == [(other, [shared])]
    assert len(votes(admin, shared)) == 1000
    rows = admin.owner("SELECT action, poll, session FROM audit WHERE actor = 'schedule' ORDER BY id")
    assert rows == [("delete", mine, code), ("delete_session", None, code)]


async def test_a_session_does_not_end_while_a_poll_is_open_not_final_or_to_open(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client)
    code = await make_kept(client, 7, slug)
    assert await deletes_at(client, code) is not None
    await patch(client, slug, opens_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    assert await deletes_at(client, code) is None
    await patch(client, slug, state="open")
    assert await deletes_at(client, code) is None
    assert "7 days after its last poll has closed" in (await client.get(f"/sessions/{code}")).text
    await patch(client, slug, state="closed")
    assert await deletes_at(client, code) is None
    finish(admin, slug)
    assert await deletes_at(client, code) is not None
    await client.patch(f"/api/sessions/{code}", json={"keep_days": None})
    assert await deletes_at(client, code) is None
