"""The limits that settings turn on."""

import contextlib
import json
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.stack import Stack
from tests.e2e.test_accessibility import violations
from tests.waiting import PLAIN, eventually

SETTINGS = {"TRUSTED_PROXIES": "1", "RATE_LIMIT": "0.25", "RATE_BURST": "8", "NEW_VOTERS_PER_HOUR": "3"}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("limited") / "data"
    stack = Stack(folder, workers=1, VIEWERS_PER_ADDRESS="2", MAX_VIEWERS="3", **SETTINGS).start()
    yield stack
    assert stack.stop() == 0


def as_client(address: str, *, untrue: str = "6.6.6.6") -> dict[str, str]:
    """Return the headers of a proxy for a client with a forged address."""
    return {"x-forwarded-for": f"{untrue}, {address}"}


def _use_all_tokens(stack: Stack, address: str) -> None:
    """Ask until there is no token, and none for some seconds."""

    def are_used_up() -> bool:
        answer = httpx.get(stack.vote_url, headers=as_client(address), verify=PLAIN)
        return answer.status_code == 429 and int(answer.headers["retry-after"]) >= 3

    eventually(are_used_up)


def test_an_address_that_asks_too_often_is_told_when_to_come_back_and_others_are_not_held_up(limited: Stack) -> None:
    statuses, headers = [], httpx.Headers()
    known = dict(httpx.get(limited.vote_url, headers=as_client("192.0.2.9")).cookies)
    for number in range(12):
        answer = httpx.get(limited.vote_url, headers=as_client("192.0.2.1", untrue=f"6.6.6.{number}"), cookies=known)
        statuses.append(answer.status_code)
        headers = answer.headers
    assert statuses[:8] == [200] * 8
    assert 429 in statuses
    assert int(headers["retry-after"]) >= 1
    assert httpx.get(limited.vote_url, headers=as_client("192.0.2.2")).status_code == 200
    assert httpx.get(f"{limited.result_url}/", headers=as_client("192.0.2.1")).status_code == 200  # it counts its own
    assert httpx.get(f"{limited.vote_url}/livez", headers=as_client("192.0.2.1")).status_code == 200


def test_one_ipv6_customer_is_one_address(limited: Stack) -> None:
    known = dict(httpx.get(limited.vote_url, headers=as_client("192.0.2.9")).cookies)
    answers = [
        httpx.get(limited.vote_url, headers=as_client(f"2001:db8::{number}"), cookies=known) for number in range(12)
    ]
    assert 429 in {answer.status_code for answer in answers}


def test_an_address_brings_only_so_many_new_voters(limited: Stack) -> None:
    answers = [
        httpx.post(
            limited.vote_url, data={"vote": "a"}, headers=as_client("192.0.2.3") | {"accept": "application/json"}
        )
        for _ in range(4)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[3].headers["retry-after"]) > 600
    again = httpx.post(
        limited.vote_url, data={"vote": "b"}, headers=as_client("192.0.2.3"), cookies=dict(answers[0].cookies)
    )
    assert again.status_code == 200  # known voters may change their votes
    eventually(lambda: limited.tally() == {"a": 2, "b": 1})


def test_viewers_have_their_number_in_all_and_for_each_address(limited: Stack) -> None:
    url = f"ws://127.0.0.1:{limited.result_port}/ws"
    with contextlib.ExitStack() as open_sockets:

        def arrive(address: str) -> None:
            socket_ = open_sockets.enter_context(connect(url, additional_headers=as_client(address)))
            assert socket_.recv(timeout=30)

        arrive("192.0.2.4")
        arrive("192.0.2.4")
        with pytest.raises(InvalidStatus) as refused:
            arrive("192.0.2.4")
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["retry-after"]
        assert refused.value.response.headers["content-type"] == "application/problem+json"
        assert json.loads(refused.value.response.body)["reason"] == "rate_limit"
        arrive("192.0.2.5")
        with pytest.raises(InvalidStatus):
            arrive("192.0.2.6")
    eventually(lambda: _can_watch(url))


def _can_watch(url: str) -> bool:
    with contextlib.suppress(InvalidStatus), connect(url, additional_headers=as_client("192.0.2.7")):
        return True
    return False


def test_a_browser_that_is_told_429_says_so_and_its_vote_arrives_later(
    limited: Stack, open_browser: OpenBrowser
) -> None:
    page = open_browser(extra_http_headers=as_client("192.0.2.8")).new_page()
    page.goto(limited.vote_url)
    _use_all_tokens(limited, "192.0.2.8")
    page.get_by_role("button", name="Cats").click()
    expect(page.get_by_role("status")).to_contain_text("Voting is busy just now.")
    expect(page.get_by_role("status")).to_contain_text("Your vote for Cats is in")
    _use_all_tokens(limited, "192.0.2.8")
    page.goto(limited.vote_url)
    expect(page.locator("h1")).to_have_text("Too many requests")
    assert violations(page) == []


def test_a_browser_that_has_lost_its_cookie_where_new_voters_have_to_wait_says_how_long(
    limited: Stack, open_browser: OpenBrowser
) -> None:
    browser = open_browser(extra_http_headers=as_client("192.0.2.10"))
    page = browser.new_page()
    page.goto(limited.vote_url)
    eventually(lambda: _new_voters_wait(limited, "192.0.2.10"))
    browser.clear_cookies()
    page.get_by_role("button", name="Cats").click()
    expect(page.get_by_role("status")).to_contain_text("You can vote in about 20 minutes.")


def _new_voters_wait(limited: Stack, address: str) -> bool:
    headers = as_client(address) | {"accept": "application/json"}
    return "new_voters" in httpx.get(limited.vote_url, headers=headers).text
