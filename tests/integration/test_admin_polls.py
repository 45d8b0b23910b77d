"""Polls in the admin service: what each caller can make and change, and what is refused with which reason."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.admin import DRAFT, Admin, make, patch, refusal, shown, wrong_fields
from voting.polls.labels import clean_label, fold_label

pytestmark = pytest.mark.anyio


def iso(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


async def test_a_new_poll_is_a_draft_with_readable_slug_keys_and_addresses(client: httpx.AsyncClient) -> None:
    slug = await make(
        client, question="  Wo treffen wir uns heute Abend, bei Ihnen oder bei mir?  ", options=["Hier", "Dort", "Nie"]
    )
    assert slug.startswith("wo-treffen-wir-uns-heute")
    poll = await shown(client, slug)
    assert (poll["state"], poll["round"], poll["total"], poll["access"]) == ("draft", 1, 0, "open")
    assert [(each["key"], each["label"]) for each in poll["options"]] == [("a", "Hier"), ("b", "Dort"), ("c", "Nie")]
    assert poll["vote_url"] == f"http://admin.test:8080/p/{slug}"
    assert poll["present_url"] == f"http://admin.test:8081/p/{slug}/present"
    assert poll["control_url"] == f"http://admin.test:8082/polls/{slug}/control"
    assert poll["embed_url"] == f"http://admin.test:8081/embed/{slug}"
    assert (await make(client, question="投票", slug="named")) == "named"
    assert (await make(client, question="投票")).startswith("poll-")
    rating = await shown(client, await make(client, kind="rating", options=[]))
    assert ([each["key"] for each in rating["options"]], rating["scale"]) == (["1", "2", "3", "4", "5"], 5)
    ten = await shown(client, await make(client, kind="rating", scale=10, options=[]))
    assert [each["label"] for each in ten["options"]] == [str(n) for n in range(11)]
    assert (await shown(client, await make(client, kind="multiple", max_choices=2)))["max_choices"] == 2


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"question": ""}, {"question"}),
        ({"question": "x" * 10_000}, {"question"}),
        ({"question": "\u200b"}, {"question"}),
        ({"question": "a\nb"}, {"question"}),
        ({"question": "a\u202eb"}, {"question"}),
        ({"question": "\ud800"}, {"question"}),
        ({"question": None}, {"question"}),
        ({"options": ["a", "b", "c", "d\x00"]}, {"options.3"}),
        ({"options": ["a", " "]}, {"options.1"}),
        ({"options": ["Straße", "b", "STRASSE"]}, {"options.2"}),
        ({"options": ["a"]}, {"options"}),
        ({"options": [f"{n}" for n in range(21)]}, {"options"}),
        ({"options": "ab"}, {"options"}),
        ({"kind": "poem"}, {"kind"}),
        ({"kind": "rating"}, {"options"}),
        ({"kind": "rating", "options": [], "scale": 7}, {"scale"}),
        ({"scale": 5}, {"scale"}),
        ({"max_choices": 1}, {"max_choices"}),
        ({"kind": "multiple", "max_choices": 3}, {"max_choices"}),
        ({"kind": "multiple", "max_choices": 0}, {"max_choices"}),
        ({"timer": 4}, {"timer"}),
        ({"timer": 86_401}, {"timer"}),
        ({"opens_at": "2020-01-01T00:00:00Z"}, {"opens_at"}),
        ({"closes_at": "2999-01-01T00:00:00Z"}, {"closes_at"}),
        ({"closes_at": "2099-01-01T00:00:00"}, {"closes_at"}),
        ({"closes_at": "2099-01-01"}, {"closes_at"}),
        ({"closes_at": 4_070_908_800}, {"closes_at"}),
        ({"closes_at": "9999-12-31T23:59:59-12:00"}, {"closes_at"}),
        ({"access": "codes"}, {"access"}),
        ({"publish": "yes"}, {"publish"}),
        ({"slug": "Not a slug"}, {"slug"}),
        ({"slug": "new"}, {"slug"}),
        ({"slug": "a" * 64}, {"slug"}),
        ({"results": "never"}, {"results"}),
        ({"colour": "red"}, {"colour"}),
    ],
)
async def test_bad_fields_are_named(client: httpx.AsyncClient, fields: dict[str, Any], wrong: set[str]) -> None:
    body = json.dumps(DRAFT | fields)  # in ASCII, which can hold a surrogate
    answer = await client.post("/api/polls", content=body, headers={"content-type": "application/json"})
    assert wrong_fields(answer) == wrong
    assert [poll["slug"] for poll in (await client.get("/api/polls")).json()["polls"]] == ["default"]


async def test_bodies_that_are_no_json_objects_are_refused(client: httpx.AsyncClient) -> None:
    form = await client.post("/api/polls", data={"question": "x"})
    assert refusal(form) == (415, "content_type")
    headers = {"content-type": "application/json"}
    for body in (b"{", b"[" * 15_000, b'{"question": 1' + b"0" * 5000 + b"}", b"\xff", b"null", b"[]", b""):
        answer = await client.post("/api/polls", content=body, headers=headers)
        assert refusal(answer)[0] in {400, 422}, body


async def test_closing_must_come_after_opening(client: httpx.AsyncClient) -> None:
    times = {"opens_at": iso(hours=2), "closes_at": iso(hours=1)}
    assert wrong_fields(await client.post("/api/polls", json=DRAFT | times)) == {"closes_at"}
    slug = await make(client, opens_at=iso(hours=1))
    assert wrong_fields(await patch(client, slug, closes_at=iso(minutes=30))) == {"closes_at"}
    assert (await patch(client, slug, closes_at=iso(hours=2))).status_code == 200
    assert wrong_fields(await patch(client, slug, opens_at=iso(hours=3))) == {"opens_at"}
    cleared = await patch(client, slug, opens_at=None, closes_at=None)
    assert (cleared.json()["opens_at"], cleared.json()["closes_at"]) == (None, None)


async def test_a_taken_slug_is_refused_also_after_deletion(client: httpx.AsyncClient) -> None:
    await make(client, slug="tea")
    for _ in range(2):
        assert refusal(await client.post("/api/polls", json=DRAFT | {"slug": "tea"})) == (409, "slug_taken")
        await client.delete("/api/polls/tea")


async def test_a_poll_goes_from_draft_to_open_to_closed_to_a_draft_of_the_next_round(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client, timer=60)
    ticket = admin.owner("SELECT ticket FROM polls WHERE slug = %s", slug)
    assert refusal(await patch(client, slug, state="closed")) == (409, "transition")
    opened = (await patch(client, slug, state="open")).json()
    left = datetime.fromisoformat(opened["closes_at"]) - datetime.fromisoformat(opened["opened"])
    assert (opened["state"], left) == ("open", timedelta(seconds=60))
    assert (await patch(client, slug, state="open")).json() == opened  # nothing has changed
    later = (await patch(client, slug, closes_in=300)).json()
    assert later["closes_at"] > opened["closes_at"]
    assert refusal(await patch(client, slug, opens_at=iso(hours=1))) == (409, "not_draft")
    admin.count(slug, "a", 3)
    closed = (await patch(client, slug, state="closed")).json()
    assert (closed["state"], closed["closes_at"], closed["total"]) == ("closed", later["closes_at"], 3)
    assert closed["closed"] > closed["opened"]
    assert refusal(await patch(client, slug, state="open")) == (409, "transition")
    assert refusal(await patch(client, slug, closes_in=60)) == (409, "closed")
    draft = (await client.post(f"/api/polls/{slug}/reset")).json()
    assert (draft["state"], draft["round"], draft["total"]) == ("draft", 2, 0)
    assert [draft[name] for name in ("opens_at", "closes_at", "opened", "closed")] == [None] * 4
    assert [(each["round"], each["total"]) for each in draft["rounds"]] == [(1, 3)]
    assert admin.owner("SELECT ticket FROM polls WHERE slug = %s", slug) != ticket
    assert (await client.post(f"/api/polls/{slug}/reset")).json() == draft
    await patch(client, slug, state="open")
    assert (await patch(client, slug, state="draft", question="Coffee?")).json()["round"] == 3
    actions = [entry["action"] for entry in (await client.get("/api/audit")).json()["entries"]]
    assert actions == ["edit", "reset", "open", "reset", "close", "edit", "open", "create"]


async def test_opening_early_forgets_the_time_of_opening_and_a_past_time_of_closing(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client, opens_at=iso(hours=1), closes_at=iso(hours=2))
    admin.owner("UPDATE polls SET closes_at = now() - interval '1 minute' WHERE slug = %s", slug)
    opened = (await patch(client, slug, state="open")).json()
    assert (opened["state"], opened["opens_at"], opened["closes_at"]) == ("open", None, None)


async def test_a_timer_that_is_set_while_a_poll_is_open_starts_then(client: httpx.AsyncClient) -> None:
    slug = await make(client)
    await patch(client, slug, state="open")
    changed = (await patch(client, slug, timer=600)).json()
    left = datetime.fromisoformat(changed["closes_at"]) - datetime.now(UTC)
    assert 590 < left.total_seconds() <= 600
    assert (await patch(client, slug, timer=600, question="Else?")).json()["closes_at"] == changed["closes_at"]


async def test_everything_can_be_changed_in_a_draft(client: httpx.AsyncClient) -> None:
    slug = await make(client)
    changed = await patch(
        client, slug, question="Coffee?", options=["One", "Two", "Yes"], kind="multiple", max_choices=2
    )
    poll = changed.json()
    assert (poll["question"], poll["kind"], poll["max_choices"]) == ("Coffee?", "multiple", 2)
    assert [(each["key"], each["label"]) for each in poll["options"]] == [("a", "One"), ("b", "Two"), ("c", "Yes")]
    assert wrong_fields(await patch(client, slug, max_choices=4)) == {"max_choices"}
    assert (await patch(client, slug, kind="rating", scale=10)).json()["scale"] == 10
    assert wrong_fields(await patch(client, slug, kind="ranking")) == {"options"}
    assert (await patch(client, slug, kind="ranking", options=["x", "y"])).json()["scale"] is None
    assert wrong_fields(await patch(client, slug, options=["x", "X"])) == {"options.1"}


async def test_an_open_poll_without_votes_keeps_the_keys_of_its_labels(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client)
    await patch(client, slug, state="open")
    poll = (await patch(client, slug, options=["No", "Maybe"])).json()
    assert [(each["key"], each["label"]) for each in poll["options"]] == [("b", "No"), ("c", "Maybe")]
    assert admin.owner("SELECT options -> 2 FROM polls WHERE slug = %s", slug) == [
        ({"key": "a", "label": "Yes", "retired": True},)
    ]
    assert refusal(await patch(client, slug, kind="ranking")) == (409, "not_draft")
    assert (await patch(client, slug, options=["Yes", "No"])).json()["options"][0]["key"] == "a"


async def test_the_meaning_of_a_poll_with_votes_stays(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client)
    await patch(client, slug, state="open")
    admin.count(slug, "a", 1)
    for fields in ({"question": "Coffee?"}, {"options": ["Yes", "Never"]}, {"options": ["No", "Yes"]}):
        answer = await patch(client, slug, **fields)
        assert refusal(answer) == (409, "has_votes")
        assert "Reset" in answer.json()["detail"]
    same = await patch(client, slug, question="Tea?", options=["Yes", "No"], results="hidden")
    assert (same.status_code, same.json()["results"]) == (200, "hidden")


async def test_the_default_poll_is_run_but_neither_edited_nor_deleted(client: httpx.AsyncClient) -> None:
    assert refusal(await patch(client, "default", question="Tea?")) == (409, "default_poll")
    assert refusal(await client.delete("/api/polls/default")) == (409, "default_poll")
    assert (await patch(client, "default", results="hidden", state="closed")).json()["state"] == "closed"
    assert (await client.post("/api/polls/default/reset")).json()["round"] == 2
    assert (await patch(client, "default", state="open")).json()["vote_url"] == "http://admin.test:8080/"


async def test_a_copy_is_a_draft_with_the_same_meaning(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client, kind="multiple", max_choices=2, results="hidden", timer=30)
    await patch(client, slug, state="open")
    admin.count(slug, "ab", 2)
    answer = await client.post(f"/api/polls/{slug}/copy")
    copy = answer.json()
    assert (answer.status_code, copy["state"], copy["total"], copy["results"]) == (201, "draft", 0, "hidden")
    assert (copy["kind"], copy["max_choices"], copy["timer"], copy["opened"]) == ("multiple", 2, 30, None)
    assert copy["slug"] != slug
    assert (await client.post("/api/polls/none/copy")).status_code == 404


async def test_of_two_changes_the_second_is_refused_if_it_says_what_it_has_seen(client: httpx.AsyncClient) -> None:
    slug = await make(client)
    seen = (await client.get(f"/api/polls/{slug}")).headers["etag"]
    first, second = [
        await client.patch(f"/api/polls/{slug}", json={"question": text}, headers={"if-match": seen})
        for text in ("One?", "Two?")
    ]
    assert first.status_code == 200
    assert refusal(second) == (412, "changed")
    again = {"if-match": first.headers["etag"]}
    assert (await client.patch(f"/api/polls/{slug}", json={"question": "Two?"}, headers=again)).status_code == 200


async def test_lists_are_paged_newest_first(client: httpx.AsyncClient) -> None:
    slugs = [await make(client) for _ in range(4)]
    found, address = [], "/api/polls?limit=2"
    while address:
        page = (await client.get(address)).json()
        found += [poll["slug"] for poll in page["polls"]]
        address = page["next"]
    assert found == [*reversed(slugs), "default"]
    audit = (await client.get("/api/audit?limit=3")).json()
    assert len(audit["entries"]) == 3
    assert len((await client.get(audit["next"])).json()["entries"]) == 1
    for query in ("limit=0", "limit=101", "limit=x", "after=x", "after=AAAA", "after=%00"):
        assert wrong_fields(await client.get(f"/api/polls?{query}")) == {query.partition("=")[0]}


@pytest.mark.parametrize("name", ["none", "UPPER", "%00", "a" * 300, "%F0%9F%90%B1", "a%2Fb"])
async def test_an_unknown_poll_is_a_404(client: httpx.AsyncClient, name: str) -> None:
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/reset"), ("GET", "/results.csv")):
        body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
        answer = await client.request(method, f"/api/polls/{name}{path}", **body)
        assert answer.status_code == 404, (method, path)


async def test_exports_are_the_numbers_of_the_database(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client, kind="ranking", question="=cmd|' /C calc'!A0", options=["-1+1", "@b", "Ok, then"])
    await patch(client, slug, state="open")
    votes = {"a": 1, "ab": 2, "bca": 4, "cba": 3}
    for choice, number in votes.items():
        admin.count(slug, choice, number)
    await patch(client, slug, state="closed")
    await client.post(f"/api/polls/{slug}/reset")
    assert refusal(await client.get(f"/api/polls/{slug}/results.csv?round=3")) == (404, "unknown_round")
    export = (await client.get(f"/api/polls/{slug}/results.json?round=1")).json()
    stored = admin.owner("SELECT choice, count(*) FROM votes WHERE poll = %s GROUP BY choice", slug)
    assert export["choices"] == dict(stored) == votes
    assert (export["total"], [each["votes"] for each in export["options"]]) == (10, [3, 4, 3])
    answer = await client.get(f"/api/polls/{slug}/results.csv?round=1")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{slug}-round-1.csv"'
    assert answer.content.startswith(b"\xef\xbb\xbfpoll,")
    assert answer.content.count(b"\r\n") == answer.content.count(b"\n") == 4
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert {row["question"] for row in rows} == {"'=cmd|' /C calc'!A0"}
    assert [(row["option"], row["votes"], row["voters"]) for row in rows] == [
        ("'-1+1", "3", "10"), ("'@b", "4", "10"), ("Ok, then", "3", "10")]  # fmt: skip
    assert [row["points"] for row in rows] == [str(each["points"]) for each in export["options"]]
    assert (await client.get(f"/api/polls/{slug}/results.json")).json()["total"] == 0


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(labels=st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=20, unique_by=fold_label))
async def test_labels_are_stored_as_cleaned_or_refused(admin: Admin, labels: list[str]) -> None:
    client = await admin.client()
    answer = await client.post(
        "/api/polls", content=json.dumps(DRAFT | {"options": labels}), headers={"content-type": "application/json"}
    )
    try:
        cleaned = [clean_label(label) for label in labels]
    except ValueError:
        assert all(field.startswith("options.") for field in wrong_fields(answer))
        return
    if answer.status_code == 201:
        assert [option["label"] for option in answer.json()["options"]] == cleaned
    else:
        wrong_fields(answer)  # two are equal when they are cleaned


async def test_deleting_a_poll_deletes_its_rounds_and_votes(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client)
    await patch(client, slug, state="open")
    admin.count(slug, "a", 5)
    await client.post(f"/api/polls/{slug}/reset")
    admin.count(f"{slug}#2", "b", 7)
    assert (await client.delete(f"/api/polls/{slug}")).status_code == 204
    assert (await client.get(f"/api/polls/{slug}")).status_code == 404
    assert admin.owner("SELECT name, rounds FROM deletions") == [(slug, 2)]
    await admin.sweep()
    assert admin.owner("SELECT count(*) FROM votes") == [(0,)]
    assert admin.owner("SELECT count(*) FROM tallies WHERE votes > 0") == [(0,)]
    assert admin.owner("SELECT count(*) FROM rounds") == [(0,)]
