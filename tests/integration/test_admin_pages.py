"""The pages of the admin service without a browser: signing in, paging, languages, what a host may see."""

import pytest

from tests.integration.admin import KEY, Admin, guess, signed_in
from voting.admin.access import WRONG_KEYS

pytestmark = pytest.mark.anyio


async def test_the_first_page_says_what_to_do_first(admin: Admin) -> None:
    browser = await signed_in(admin)
    assert "Make your first poll" in (await browser.get("/")).text
    form = {"question": "Mine?", "kind": "single", "option": ["Yes", "No"], "do": "save"}
    assert (await browser.post("/polls/new", data=form)).status_code == 303
    page = (await browser.get("/")).text
    assert "Make your first poll" not in page
    assert "Mine?" in page


async def test_lists_are_paged_and_what_is_open_comes_first(admin: Admin) -> None:
    client = await admin.client()
    first = ""
    for number in range(25):
        fields = {"question": f"Number {number}", "options": ["Yes", "No"]}
        made = (await client.post("/api/polls", json=fields)).json()
        first = first or made["slug"]
    await client.patch(f"/api/polls/{first}", json={"state": "open"})
    page = (await client.get("/")).text
    assert page.index("Number 0") < page.index("Number 24")
    older = page.partition('href="/?after=')[2].partition('"')[0]
    rest = (await client.get(f"/?after={older}")).text
    assert "Number 4<" in rest
    assert "Number 5<" not in rest
    for _ in range(30):
        await client.patch(f"/api/polls/{first}", json={"results": "hidden"})
        await client.patch(f"/api/polls/{first}", json={"results": "live"})
    log = (await client.get("/audit")).text
    assert "Voting opened" not in log
    older = log.partition('href="/audit?after=')[2].partition('"')[0]
    assert "Voting opened" in (await client.get(f"/audit?after={older}")).text
    assert (await client.get("/?after=nonsense")).status_code == 422


async def test_after_many_wrong_keys_the_form_answers_429(admin: Admin) -> None:
    browser = await admin.client(None)
    answers = await guess(lambda: browser.post("/sign-in", data={"key": "wrong"}))
    assert len(answers) > WRONG_KEYS
    accepted = await browser.post("/sign-in", data={"key": KEY})  # the host may have the address of a guesser
    assert (accepted.status_code, accepted.headers["location"]) == (303, "/")
    assert KEY not in accepted.headers["set-cookie"]


async def test_without_a_key_every_page_is_401_with_the_form_to_sign_in(admin: Admin) -> None:
    browser = await admin.client(None)
    for path in ("/", "/polls/new", "/polls/default", "/polls/default/control", "/polls/default/print", "/audit"):
        answer = await browser.get(path)
        assert answer.status_code == 401
        assert 'action="/sign-in"' in answer.text
    assert (await browser.post("/polls/default/control", data={"do": "close"})).status_code == 401


async def test_the_language_of_the_address_is_stored(admin: Admin) -> None:
    browser = await signed_in(admin)
    answer = await browser.get("/?lang=ar")
    assert 'dir="rtl"' in answer.text
    assert "lang=ar" in answer.headers["set-cookie"]
    assert answer.headers["content-language"] == "ar"


async def test_the_default_poll_says_that_settings_define_it(admin: Admin) -> None:
    browser = await signed_in(admin)
    page = (await browser.get("/polls/default")).text
    assert "POLL_QUESTION" in page
    assert 'name="question"' not in page
    assert (await browser.post("/polls/default/delete")).status_code == 409
    saved = await browser.post("/polls/default", data={"results": "hidden", "do": "save"})
    assert saved.status_code == 303
    assert admin.owner("SELECT results FROM polls WHERE slug = 'default'") == [("hidden",)]


@pytest.mark.parametrize(
    "body", [b"do=open&" * 300, b"do=%ff%fe", b"do=show", b"\xff\x00", b"do=more&closes_at=9999-12-31T23:59:59"]
)
async def test_no_form_is_a_server_error(admin: Admin, body: bytes) -> None:
    client = await admin.client()
    code = (await client.post("/api/sessions", json={"title": "All", "polls": ["default"]})).json()["code"]
    form = {"content-type": "application/x-www-form-urlencoded"}
    paths = ["/polls/new", "/polls/default", "/polls/default/control", "/polls/default/reset", "/sessions/new"]
    for path in [*paths, f"/sessions/{code}", f"/sessions/{code}/control", "/sessions/nothing", "/polls/no-such/reset"]:
        assert (await client.post(path, content=body, headers=form)).status_code < 500, path
        assert (await client.post(path, content=body, headers={"content-type": "text/plain"})).status_code == 415


async def test_a_refused_form_keeps_the_version_that_its_author_has_seen(admin: Admin) -> None:
    """Else the next try would overwrite what somebody else has changed meanwhile."""
    client = await admin.client()
    made = (await client.post("/api/polls", json={"question": "Tea?", "options": ["Yes", "No"]})).json()
    await client.patch(f"/api/polls/{made['slug']}", json={"results": "hidden"})
    form = {"question": "", "kind": "single", "option": ["Yes", "No"], "do": "save", "changed": str(made["changed"])}
    refused = await client.post(f"/polls/{made['slug']}", data=form)
    assert refused.status_code == 422
    assert f'name="changed" value="{made["changed"]}"' in refused.text
    again = await client.post(f"/polls/{made['slug']}", data=form | {"question": "Coffee?"})
    assert again.status_code == 412
