"""Voting codes in the admin service: who makes them, which list a poll uses, and what the audit log and CSV have."""

import asyncio
import csv
import io
import threading
from typing import Any

import httpx
import pytest

from tests.integration.admin import (
    BASE,
    Admin,
    make,
    make_session,
    patch,
    refusal,
    shown,
    signed_in,
    wrong_fields,
)
from voting.admin import code_cards
from voting.polls.codes import MAX_CHANGES, MAX_SERIAL, BadCode, CodeList, read_code
from voting.web.qr import qr_code

pytestmark = pytest.mark.anyio


async def make_codes(client: httpx.AsyncClient, path: str, count: int) -> list[str]:
    """Make codes for `polls/<slug>` or `sessions/<code>`; return them."""
    answer = await client.post(f"/api/{path}/codes", json={"count": count})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert len(answer.json()["codes"]) == count
    found: list[str] = answer.json()["codes"]
    return found


async def status(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(f"/api/{path}/codes")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def accepted(admin: Admin, slug: str) -> CodeList | None:
    """Return the list that workers publish for a poll."""
    ((found,),) = admin.owner("SELECT published_fields(p) -> 'codes' FROM polls AS p WHERE slug = %s", slug)
    return CodeList.from_dict(found) if found else None


def verdict(codes: CodeList | None, code: str) -> int | str:
    """Return the number of a code, or why it is refused."""
    assert codes
    try:
        return codes.verify(read_code(code.encode()))
    except BadCode as error:
        return error.reason


async def test_codes_are_made_in_order_and_their_list_is_published_for_the_poll(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client, access="code")
    none = {"made": 0, "valid": 0, "revoked": 0, "replaced": 0}
    assert await status(client, f"polls/{slug}") == none | {"poll": slug, "session": None}
    assert accepted(admin, slug) is None
    first = (await client.post(f"/api/polls/{slug}/codes", json={"count": 3})).json()
    assert (first["first"], first["made"], len(set(first["codes"]))) == (1, 3, 3)
    changed = (await shown(client, slug))["changed"]
    more = (await client.post(f"/api/polls/{slug}/codes", json={"count": 2})).json()
    assert (more["first"], more["made"]) == (4, 5)
    codes = accepted(admin, slug)
    assert [verdict(codes, code) for code in first["codes"] + more["codes"]] == [1, 2, 3, 4, 5]
    assert (await shown(client, slug))["changed"] > changed, "workers publish a poll that has changed"


async def test_revoked_and_replaced_codes_are_refused_and_new_ones_are_the_same_voters(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client, access="code")
    codes, path = await make_codes(client, f"polls/{slug}", 5), f"/api/polls/{slug}/codes"
    before = accepted(admin, slug)
    revoked = await client.post(f"{path}/revoke", json={"numbers": [1], "codes": [codes[1].lower().replace("-", " ")]})
    assert (revoked.json()["revoked"], revoked.json()["valid"]) == (2, 3)
    assert [verdict(accepted(admin, slug), code) for code in codes] == ["unknown", "unknown", 3, 4, 5]
    replaced = (await client.post(f"{path}/replace", json={"numbers": [1], "codes": [codes[2]]})).json()
    assert (replaced["numbers"], replaced["revoked"], replaced["replaced"]) == ([3, 1], 1, 2)
    now = accepted(admin, slug)
    assert [verdict(now, code) for code in replaced["codes"]] == [3, 1]
    assert [verdict(now, code) for code in codes] == ["unknown", "unknown", "unknown", 4, 5]
    assert before
    assert now
    assert now.pseudonym(3, b"box") == before.pseudonym(3, b"box")
    again = (await client.post(f"{path}/replace", json={"numbers": [3]})).json()
    assert verdict(accepted(admin, slug), replaced["codes"][0]) == "unknown"
    assert verdict(accepted(admin, slug), again["codes"][0]) == 3


async def test_what_is_named_wrongly_is_refused_with_its_place(client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    path = f"/api/polls/{slug}/codes"
    for action in ("revoke", "replace", "renew"):
        answer = await client.post(f"{path}/{action}", json={"numbers": [1]})
        assert refusal(answer) == (409, "no_codes")
    assert refusal(await client.get(f"{path}.csv")) == (409, "no_codes")
    codes = await make_codes(client, f"polls/{slug}", 2)
    typo = ("0" if codes[0][-1] != "0" else "1").join([codes[0][:-1], ""])
    for body, wrong in (
        ({}, {"numbers"}),
        ({"numbers": [1, 3]}, {"numbers.1"}),
        ({"numbers": [0]}, {"numbers.0"}),
        ({"numbers": ["1"]}, {"numbers.0"}),
        ({"codes": [codes[0], typo, "x", "é" * 16]}, {"codes.1", "codes.2", "codes.3"}),
        ({"numbers": [1] * (MAX_CHANGES + 1)}, {"numbers"}),
    ):
        answer = await client.post(f"{path}/revoke", json=body)
        assert wrong_fields(answer) == wrong
        assert typo not in answer.text
    for count in (0, -1, MAX_SERIAL + 1, "5", 1.5, None):
        assert wrong_fields(await client.post(path, json={"count": count})) == {"count"}
    assert wrong_fields(await client.get(f"{path}.csv?first=3")) == {"first"}
    for unknown, reason in (("polls/none", "unknown_poll"), ("sessions/ACDEFG", "unknown_session")):
        answer = await client.post(f"/api/{unknown}/codes", json={"count": 1})
        assert refusal(answer) == (404, reason)
        assert refusal(await client.get(f"/api/{unknown}/codes")) == (404, reason)
    assert (await status(client, f"polls/{slug}"))["revoked"] == 0


async def test_a_list_has_a_largest_size_and_a_largest_number_of_changes(client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    path = f"/api/polls/{slug}/codes"
    assert len(await make_codes(client, f"polls/{slug}", MAX_SERIAL - 1)) == MAX_SERIAL - 1
    full = await client.post(path, json={"count": 2})
    assert refusal(full) == (409, "too_many_codes")
    assert " 1 more" in full.json()["detail"]
    await make_codes(client, f"polls/{slug}", 1)
    most = [*range(1, MAX_CHANGES + 1)]
    assert (await client.post(f"{path}/revoke", json={"numbers": most})).json()["revoked"] == MAX_CHANGES
    assert refusal(await client.post(f"{path}/replace", json={"numbers": [MAX_SERIAL]})) == (409, "too_many_changes")
    assert (await client.post(f"{path}/replace", json={"numbers": [1]})).status_code == 200
    renewed = (await client.post(f"{path}/renew")).json()
    assert (renewed["made"], renewed["valid"], renewed["replaced"]) == (MAX_SERIAL, MAX_SERIAL, 0)


async def test_a_new_key_refuses_every_old_code_and_waits_until_no_poll_is_open(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug, other = await make(client, access="code"), await make(client, access="code")
    session, _ = await make_session(client, slug, other)
    old = await make_codes(client, f"sessions/{session}", 2)
    await patch(client, other, state="open")
    path = f"/api/sessions/{session}/codes"
    assert refusal(await client.post(f"{path}/renew")) == (409, "codes_in_use")
    assert [verdict(accepted(admin, slug), code) for code in old] == [1, 2]
    await patch(client, other, state="closed")
    assert (await client.post(f"{path}/renew")).status_code == 200
    assert [verdict(accepted(admin, slug), code) for code in old] == ["unknown", "unknown"]
    new = list(csv.reader(io.StringIO((await client.get(f"{path}.csv")).text)))[1:]
    assert [verdict(accepted(admin, other), row[1]) for row in new] == [1, 2]


async def test_the_polls_of_a_session_use_its_codes_and_a_poll_has_one_list(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slugs = [await make(client, access="code") for _ in range(3)]
    session, _ = await make_session(client, slugs[0])
    codes = await make_codes(client, f"sessions/{session}", 2)
    assert (await status(client, f"polls/{slugs[0]}"))["session"] == session
    for body, path in (
        ({"count": 1}, "codes"),
        ({"numbers": [1]}, "codes/revoke"),
        ({"numbers": [1]}, "codes/replace"),
        ({}, "codes/renew"),
    ):
        answer = await client.post(f"/api/polls/{slugs[0]}/{path}", json=body)
        assert refusal(answer) == (409, "session_codes")
        assert session in answer.json()["detail"]
    assert refusal(await client.get(f"/api/polls/{slugs[0]}/codes.csv")) == (409, "session_codes")

    add = {"polls": slugs[:2]}
    assert (await client.patch(f"/api/sessions/{session}", json=add)).status_code == 200
    assert [verdict(accepted(admin, slug), codes[1]) for slug in slugs[:2]] == [2, 2]
    before = [(await shown(client, slug))["changed"] for slug in slugs[:2]]
    assert (await client.patch(f"/api/sessions/{session}", json={"title": "Evening"})).status_code == 200
    assert [(await shown(client, slug))["changed"] for slug in slugs[:2]] == before, "they are not published again"
    own = await make_codes(client, f"polls/{slugs[2]}", 1)
    answer = await client.patch(f"/api/sessions/{session}", json={"polls": slugs})
    assert refusal(answer) == (409, "poll_codes")
    assert slugs[2] in answer.json()["detail"]
    second, _ = await make_session(client, slugs[2])
    assert refusal(await client.post(f"/api/sessions/{second}/codes", json={"count": 1})) == (409, "poll_codes")
    third, _ = await make_session(client, slugs[0])
    answer = await client.post(f"/api/sessions/{third}/codes", json={"count": 1})
    assert refusal(answer) == (409, "session_codes")
    assert verdict(accepted(admin, slugs[2]), own[0]) == 1

    empty, _ = await make_session(client)
    await make_codes(client, f"sessions/{empty}", 1)
    answer = await client.patch(f"/api/sessions/{empty}", json={"polls": [slugs[1]]})
    assert refusal(answer) == (409, "session_codes")
    copy = (await client.post(f"/api/polls/{slugs[2]}/copy")).json()["slug"]
    assert (await client.patch(f"/api/sessions/{empty}", json={"polls": [copy]})).status_code == 200


async def test_a_poll_that_is_open_keeps_its_list(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    session, _ = await make_session(client, slug)
    (code,) = await make_codes(client, f"sessions/{session}", 1)
    await patch(client, slug, state="open")
    for answer in (
        await client.patch(f"/api/sessions/{session}", json={"polls": []}),
        await client.delete(f"/api/sessions/{session}"),
    ):
        assert refusal(answer) == (409, "codes_in_use")
    assert verdict(accepted(admin, slug), code) == 1
    await patch(client, slug, state="closed")
    assert (await client.delete(f"/api/sessions/{session}")).status_code == 204
    assert accepted(admin, slug) is None


async def test_a_poll_with_codes_is_opened_only_when_there_are_some(client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    answer = await patch(client, slug, state="open")
    assert refusal(answer) == (409, "no_codes")
    assert (await shown(client, slug))["state"] == "draft"
    assert refusal(await patch(client, await make(client), access="code", state="open")) == (409, "no_codes")
    await make_codes(client, f"polls/{slug}", 1)
    assert (await patch(client, slug, state="open")).status_code == 200
    assert refusal(await patch(client, slug, access="open")) == (409, "not_draft")
    plain = await make(client)
    assert refusal(await client.post(f"/api/polls/{plain}/codes", json={"count": 1})) == (409, "not_with_codes")
    await patch(client, plain, state="open")
    assert refusal(await patch(client, plain, access="code")) == (409, "not_draft")
    assert (await patch(client, plain, access="browser")).status_code == 200


async def test_a_copy_has_no_codes_a_reset_keeps_them_and_a_deletion_deletes_them(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client, access="code")
    (code,) = await make_codes(client, f"polls/{slug}", 1)
    copy = (await client.post(f"/api/polls/{slug}/copy")).json()
    assert copy["access"] == "code"
    assert (await status(client, f"polls/{copy['slug']}"))["made"] == 0
    await patch(client, slug, state="open")
    await client.post(f"/api/polls/{slug}/reset")
    assert (await patch(client, slug, state="open")).status_code == 200
    assert verdict(accepted(admin, slug), code) == 1
    assert (await client.delete(f"/api/polls/{slug}")).status_code == 204
    assert admin.owner("SELECT owner FROM code_lists") == []


async def test_two_requests_at_once_make_different_codes(client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    made = await asyncio.gather(*(make_codes(client, f"polls/{slug}", 20) for _ in range(2)))
    assert len({*made[0], *made[1]}) == 40
    assert (await status(client, f"polls/{slug}"))["made"] == 40


async def test_two_requests_at_once_do_not_give_a_poll_two_lists(client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    session, _ = await make_session(client, slug)
    paths = (f"polls/{slug}", f"sessions/{session}")
    answers = await asyncio.gather(*(client.post(f"/api/{path}/codes", json={"count": 1}) for path in paths))
    assert sorted(answer.status_code for answer in answers) == [201, 409]


async def test_the_host_of_a_session_neither_sees_nor_makes_codes(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    session, token = await make_session(client, slug)
    await make_codes(client, f"sessions/{session}", 1)
    host = await admin.client(token)
    for owner in (f"polls/{slug}", f"sessions/{session}"):
        for method, path, body in (
            ("GET", f"/api/{owner}/codes", None),
            ("GET", f"/api/{owner}/codes.csv", None),
            ("POST", f"/api/{owner}/codes", {"count": 1}),
            ("POST", f"/api/{owner}/codes/revoke", {"numbers": [1]}),
            ("POST", f"/api/{owner}/codes/replace", {"numbers": [1]}),
            ("POST", f"/api/{owner}/codes/renew", None),
        ):
            assert refusal(await host.request(method, path, json=body)) == (403, "host")
    browser = await admin.client(None)
    await browser.get(f"/host/{token}")
    for owner in (f"polls/{slug}", f"sessions/{session}"):
        assert (await browser.get(f"/{owner}/codes")).status_code == 403
        assert (await browser.get(f"/{owner}/codes/cards")).status_code == 403
        answer = await browser.post(f"/{owner}/codes", data={"do": "make", "count": "1"}, headers={"origin": BASE})
        assert answer.status_code == 403
    assert (await status(client, f"sessions/{session}"))["made"] == 1


async def test_the_audit_log_has_numbers_and_neither_a_code_nor_a_key(admin: Admin, client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    codes, path = await make_codes(client, f"polls/{slug}", 12), f"/api/polls/{slug}/codes"
    browser = await signed_in(admin)
    await client.post(f"{path}/revoke", json={"numbers": [2, 3, 4], "codes": [codes[8]]})
    codes += (await client.post(f"{path}/replace", json={"numbers": [2]})).json()["codes"]
    codes += [row["code"] for row in csv.DictReader(io.StringIO((await client.get(f"{path}.csv?first=2&last=6")).text))]
    page = await browser.get(f"/polls/{slug}/codes/cards?first=8&last=10")
    assert codes[7] in page.text
    assert codes[8] not in page.text, "a revoked code is not printed"
    assert page.headers["cache-control"] == "no-store"
    await client.post(f"{path}/revoke", json={"numbers": [3]})  # changes nothing
    entries = (await client.get("/api/audit?limit=100")).json()["entries"]
    assert [(each["action"], each["detail"].get("numbers")) for each in entries if each["action"] != "create"] == [
        ("codes_shown", "8, 10"),
        ("codes_shown", "2, 5-6"),
        ("codes_shown", "2"),
        ("replace_codes", "2"),
        ("revoke_codes", "2-4, 9"),
        ("codes_shown", "1-12"),
        ("make_codes", "1-12"),
    ]
    assert {each["poll"] for each in entries} == {slug}
    ((key,),) = admin.owner("SELECT key FROM code_lists")
    log = str(admin.owner("SELECT audit::text FROM audit"))
    assert not [secret for secret in (key, *codes, *(code.replace("-", "") for code in codes)) if secret in log]
    page = await browser.get("/audit")
    assert "Voting codes shown" in page.text


async def test_the_csv_has_the_link_of_each_valid_code(client: httpx.AsyncClient) -> None:
    slug = await make(client, access="code")
    session, _ = await make_session(client, await make(client))
    for owner, url in (
        (f"polls/{slug}", f"http://admin.test:8080/p/{slug}"),
        (f"sessions/{session}", f"http://admin.test:8080/{session}"),
    ):
        codes = await make_codes(client, owner, 3)
        await client.post(f"/api/{owner}/codes/revoke", json={"numbers": [2]})
        answer = await client.get(f"/api/{owner}/codes.csv")
        assert answer.content.startswith(b"\xef\xbb\xbfnumber,code,link\r\n")
        assert answer.headers["cache-control"] == "no-store"
        assert "attachment" in answer.headers["content-disposition"]
        rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))[1:]
        assert rows == [["1", codes[0], f"{url}#code={codes[0]}"], ["3", codes[2], f"{url}#code={codes[2]}"]]


async def test_a_form_that_is_sent_twice_or_is_out_of_date_changes_nothing(
    admin: Admin, client: httpx.AsyncClient
) -> None:
    slug = await make(client, access="code")
    browser, path = await signed_in(admin), f"/polls/{slug}/codes"
    browser.headers["origin"] = BASE

    def field(page: str, name: str) -> str:
        return page.partition(f'name="{name}" value="')[2].partition('"')[0]

    page = (await browser.get(path)).text
    form = {"do": "make", "count": "4", "seen": field(page, "seen"), "made": field(page, "made")}
    for _ in range(2):
        answer = await browser.post(path, data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?done=make&numbers=1-4")
    assert (await browser.post(path, data=form | {"count": "5"})).status_code == 412
    assert (await status(client, f"polls/{slug}"))["made"] == 4

    asked = await browser.post(path, data={"do": "replace", "which": "2, 4"})
    assert (await status(client, f"polls/{slug}"))["replaced"] == 0, "it is asked back first"
    form = {"do": "replace", "sure": "yes", "which": field(asked.text, "which"), "seen": field(asked.text, "seen")}
    assert (await browser.post(path, data=form)).status_code == 303
    assert (await browser.post(path, data=form)).status_code == 412
    codes = (await client.get(f"/api/polls/{slug}/codes.csv")).text
    many = "1-32767," * 8000  # would be 262 million numbers
    for action, which in (("revoke", "9"), ("revoke", ""), ("replace", "x"), ("make", ""), ("revoke", many)):
        answer = await browser.post(path, data={"do": action, "which": which, "seen": "none"})
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text
    assert (await browser.post(path, data={"do": "dance"})).status_code == 422
    assert (await client.get(f"/api/polls/{slug}/codes.csv")).text == codes


async def test_cards_are_shown_in_parts_and_do_not_block_the_event_loop(
    admin: Admin, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = await make(client, access="code", question="<b>Bold?</b>")
    codes = await make_codes(client, f"polls/{slug}", 50)
    monkeypatch.setattr(code_cards, "CARDS", 20)
    threads: set[int] = set()

    def note_thread(url: str) -> str:
        threads.add(threading.get_ident())
        return qr_code(url)

    monkeypatch.setattr(code_cards, "qr_code", note_thread)
    browser, path = await signed_in(admin), f"/polls/{slug}/codes/cards"
    page = (await browser.get(f"{path}?first=11")).text
    assert threads
    assert threading.get_ident() not in threads, "QR codes of a page take seconds: they are made in another thread"
    assert page.count('<li class="card">') == page.count("<svg") == 20
    assert page.count('<ul class="sheet"') == 3
    assert codes[10] in page
    assert codes[29] in page
    assert codes[30] not in page
    assert f"{path}?first=1&amp;last=10" in page
    assert f"{path}?first=31&amp;last=50" in page
    assert "&lt;b&gt;Bold?" in page
    for wrong in ("first=x", "first=51", "last=0", "first=9&last=8"):
        assert (await browser.get(f"{path}?{wrong}")).status_code == 422
