"""The vote service over HTTP, as browsers, programs and attackers use it."""

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.e2e.stack import Stack
from tests.waiting import eventually

FORM = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"accept": "application/json"}


@pytest.fixture
def browser(stack: Stack) -> Iterator[httpx.Client]:
    """A client with a cookie jar of its own."""
    with httpx.Client(base_url=stack.vote_url) as client:
        yield client


def test_the_page_shows_the_question_and_every_option_and_works_as_a_plain_form(browser: httpx.Client) -> None:
    page = browser.get("/")
    assert page.status_code == 200
    for expected in ("Cats or dogs?", "Cats", "Dogs", 'method="post"', 'value="a"', 'value="b"'):
        assert expected in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_a_vote_is_answered_with_the_page_that_shows_it_and_is_counted(stack: Stack, browser: httpx.Client) -> None:
    before = stack.settled_tally()
    answer = browser.post("/", data={"vote": "b"})
    assert answer.status_code == 200
    assert "Your vote for <bdi>Dogs</bdi> is in." in answer.text
    eventually(lambda: stack.tally() == before | {"b": before["b"] + 1})


def test_a_program_gets_json_with_the_receipt(stack: Stack) -> None:
    answer = httpx.post(stack.vote_url, data={"vote": "a"}, headers=JSON)
    assert answer.json().keys() == {"poll", "choice", "receipt"}
    assert answer.json()["choice"] == "a"
    milliseconds, _, sequence = answer.json()["receipt"].partition("-")
    assert int(milliseconds) > 1_700_000_000_000
    assert int(sequence) >= 0


def test_voting_again_from_one_browser_replaces_the_vote_and_from_another_adds_one(
    stack: Stack, browser: httpx.Client
) -> None:
    before = stack.settled_tally()
    browser.post("/", data={"vote": "a"})
    browser.post("/", data={"vote": "b"})
    httpx.post(stack.vote_url, data={"vote": "b"})
    eventually(lambda: stack.tally() == before | {"b": before["b"] + 2})


def test_the_first_page_already_names_the_browser(browser: httpx.Client) -> None:
    assert "voter_id" in browser.get("/").cookies
    assert "set-cookie" not in browser.post("/", data={"vote": "a"}).headers
    assert "set-cookie" not in browser.get("/").headers


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("no vote at all", {"content": b"", "headers": FORM}, 400),
    ("another field", {"data": {"choice": "a"}}, 400),
    ("an empty choice", {"data": {"vote": ""}}, 400),
    ("no such option", {"data": {"vote": "c"}}, 400),
    ("NUL", {"content": b"vote=%00", "headers": FORM}, 400),
    ("two choices", {"content": b"vote=a&vote=b", "headers": FORM}, 400),
    ("invalid UTF-8", {"content": b"vote=\xff\xfe", "headers": FORM}, 400),
    ("invalid percent", {"content": b"vote=%f", "headers": FORM}, 400),
    ("300 characters", {"data": {"vote": "a" * 300}}, 400),
    ("5 KiB", {"data": {"vote": "a" * 5120}}, 413),
    ("1 MiB", {"data": {"vote": "a" * 2**20}}, 413),
    ("5 KiB without a length", {"content": iter([b"vote=a&x=" + b"y" * 5120]), "headers": FORM}, 413),
    ("a file upload", {"files": {"vote": b"a"}}, 415),
    ("JSON", {"json": {"vote": ["a"]}}, 415),
    ("no type", {"content": b"vote=a"}, 415),
]


