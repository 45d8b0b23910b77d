"""Keys, links and cookies of the admin service."""

import time

import pytest

from tests.integration.admin import BASE, KEY, Admin, guess, make_session, refusal, serving, signed_in
from voting.admin import access

pytestmark = pytest.mark.anyio
NAVIGATION = {"sec-fetch-mode": "navigate", "accept": "text/html"}
SAME_SITE = {"origin": BASE, "sec-fetch-site": "same-origin"}


async def test_without_a_valid_key_everything_is_401(admin: Admin) -> None:
    for path in ("/api/polls", "/api/polls/default", "/api/sessions", "/api/audit", "/api/polls/none/results.csv"):
        answer = await (await admin.client(None)).get(path)
        assert refusal(answer) == (401, "no_key")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        for key in ("wrong", KEY[:-1], KEY + "x", "", "x" * 43, "\xff" * 43):
            headers = {b"authorization": f"Bearer {key}".encode("latin-1")}
            assert refusal(await (await admin.client(None)).get(path, headers=headers)) == (401, "wrong_key")
    basic = {"authorization": f"Basic {KEY}"}
    assert refusal(await (await admin.client(None)).get("/api/polls", headers=basic)) == (401, "wrong_key")
    assert (await (await admin.client(None)).post("/api/polls", content=b"{")).status_code == 401


