"""The ballots of each kind in Chromium: by tap, by keyboard, without JavaScript, on a small phone."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.polls import change_poll, make_poll
from tests.e2e.stack import Stack
from tests.e2e.test_accessibility import violations
from tests.waiting import eventually

LONG = "A label that goes on for more than one line, and then some more of it"


@pytest.fixture(scope="module")
def polls(stack: Stack) -> Stack:
    make_poll(stack, "b-single")
    make_poll(stack, "b-multiple", "multiple", max_choices=2)
    make_poll(stack, "b-five", "rating", scale=5)
    make_poll(stack, "b-ten", "rating", scale=10)
    make_poll(stack, "b-ranking", "ranking", labels=("Soup", "Salad", "حساء", LONG))
    make_poll(stack, "b-ticket", results="after_vote")
    eventually(lambda: httpx.get(f"{stack.vote_url}/p/b-ticket").status_code == 200)
    return stack


def choices(stack: Stack, slug: str) -> dict[str, int]:
    eventually(stack.drained)
    rows = stack.rows(f"SELECT choice, votes FROM tallies WHERE poll = '{slug}' AND votes > 0")  # noqa: S608 - our slug
    return dict(rows)


def send(page: Page) -> None:
    page.get_by_role("button", name="Send your vote").click()


def receipt(page: Page) -> str:
    expect(page.locator("#status")).to_contain_text("Receipt")
    return page.inner_text("#status")


def test_several_options_are_chosen_up_to_the_limit_sent_kept_and_changed(
    polls: Stack, open_browser: OpenBrowser
) -> None:
    page = open_browser().new_page()
    page.goto(f"{polls.vote_url}/p/b-multiple")
    expect(page.get_by_role("group", name="Choose up to 2")).to_be_visible()
    send(page)
    expect(page.locator("#status")).to_have_text("Choose at least one option, then send your vote.")
    page.get_by_label("Bread").check()
    expect(page.locator("#left")).to_have_text("You can choose 1 more.")
    page.get_by_label("Soup").check()
    expect(page.locator("#left")).to_contain_text("as many as you can")
    expect(page.get_by_label("Cake")).to_be_disabled()
    send(page)
    assert "Your vote is in" in (said := receipt(page))
    assert choices(polls, "b-multiple") == {"ac": 1}
    page.reload()
    assert receipt(page) == said
    expect(page.get_by_label("Soup")).to_be_checked()
    page.get_by_label("Soup").uncheck()
    send(page)
    expect(page.locator("#status li")).to_have_text(["Bread"])
    assert choices(polls, "b-multiple") == {"c": 1}


def test_a_ranking_is_made_by_taps_and_a_second_tap_takes_a_place_away(polls: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser().new_page()
    page.goto(f"{polls.vote_url}/p/b-ranking")
    expect(page.get_by_role("button", name="Clear")).to_be_hidden()
    for name in ("Salad", "حساء", "Soup", "Salad"):
        page.get_by_role("button", name=name).click()
    expect(page.locator("#left")).to_have_text("Salad is no longer ranked.")
    assert page.locator(".ranks .place").all_inner_texts() == ["2", "", "1", ""]
    send(page)
    said = receipt(page)
    expect(page.locator("#status li")).to_have_text(["حساء", "Soup"])
    assert choices(polls, "b-ranking") == {"ca": 1}
    page.reload()
    assert receipt(page) == said
    assert page.locator(".ranks .place").all_inner_texts() == ["2", "", "1", ""]
    page.get_by_role("button", name="Clear").click()
    expect(page.locator(".ranks [aria-pressed=true]")).to_have_count(0)


@pytest.mark.parametrize(
    ("slug", "keys", "stored"),
    [
        ("b-multiple", ["Tab", "Tab", "Space", "Tab", "Tab", "Tab", "Enter"], "b"),
        ("b-five", ["Tab", "Tab", "Tab", "Tab", "Enter"], "4"),
        ("b-ten", [*["Tab"] * 11, "Enter"], "10"),
        ("b-ranking", ["Tab", "Tab", "Enter", "Tab", "Space", "Tab", "Tab", "Enter"], "bc"),
    ],
)
def test_each_kind_works_with_the_keyboard_alone(
    polls: Stack, open_browser: OpenBrowser, slug: str, keys: list[str], stored: str
) -> None:
    page = open_browser().new_page()
    page.goto(f"{polls.vote_url}/p/{slug}")
    before = choices(polls, slug).get(stored, 0)
    for key in keys:
        page.keyboard.press(key)
    receipt(page)
    assert choices(polls, slug)[stored] == before + 1


def test_each_kind_works_without_javascript(polls: Stack, open_browser: OpenBrowser, artefacts: Path) -> None:
    page = open_browser(java_script_enabled=False, viewport={"width": 320, "height": 640}).new_page()
    page.goto(f"{polls.vote_url}/p/b-multiple")
    for name in ("Soup", "Salad", "Bread"):
        page.get_by_label(name).check()
    send(page)
    expect(page.locator("main")).to_contain_text("Your vote names too many options: at most 2 can be chosen.")
    page.get_by_role("link", name="Back to the poll").click()
    page.get_by_label("Cake").check()
    send(page)
    expect(page.locator("#status li")).to_have_text(["Cake"])
    expect(page.get_by_label("Cake")).to_be_checked()
    page.goto(f"{polls.vote_url}/p/b-ten")
    page.get_by_role("button", name="7").click()
    expect(page.get_by_role("button", name="7")).to_have_attribute("aria-pressed", "true")
    page.goto(f"{polls.vote_url}/p/b-ranking")
    expect(page.locator(".ranks")).to_be_hidden()
    page.get_by_label("Place 1").select_option("d")
    page.get_by_label("Place 3").select_option("a")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    send(page)
    expect(page.locator("#status li")).to_have_text([LONG, "Soup"])
    expect(page.get_by_label("Place 2")).to_have_value("a")
    page.screenshot(path=artefacts / "ballot-ranking-plain.png", full_page=True)


def test_the_link_to_the_result_appears_with_the_ticket_after_the_vote(polls: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser().new_page()
    page.goto(f"{polls.vote_url}/p/b-ticket")
    link = page.get_by_role("link", name="See the live result")
    expect(link).to_be_hidden()
    page.get_by_role("button", name="Soup").click()
    expect(link).to_have_attribute("href", re.compile(r"^/p/b-ticket/results\?ticket=[0-9a-f]{32}$"))
    page.reload()
    expect(link).to_have_attribute("href", re.compile("ticket="))
    expect(page.locator("#result-hint")).to_have_count(0)


@pytest.fixture(params=["light", "dark"])
def phone(request: pytest.FixtureRequest, open_browser: OpenBrowser) -> Page:
    viewport = {"width": 320, "height": 640}
    return open_browser(viewport=viewport, color_scheme=request.param, reduced_motion="reduce").new_page()


@pytest.mark.parametrize("slug", ["b-single", "b-multiple", "b-five", "b-ten", "b-ranking"])
@pytest.mark.parametrize("code", ["en", "ar"])
def test_each_kind_is_accessible_and_fits_a_small_phone(
    polls: Stack, phone: Page, artefacts: Path, slug: str, code: str
) -> None:
    phone.goto(f"{polls.vote_url}/p/{slug}?lang={code}")
    targets = phone.locator("#ballot button:visible, #ballot label")
    for is_chosen in (False, True):
        if is_chosen:
            targets.first.click()
        assert violations(phone) == []
        assert phone.evaluate("document.documentElement.scrollWidth") <= 320
    for target in targets.all():
        box = target.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= 36
    phone.screenshot(path=artefacts / f"ballot-{slug}-{code}.png", full_page=True)


def test_each_state_is_accessible_and_said_in_words(polls: Stack, phone: Page) -> None:
    for changes, words in (
        ("state = 'closed'", "Voting is closed."),
        ("state = 'draft', round = round + 1", "Voting has not opened yet."),
        ("opens_at = now() + interval '10 minutes'", "Opens in"),
        ("state = 'open', closes_at = now() + interval '3 hours'", "Closes:"),
        ("closes_at = NULL", "One tap votes."),
    ):
        change_poll(polls, "b-single", changes)
        eventually(lambda words=words: words[:8] in httpx.get(f"{polls.vote_url}/p/b-single").text)  # type: ignore[misc]
        phone.goto(f"{polls.vote_url}/p/b-single")
        expect(phone.locator("main")).to_contain_text(words)
        assert violations(phone) == []
