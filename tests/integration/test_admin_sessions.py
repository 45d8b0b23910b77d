"""Sessions in the admin service, and what the link of a host allows."""

import httpx
import pytest

from tests.integration.admin import Admin, make, make_session, patch, refusal, shown, wrong_fields
from voting.polls.session import parse_code

pytestmark = pytest.mark.anyio


async def test_a_session_has_a_code_addresses_and_a_host_link_that_is_stored_as_a_hash(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client)
    answer = await client.post("/api/sessions", json={"title": " All hands ", "polls": [slug, "default"]})
    session = answer.json()
    code, link = session["code"], session["host_url"]
    assert parse_code(code) == code
    assert (session["title"], session["polls"], session["current"]) == ("All hands", [slug, "default"], None)
    assert session["join_url"] == f"http://admin.test:8080/{code}"
    assert session["present_url"] == f"http://admin.test:8081/s/{code}/present"
    assert link.startswith("http://admin.test:8082/host/")
    token = link.rpartition("/")[2]
    assert len(token) >= 32
    assert admin.owner("SELECT host_hash = sha256(%s::bytea) FROM sessions", token) == [(True,)]
    assert token not in str(admin.owner("SELECT audit::text FROM audit"))
    for path in (f"/api/sessions/{code}", f"/api/sessions/{code.lower()}", "/api/sessions", "/api/audit"):
        assert token not in (await client.get(path)).text
    assert (await shown(client, slug))["sessions"] == [code]


async def test_bad_sessions_are_refused(client: httpx.AsyncClient) -> None:
    for body, wrong in (
        ({"title": ""}, {"title"}),
        ({"polls": []}, {"title"}),
        ({"title": "x", "polls": ["default", "none"]}, {"polls.1"}),
        ({"title": "x", "polls": ["default", "default"]}, {"polls.1"}),
        ({"title": "x", "polls": ["\x00"]}, {"polls.0"}),
        ({"title": "x", "polls": ["default"] * 101}, {"polls"}),
        ({"title": "x", "host": "y"}, {"host"}),
    ):
        assert wrong_fields(await client.post("/api/sessions", json=body)) == wrong
    for code in ("ACDEFG", "nonsense", "%00", "default"):
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/next"), ("POST", "/host-link")):
            answer = await client.request(method, f"/api/sessions/{code}{path}")
            assert refusal(answer) == (404, "unknown_session")


async def test_stepping_on_closes_the_open_poll_and_ends_after_the_last(client: httpx.AsyncClient) -> None:
    slugs = [await make(client) for _ in range(2)]
    code, _ = await make_session(client, *slugs)
    first = (await client.post(f"/api/sessions/{code}/next")).json()
    assert (first["current"], first["position"]) == (slugs[0], 1)
    await patch(client, slugs[0], state="open")
    second = (await client.post(f"/api/sessions/{code}/next")).json()
    assert (second["current"], second["position"]) == (slugs[1], 2)
    assert [(await shown(client, slug))["state"] for slug in slugs] == ["closed", "draft"]
    await patch(client, slugs[1], state="open")
    assert refusal(await client.post(f"/api/sessions/{code}/next")) == (409, "last_poll")
    assert (await shown(client, slugs[1]))["state"] == "open"


async def test_the_current_poll_is_one_of_the_list(client: httpx.AsyncClient) -> None:
    slug = await make(client)
    code, _ = await make_session(client, slug)
    path = f"/api/sessions/{code}"
    assert wrong_fields(await client.patch(path, json={"current": "default"})) == {"current"}
    assert (await client.patch(path, json={"current": slug})).json()["position"] == 1
    reordered = (await client.patch(path, json={"polls": ["default", slug]})).json()
    assert (reordered["polls"], reordered["position"]) == (["default", slug], 2)
    assert (await client.patch(path, json={"polls": ["default"], "title": "New"})).json()["current"] is None
    assert (await client.patch(path, json={"current": None})).status_code == 200
    changes = [entry["detail"] for entry in (await client.get("/api/audit")).json()["entries"][:2]]
    assert changes == [{"title": "New", "polls": ["default"], "current": None}, {"polls": ["default", slug]}]


