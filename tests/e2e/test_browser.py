"""The two pages in a real Chromium: with and without JavaScript, with the keyboard, on a phone, through a restart."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.e2e.stack import Stack
from tests.waiting import eventually


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    opened = chromium.new_context()
    yield opened
    opened.close()


def watch(page: Page) -> list[str]:
    """Collect what the page complains of: script errors and everything on the console, CSP violations too."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def votes(page: Page, key: str) -> int:
    return int(re.sub(r"\D", "", page.inner_text(f"[data-key={key}] .votes")))


def test_a_vote_in_one_browser_moves_the_result_in_another(
    stack: Stack, chromium: Browser, context: BrowserContext
) -> None:
    result = context.new_page()
    complaints = watch(result)
    result.goto(stack.result_url)
    expect(result.locator("#state")).to_have_text("Live")
    before = votes(result, "a"), votes(result, "b")
    with chromium.new_context() as other:
        ballot = other.new_page()
        complaints += watch(ballot)
        ballot.goto(stack.vote_url)
        ballot.get_by_role("button", name="Cats").click()
        expect(ballot.get_by_role("status")).to_contain_text("Your vote for Cats is in")
        eventually(lambda: (votes(result, "a"), votes(result, "b")) == (before[0] + 1, before[1]))
        ballot.get_by_role("button", name="Dogs").click()
        expect(ballot.get_by_role("button", name="Dogs")).to_have_attribute("aria-pressed", "true")
        eventually(lambda: (votes(result, "a"), votes(result, "b")) == (before[0], before[1] + 1))
    assert complaints == []


def test_the_chart_shows_the_votes_of_the_last_minute_also_to_one_who_comes_later(
    stack: Stack, context: BrowserContext
) -> None:
    for _ in range(5):
        httpx.post(stack.vote_url, data={"vote": "a"})
    first, later = context.new_page(), context.new_page()
    first.goto(stack.result_url)
    eventually(lambda: sum(map(int, pace(later, stack))) >= 5)
    for page in (first, later):
        assert len(page.locator("#pace rect").all()) == 60
        assert int(page.inner_text("#pace-most")) >= 1


def pace(page: Page, stack: Stack) -> list[str]:
    page.goto(stack.result_url)
    return str(page.get_attribute("#pace", "data-rates")).split()


def test_two_browsers_are_two_voters(stack: Stack, chromium: Browser) -> None:
    before = stack.tally()["a"]
    for _ in range(2):
        with chromium.new_context() as browser:
            page = browser.new_page()
            page.goto(stack.vote_url)
            page.get_by_role("button", name="Cats").click()
            expect(page.get_by_role("status")).to_contain_text("is in")
    eventually(lambda: stack.tally()["a"] == before + 2)


def test_both_pages_work_without_javascript(stack: Stack, chromium: Browser) -> None:
    with chromium.new_context(java_script_enabled=False) as plain:
        page = plain.new_page()
        page.goto(stack.vote_url)
        page.get_by_role("button", name="Dogs").click()
        expect(page.get_by_role("status")).to_contain_text("Your vote for Dogs is in")
        expect(page.get_by_role("button", name="Dogs")).to_have_attribute("aria-pressed", "true")
        eventually(stack.drained)
        page.get_by_role("link", name="See the live result").click()
        expect(page).to_have_url(f"{stack.result_url}/")
        assert votes(page, "b") == stack.tally()["b"]


def test_the_ballot_works_with_the_keyboard_alone(stack: Stack, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(stack.vote_url)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Dogs")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Your vote for Dogs is in")


@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (1280, "dark")])
def test_nothing_is_cut_off_on_a_small_phone_or_a_desk(
    stack: Stack, chromium: Browser, width: int, scheme: str
) -> None:
    folder = Path("test-artefacts")
    folder.mkdir(exist_ok=True)
    with chromium.new_context(viewport={"width": width, "height": 720}, color_scheme=scheme) as sized:  # type: ignore[arg-type]
        page = sized.new_page()
        for name, url in (
            ("ballot", stack.vote_url),
            ("result", stack.result_url),
            ("missing", f"{stack.vote_url}/none"),
        ):
            page.goto(url)
            if name == "ballot":
                page.get_by_role("button", name="Cats").click()
                expect(page.get_by_role("status")).to_contain_text("is in")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)


def test_a_vote_cast_while_the_broker_is_away_goes_in_by_itself_and_the_result_reconnects(
    tmp_path: Path, context: BrowserContext
) -> None:
    stack = Stack(tmp_path / "data", workers=1).start()
    try:
        result, ballot = context.new_page(), context.new_page()
        result.goto(stack.result_url)
        ballot.goto(stack.vote_url)
        expect(result.locator("#state")).to_have_text("Live")
        stack.kill("valkey")
        eventually(lambda: "valkey ended" in stack.output.read_text())
        ballot.get_by_role("button", name="Cats").click()
        expect(ballot.get_by_role("status")).to_contain_text("is in", timeout=15_000)
        stack.kill("result")
        expect(result.locator("#state")).to_contain_text("reconnecting")
        ballot.get_by_role("button", name="Dogs").click()
        expect(result.locator("#state")).to_have_text("Live", timeout=20_000)
        expect(result.locator("[data-key=b] .votes")).to_have_text("1 vote", timeout=5000)
        expect(result.locator("[data-key=a] .votes")).to_have_text("0 votes")
    finally:
        stack.stop()


def test_the_big_screen_invites_and_obeys_its_keys(stack: Stack, chromium: Browser) -> None:
    with chromium.new_context(viewport={"width": 1280, "height": 720}) as hall:
        page = hall.new_page()
        complaints = watch(page)
        page.goto(f"{stack.result_url}/present")
        expect(page.locator("#state")).to_have_text("Live")
        expect(page.locator(".address")).to_have_text(stack.vote_url.removeprefix("http://"))
        assert page.locator(".invite svg path").count() >= 1
        share = page.locator("[data-key=a] .share")
        page.keyboard.press("h")
        expect(share).to_be_hidden()
        page.keyboard.press("H")
        expect(share).to_be_visible()
        before = votes(page, "a")
        page.keyboard.press("Space")
        httpx.post(stack.vote_url, data={"vote": "a"})
        eventually(lambda: stack.tally()["a"] == before + 1)
        late = hall.new_page()
        late.goto(stack.result_url)
        expect(late.locator("#state")).to_have_text("Live")
        assert votes(page, "a") == before
        page.screenshot(path="test-artefacts/present-1280.png")
        page.keyboard.press("Space")
        eventually(lambda: votes(page, "a") == before + 1)
        page.bring_to_front()
        page.keyboard.press("f")
        eventually(lambda: page.evaluate("!!document.fullscreenElement"))
        assert complaints == []