async def test_the_key_is_accepted_in_the_header_and_in_the_link(admin: Admin) -> None:
    assert (await (await admin.client()).get("/api/polls")).status_code == 200
    browser = await admin.client(None)
    answer = await browser.get(f"/?key={KEY}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("admin=")
    assert KEY not in cookie
    for attribute in ("httponly", "samesite=strict", "path=/", "max-age=2592000"):
        assert attribute in cookie
    assert "secure" not in cookie
    assert (await browser.get("/api/polls")).status_code == 200


async def test_under_https_the_cookie_is_secure(database_url: str) -> None:
    async with serving(database_url, admin_url="https://admin.example.org") as admin:
        answer = await (await admin.client(None)).get(f"/?key={KEY}")
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_the_link_of_a_host_leads_to_the_control_page_of_its_session(admin: Admin) -> None:
    code, token = await make_session(await admin.client(), "default")
    browser = await admin.client(None)
    answer = await browser.get(f"/host/{token}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sessions/{code}/control")
    assert answer.headers["set-cookie"].startswith("host=")
    assert (await browser.get(f"/api/sessions/{code}")).status_code == 200
    assert (await browser.get("/api/polls")).status_code == 403
    assert (await (await admin.client(None)).get(f"/host/{token[:-1]}")).status_code == 401
    for path in ("/host/x", "/host/%00", f"/?key={'x' * 43}", "/?key=%ff"):
        assert (await (await admin.client(None)).get(path)).status_code == 401


async def test_a_forged_or_expired_cookie_is_refused(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = (await signed_in(admin)).cookies["admin"]
    expires, _, signature = cookie.partition(".")
    later = f"{int(expires) + 1}.{signature}"
    for value in (later, f"{expires}.", expires, "x", "9" * 400 + f".{signature}", f"٣.{signature}", ""):
        headers = {b"cookie": f"admin={value}".encode()}
        assert (await (await admin.client(None)).get("/api/polls", headers=headers)).status_code == 401
    headers = {b"cookie": f"admin={cookie}".encode()}
    assert (await (await admin.client(None)).get("/api/polls", headers=headers)).status_code == 200
    month = time.time() + access.COOKIE_SECONDS
    monkeypatch.setattr(time, "time", lambda: month)
    assert refusal(await (await admin.client(None)).get("/api/polls", headers=headers)) == (401, "wrong_key")


async def test_another_key_ends_all_cookies(admin: Admin, database_url: str) -> None:
    cookie = (await signed_in(admin)).cookies["admin"]
    async with serving(database_url, admin_key="another" * 5) as later:
        headers = {"cookie": f"admin={cookie}"}
        assert (await (await later.client(None)).get("/api/polls", headers=headers)).status_code == 401


async def test_changes_with_a_cookie_are_refused_from_other_sites(admin: Admin) -> None:
    browser = await signed_in(admin)
    path = "/api/polls/default/reset"
    for headers in (
        {"origin": "http://evil.test", "sec-fetch-site": "cross-site"},
        {"origin": "http://evil.admin.test"},
        {"origin": f"{BASE}:8080", "sec-fetch-site": "same-site"},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
    ):
        assert refusal(await browser.post(path, headers=headers)) == (403, "cross_site")
        for method in ("PATCH", "DELETE"):
            answer = await browser.request(method, "/api/polls/default", headers=headers)
            assert refusal(answer) == (403, "cross_site")
    for headers in (SAME_SITE, {"origin": "null", "sec-fetch-site": "same-origin"}, {}):
        assert (await browser.post(path, headers=headers)).status_code == 200
    program = await admin.client()
    assert (await program.post(path, headers={"origin": "http://evil.test"})).status_code == 200


async def test_a_visitor_from_another_site_loads_the_page_again_as_its_own(admin: Admin) -> None:
    """The browser sends a Strict cookie only with requests that our own pages cause."""
    visitor = await admin.client(None)
    answer = await visitor.get("/", headers=NAVIGATION | {"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0">' in answer.text
    for site in ("none", "same-origin"):
        assert (await visitor.get("/", headers=NAVIGATION | {"sec-fetch-site": site})).status_code == 401


async def test_after_100_wrong_keys_a_minute_more_get_429_and_the_right_one_is_accepted(database_url: str) -> None:
    async with serving(database_url, trusted_proxies=1) as admin:
        guesser = await admin.client("guess")
        answers = await guess(lambda: guesser.get("/api/polls"))
        assert len(answers) > access.WRONG_KEYS  # some more, as time passes
        assert refusal(answers[-1]) == (429, "rate_limit")
        links = await guess(lambda: guesser.get("/host/" + "x" * 43))
        assert len(links) < access.WRONG_KEYS  # they are counted together
        other = {"x-forwarded-for": "192.0.2.1"}
        assert (await guesser.get("/api/polls", headers=other)).status_code == 401
        assert (await (await admin.client()).get("/api/polls")).status_code == 200
        assert admin.services.metrics.refused_keys._value.get() == len(answers) + len(links) + 1


async def test_keys_are_in_no_log_and_no_answer(admin: Admin, capfd: pytest.CaptureFixture[str]) -> None:
    code, token = await make_session(await admin.client())
    secret = "wrong-secret-" + "s" * 30
    seen = ""
    for path in (f"/?key={secret}", f"/host/{secret}", f"/?key={KEY}", f"/host/{token}", f"/api/sessions/{code}"):
        for key in (KEY, secret, token):
            answer = await (await admin.client(key)).get(path)
            headers = [(name, value) for name, value in answer.headers.items() if name != "set-cookie"]
            seen += f"{answer.text} {headers}"
    seen += "".join(capfd.readouterr())
    for each in (KEY, token, secret):
        assert each not in seen


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE"])
async def test_other_methods_are_405_with_those_that_are_possible(admin: Admin, method: str) -> None:
    client = await admin.client()
    answer = await client.request(method, "/api/polls/default")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, PATCH, DELETE")
    for path in ("/", "/openapi.json", "/docs", "/livez", "/host/x", "/none"):
        assert (await client.request(method, path)).status_code < 500


async def test_an_invalid_host_is_a_400(admin: Admin) -> None:
    answer = await (await admin.client()).get("/api/polls", headers={"host": "a b"})
    assert refusal(answer) == (400, "host")


async def test_the_document_and_its_page_need_no_key(admin: Admin) -> None:
    visitor = await admin.client(None)
    document = (await visitor.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    page = (await visitor.get("/docs")).text
    assert page.count("<pre") == sum(len(methods) for methods in document["paths"].values())
    assert "curl -X POST" in page
    assert "http" not in page.replace("http://admin.test", "").replace("http://www.w3.org/2000/svg", "")