async def test_a_deleted_poll_leaves_its_sessions_and_a_deleted_session_its_polls(client: httpx.AsyncClient) -> None:
    slug = await make(client)
    code, _ = await make_session(client, slug, "default")
    await client.post(f"/api/sessions/{code}/next")
    await client.delete(f"/api/polls/{slug}")
    session = (await client.get(f"/api/sessions/{code}")).json()
    assert (session["polls"], session["current"]) == (["default"], None)
    assert (await client.delete(f"/api/sessions/{code}")).status_code == 204
    assert refusal(await client.get(f"/api/sessions/{code}")) == (404, "unknown_session")
    assert (await shown(client, "default"))["sessions"] == []


async def test_people_here_are_those_that_were_seen_within_seconds(admin: Admin, client: httpx.AsyncClient) -> None:
    code, _ = await make_session(client)
    insert = "INSERT INTO audiences VALUES (%s, %s, %s, now() - make_interval(secs => %s))"
    for replica, people, age in (("a", 300, 0), ("b", 200, 3), ("c", 100, 6)):
        admin.owner(insert, code, replica, people, age)
    assert (await client.get(f"/api/sessions/{code}")).json()["people"] == 500
    assert (await client.get("/api/sessions")).json()["sessions"][0]["people"] == 500


async def test_sessions_are_paged_newest_first(client: httpx.AsyncClient) -> None:
    codes = [(await make_session(client))[0] for _ in range(3)]
    page = (await client.get("/api/sessions?limit=2")).json()
    rest = (await client.get(page["next"])).json()
    found = [session["code"] for session in page["sessions"] + rest["sessions"]]
    assert (found, rest["next"]) == ([*reversed(codes)], None)


async def test_a_host_runs_its_own_session_and_nothing_else(admin: Admin, client: httpx.AsyncClient) -> None:
    mine, other = await make(client), await make(client)
    code, token = await make_session(client, mine)
    other_code, _ = await make_session(client, other, mine)
    host = await admin.client(token)
    assert (await shown(host, mine))["sessions"] == [code]
    assert (await host.post(f"/api/sessions/{code}/next")).status_code == 200
    assert (await host.patch(f"/api/sessions/{code}", json={"current": mine})).status_code == 200
    for fields in ({"state": "open"}, {"closes_in": 60}, {"results": "hidden"}, {"state": "closed"}):
        assert (await patch(host, mine, **fields)).status_code == 200
    assert (await host.get(f"/api/polls/{mine}/results.csv")).status_code == 200
    assert (await host.post(f"/api/polls/{mine}/reset")).status_code == 200
    refused = [
        await host.get("/api/polls"),
        await host.post("/api/polls", json={"question": "x", "options": ["a", "b"]}),
        await host.get(f"/api/polls/{other}"),
        await host.get("/api/polls/none"),
        await host.get("/api/polls/%00"),
        await patch(host, other, state="open"),
        await patch(host, mine, question="x"),
        await patch(host, mine, timer=None),
        await host.post(f"/api/polls/{other}/reset"),
        await host.post(f"/api/polls/{mine}/copy"),
        await host.delete(f"/api/polls/{mine}"),
        await host.get(f"/api/polls/{other}/results.json"),
        await host.get("/api/sessions"),
        await host.post("/api/sessions", json={"title": "x"}),
        await host.get(f"/api/sessions/{other_code}"),
        await host.get("/api/sessions/none"),
        await host.post(f"/api/sessions/{other_code}/next"),
        await host.patch(f"/api/sessions/{code}", json={"title": "x"}),
        await host.post(f"/api/sessions/{code}/host-link"),
        await host.delete(f"/api/sessions/{code}"),
        await host.get("/api/audit"),
    ]
    assert [refusal(answer) for answer in refused] == [(403, "host")] * len(refused)
    entries = (await client.get("/api/audit?limit=3")).json()["entries"]
    assert {(entry["actor"], entry["session"]) for entry in entries} == {("host", code)}


async def test_a_replaced_host_link_is_not_valid_any_more(admin: Admin, client: httpx.AsyncClient) -> None:
    code, token = await make_session(client)
    answer = await client.post(f"/api/sessions/{code}/host-link")
    new = answer.json()["host_url"].rpartition("/")[2]
    path = f"/api/sessions/{code}"
    assert refusal(await (await admin.client(token)).get(path)) == (401, "wrong_key")
    assert (await (await admin.client(new)).get(path)).status_code == 200
    await client.delete(path)
    assert refusal(await (await admin.client(new)).get(path)) == (401, "wrong_key")
