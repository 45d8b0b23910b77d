"""Ballots follow the poll and the session: over the WebSocket of the result service, and without it."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, Route, WebSocketRoute, expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.polls import change_poll, execute, make_poll, make_session, step
from tests.e2e.stack import Stack
from tests.waiting import eventually

SOCKET = re.compile(r"/ws\?view=ballot$")


def open_page(stack: Stack, browser: BrowserContext, path: str) -> Page:
    """Open a ballot as soon as it is published."""
    eventually(lambda: httpx.get(stack.vote_url + path).status_code == 200)
    page = browser.new_page()
    page.goto(stack.vote_url + path)
    return page


def question(page: Page, text: str) -> None:
    expect(page.get_by_role("heading")).to_have_text(text)


def test_a_ballot_changes_by_itself_when_the_poll_opens_closes_and_is_reset(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    page = open_page(stack, open_browser(), make_poll(stack, "f-states", state="draft"))
    expect(page.locator("#page")).to_contain_text("Voting has not opened yet.")
    change_poll(stack, "f-states", "state = 'open'")
    page.get_by_role("button", name="Soup").click()
    expect(page.locator("#status")).to_contain_text("Your vote for Soup is in")
    change_poll(stack, "f-states", "state = 'closed'")
    expect(page.locator("#page")).to_contain_text("Voting is closed.")
    expect(page.locator("#status")).to_have_text("Your vote: Soup")
    change_poll(stack, "f-states", "state = 'draft', round = 2")
    expect(page.locator("#page")).to_contain_text("Voting has not opened yet.")
    change_poll(stack, "f-states", "state = 'open'")
    expect(page.get_by_role("button", name="Soup")).to_have_attribute("aria-pressed", "false")
    execute(stack, "DELETE FROM polls WHERE slug = 'f-states'")
    expect(page.get_by_role("heading")).to_have_text("Page not found")


def test_a_phone_follows_the_session(stack: Stack, open_browser: OpenBrowser) -> None:
    for slug in ("f-one", "f-two"):
        make_poll(stack, slug, "ranking")
    code = make_session(stack, "f-one", "f-two")
    page = open_page(stack, open_browser(), f"/{code.lower()}")
    question(page, "Waiting for the next question")
    step(stack, code, "f-one")
    question(page, "The question of f-one?")
    expect(page.locator(".kicker")).to_have_text("All hands · Question 1 of 2")
    page.get_by_role("button", name="Cake").click()
    page.get_by_role("button", name="Send your vote").click()
    expect(page.locator("#status")).to_contain_text("Your vote is in")
    page.get_by_role("button", name="Cake").focus()
    step(stack, code, "f-two")
    question(page, "The question of f-two?")
    expect(page.get_by_role("heading")).to_be_focused()
    expect(page.locator(".ranks [aria-pressed=true]")).to_have_count(0)
    expect(page.locator("#notice")).to_have_text(re.compile("The question of f-two"))
    assert page.title() == "The question of f-two?"
    step(stack, code, None)
    question(page, "Waiting for the next question")


def test_what_is_being_chosen_stays_when_only_the_time_changes(stack: Stack, open_browser: OpenBrowser) -> None:
    page = open_page(stack, open_browser(), make_poll(stack, "f-time", "multiple"))
    page.get_by_label("Salad").check()
    change_poll(stack, "f-time", "closes_at = now() + interval '50 seconds'")
    expect(page.locator("#due")).to_have_text(re.compile(r"Closes in .?0:[34]\d"))
    expect(page.get_by_label("Salad")).to_be_checked()
    change_poll(stack, "f-time", "results = 'hidden'")
    expect(page.locator("#after")).to_have_text("The host shows the result.")
    expect(page.get_by_label("Salad")).to_be_checked()


@pytest.mark.parametrize("hours", [-30, 5])
def test_the_countdown_is_right_on_a_phone_whose_clock_is_wrong(
    stack: Stack, open_browser: OpenBrowser, hours: int
) -> None:
    slug = f"f-clock{abs(hours)}"
    path = make_poll(stack, slug)
    change_poll(stack, slug, "closes_at = now() + interval '20 seconds'")
    eventually(lambda: "Closes:" in httpx.get(stack.vote_url + path).text)
    page = open_browser().new_page()
    page.clock.install(time=time.time() + 3600 * hours)
    page.goto(stack.vote_url + path)
    expect(page.locator("#due")).to_have_text(re.compile(r"Closes in .?0:[01]\d"))
    expect(page.locator("#page")).to_contain_text("Voting is closed.", timeout=60_000)


Frames = Callable[..., None]


def with_socket(page: Page) -> Frames:
    """Take the place of the result service; return a function that sends a frame to the page."""
    routes: list[WebSocketRoute] = []
    page.route_web_socket(SOCKET, lambda route: routes.append(route))  # noqa: PLW0108 - Playwright marks its handler

    def send(**frame: Any) -> None:
        expect(page.locator("#page")).to_be_attached()
        routes[-1].send(json.dumps(frame))

    return send


def test_what_a_frame_says_is_shown_at_once_and_an_older_page_is_fetched_again(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    path = make_poll(stack, "f-frame")
    eventually(lambda: httpx.get(stack.vote_url + path).status_code == 200)
    page = open_browser().new_page()
    send = with_socket(page)
    page.goto(stack.vote_url + path)
    version = int(page.get_attribute("#page", "data-version") or 0)
    old = page.content()
    fetched: list[int] = []

    def answer_with_the_old_page(route: Route) -> None:
        if route.request.resource_type == "fetch" and len(fetched) < 4:
            fetched.append(1)
            route.fulfill(body=old, content_type="text/html")
        else:
            route.continue_()

    page.route("**/p/f-frame", answer_with_the_old_page)
    send(poll="f-frame", round=1, version=version, state="open")
    change_poll(stack, "f-frame", "state = 'closed'")
    eventually(lambda: "Voting is closed" in httpx.get(stack.vote_url + path).text)
    send(poll="f-frame", round=1, version=version + 1, state="closed")
    expect(page.get_by_role("button", name="Soup")).to_be_disabled()
    expect(page.locator("#notice")).to_have_text("Voting is closed.")
    expect(page.locator("#page .state-card")).to_have_text("Voting is closed.")
    assert len(fetched) == 4
    send(poll="f-frame", round=1, version=version, state="open")  # of a replica that lags
    expect(page.locator("#page .state-card")).to_have_text("Voting is closed.")


def test_without_a_socket_the_page_is_fetched_every_few_seconds(stack: Stack, open_browser: OpenBrowser) -> None:
    browser = open_browser()
    browser.route_web_socket(SOCKET, lambda socket: socket.close())
    page = open_page(stack, browser, make_poll(stack, "f-poll"))
    change_poll(stack, "f-poll", "state = 'closed'")
    expect(page.locator("#page")).to_contain_text("Voting is closed.")


def test_a_vote_that_arrives_after_the_end_is_refused_and_the_page_says_so(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    browser = open_browser()
    browser.route_web_socket(SOCKET, lambda socket: socket.close())
    page = open_page(stack, browser, make_poll(stack, "f-late"))
    change_poll(stack, "f-late", "state = 'closed'")
    eventually(lambda: "Voting is closed" in httpx.get(f"{stack.vote_url}/p/f-late").text)
    page.get_by_role("button", name="Soup").click()
    expect(page.locator("main")).to_contain_text("Voting is closed")
    expect(page.locator(".state-card")).to_have_text("Voting is closed.")


def test_a_vote_without_an_answer_is_not_called_uncounted_when_the_poll_has_closed_meanwhile(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    browser = open_browser()
    browser.route_web_socket(SOCKET, lambda socket: socket.close())
    page = open_page(stack, browser, make_poll(stack, "f-unsure"))
    page.route("**/p/f-unsure", lambda route: route.abort())
    page.get_by_role("button", name="Soup").click()
    expect(page.locator("#status")).to_contain_text("will be sent again")
    change_poll(stack, "f-unsure", "state = 'closed'")
    eventually(lambda: "Voting is closed" in httpx.get(f"{stack.vote_url}/p/f-unsure").text)
    page.unroute("**/p/f-unsure")
    expect(page.locator("#status")).to_contain_text("It is not known whether it was counted.")


def test_without_javascript_a_voter_stays_in_the_session(stack: Stack, open_browser: OpenBrowser) -> None:
    for slug in ("f-plain1", "f-plain2"):
        make_poll(stack, slug)
    code = make_session(stack, "f-plain1", "f-plain2", current="f-plain1")
    page = open_page(stack, open_browser(java_script_enabled=False), "/")
    page.get_by_label("Have a code?").fill(f" {code.lower()} ")
    page.get_by_role("button", name="Join").click()
    question(page, "The question of f-plain1?")
    page.get_by_role("button", name="Salad").click()
    expect(page.locator("#status")).to_contain_text("Your vote for Salad is in")
    page.get_by_role("link", name="Deutsch").click()
    page.get_by_role("link", name="English").click()
    page.get_by_role("button", name="Soup").click()
    expect(page.locator(".state-card")).to_have_text("Your vote is in.")
    step(stack, code, "f-plain2")
    question(page, "The question of f-plain2?")


def test_an_unknown_code_asks_again(stack: Stack, open_browser: OpenBrowser) -> None:
    page = open_page(stack, open_browser(), "/join")
    page.get_by_label("Have a code?").fill("AAAAAA")
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("heading")).to_have_text("Unknown code")
    expect(page.get_by_label("Have a code?")).to_be_visible()