@pytest.mark.parametrize(("request_", "status"), [pytest.param(r, s, id=name) for name, r, s in BAD])
def test_bad_input_gets_a_helpful_no_and_nothing_is_counted(
    stack: Stack, request_: dict[str, Any], status: int
) -> None:
    eventually(stack.drained)
    before = stack.broker().xinfo_stream("votes")["entries-added"]
    headers = JSON | request_.pop("headers", {})
    answer = httpx.post(stack.vote_url, headers=headers, **request_)
    assert answer.status_code == status
    assert answer.json()["status"] == status
    assert len(answer.json()["detail"]) > 20
    assert stack.broker().xinfo_stream("votes")["entries-added"] == before
    assert httpx.post(stack.vote_url, data={"vote": "a"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_a_vote_that_another_site_sends_is_refused(stack: Stack, headers: dict[str, str]) -> None:
    before = stack.broker().xinfo_stream("votes")["entries-added"]
    answer = httpx.post(stack.vote_url, data={"vote": "a"}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert stack.broker().xinfo_stream("votes")["entries-added"] == before


def test_a_forged_cookie_never_overwrites_anothers_vote(stack: Stack, browser: httpx.Client) -> None:
    browser.post("/", data={"vote": "a"})
    own = browser.cookies["voter_id"]
    before = stack.settled_tally()
    another_id = ("x" if own[0] != "x" else "y") + own[1:]
    another_signature = own[:-3] + ("AAA" if own[-3] != "A" else "BAA")
    another_time = own[:24] + ("x" if own[24] != "x" else "y") + own[25:]
    forgeries = [another_signature, own[:22], another_id, another_time, own[:-1] + "!", "", "\xe9"]
    for number, forged in enumerate(forgeries, 1):
        answer = httpx.post(
            stack.vote_url, data={"vote": "b"}, headers=[(b"cookie", f"voter_id={forged}".encode("latin-1"))]
        )
        assert answer.status_code == 200
        assert "voter_id" in answer.cookies
        expected = before | {"b": before["b"] + number}
        eventually(lambda expected=expected: stack.tally() == expected)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/p/no-such-poll", 404),
        ("POST", "/p/no-such-poll", 404),
        ("PUT", "/", 405),
        ("DELETE", "/", 405),
    ],
)
def test_an_unknown_path_or_method_is_answered_in_the_sites_own_page_or_json(
    stack: Stack, method: str, path: str, status: int
) -> None:
    page = httpx.request(method, stack.vote_url + path)
    assert page.status_code == status
    assert "<!doctype html>" in page.text
    assert "style-" in page.text
    answer = httpx.request(method, stack.vote_url + path, headers=JSON)
    assert answer.json()["status"] == status


def test_the_metrics_are_not_on_the_public_port(stack: Stack) -> None:
    for url in (stack.vote_url, stack.result_url):
        assert httpx.get(f"{url}/metrics").status_code == 404
        assert httpx.get(f"{url}/livez").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 200


def test_assets_carry_their_fingerprint_and_are_kept_for_a_year(browser: httpx.Client) -> None:
    page = browser.get("/").text
    names = [part.split('"')[0] for part in page.split('"/static/')[1:]]
    assert len(names) == 5
    for name in names:
        asset = browser.get(f"/static/{name}")
        assert asset.status_code == 200
        assert "max-age=31536000" in asset.headers["cache-control"]
    assert browser.get("/static/style.css").status_code == 404


def test_the_two_pages_lead_to_each_other(stack: Stack) -> None:
    there = httpx.get(f"{stack.vote_url}/results")
    assert there.headers["location"] == f"{stack.result_url}/"
    back = httpx.get(f"{stack.result_url}/vote")
    assert back.headers["location"] == f"{stack.vote_url}/"


@pytest.mark.parametrize("host", ["[", "x:y:z", "", "\xff", "a" * 5000, "evil.example@localhost"])
def test_a_host_that_makes_no_sense_is_never_an_error_of_ours(stack: Stack, host: str) -> None:
    statuses = {
        f"{stack.vote_url}/results": 400,
        f"{stack.vote_url}/results/": 404,
        f"{stack.vote_url}/": 200,
        f"{stack.result_url}/vote": 400,
        f"{stack.result_url}/present": 400,
        f"{stack.result_url}/": 200,
    }
    for url, status in statuses.items():
        answer = httpx.get(url, headers=[(b"host", host.encode("latin-1"))])
        assert answer.status_code == status, (url, answer.text)


def test_a_program_of_http_1_0_names_no_host_and_is_answered(stack: Stack) -> None:
    for port, path, status in (
        (stack.vote_port, "/", 200),
        (stack.vote_port, "/readyz", 200),
        (stack.vote_port, "/results", 400),
        (stack.result_port, "/", 200),
        (stack.result_port, "/present", 400),
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert client.makefile("rb").readline().split()[1] == str(status).encode(), path


def test_a_second_poll_needs_no_more_than_its_definition(stack: Stack) -> None:
    with psycopg.connect(stack.state["database_url"]) as connection:
        options = '[{"key": "a", "label": "Soup"}, {"key": "b", "label": "Salad"}]'
        connection.execute("INSERT INTO polls (slug, question, options) VALUES ('lunch', 'Lunch?', %s)", [options])
    eventually(lambda: httpx.get(f"{stack.vote_url}/p/lunch").status_code == 200)
    before = stack.settled_tally()
    assert "Your vote for <bdi>Soup</bdi>" in httpx.post(f"{stack.vote_url}/p/lunch", data={"vote": "a"}).text

    def counted() -> bool:
        found = httpx.get(f"{stack.result_url}/p/lunch/api/results").raise_for_status().json()
        return bool(found["total"] == 1 and found["question"] == "Lunch?")

    eventually(counted)
    assert stack.tally() == before
    assert httpx.get(f"{stack.result_url}/p/lunch").status_code == 200
    stack.rows(
        "WITH d AS (DELETE FROM tallies WHERE poll = 'lunch'), v AS (DELETE FROM votes WHERE poll = 'lunch') SELECT 1"
    )
