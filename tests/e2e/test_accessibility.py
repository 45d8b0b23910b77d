"""axe-core finds no violation on any page in any state, light and dark."""

from collections.abc import Iterator
from importlib import resources

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.polls import close_poll, make_final, make_poll
from tests.e2e.stack import Stack
from tests.waiting import eventually

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    with chromium.new_context(color_scheme=request.param, reduced_motion="reduce") as context:
        yield context.new_page()


def violations(page: Page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    assert found["passes"]
    return [f"{each['id']}: {each['help']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]


def test_the_ballot_before_and_after_a_vote(stack: Stack, page: Page) -> None:
    page.goto(stack.vote_url)
    assert violations(page) == []
    page.get_by_role("button", name="Cats").click()
    expect(page.get_by_role("status")).to_contain_text("is in")
    assert violations(page) == []


def test_the_ballot_when_the_vote_does_not_get_through(stack: Stack, page: Page) -> None:
    page.goto(stack.vote_url)
    page.route("**/*", lambda route: route.abort())
    page.get_by_role("button", name="Cats").click()
    expect(page.get_by_role("status")).to_contain_text("sent again")
    assert violations(page) == []


def test_the_result_live_opened_and_disconnected(stack: Stack, page: Page) -> None:
    page.goto(stack.result_url)
    expect(page.locator("#state")).to_have_text("Live")
    page.get_by_text("The numbers as a table").click()
    expect(page.get_by_role("table")).to_be_visible()
    assert violations(page) == []
    page.evaluate("showState('Connection lost, reconnecting …', 'warn')")
    assert violations(page) == []


def test_the_big_screen(stack: Stack, page: Page) -> None:
    page.goto(f"{stack.result_url}/present")
    expect(page.locator("#state")).to_have_text("Live")
    assert violations(page) == []


@pytest.mark.parametrize("path", ["/nowhere", "/p/no-such-poll"])
def test_the_error_pages(stack: Stack, page: Page, path: str) -> None:
    page.goto(stack.vote_url + path)
    assert violations(page) == []


@pytest.fixture(scope="module")
def tracker(stack: Stack) -> str:
    """Return a tracker of the final poll `a-final`; the poll `a-unlisted` is final without a list."""
    make_final(stack, "a-unlisted")
    return make_final(stack, "a-final", "cab", kind="ranking", publish=True)


@pytest.mark.parametrize("code", ["en", "ar"])
def test_the_pages_of_a_final_result_on_a_small_phone(stack: Stack, page: Page, tracker: str, code: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    for path, shown in (
        (f"/p/a-final/ballots?tracker={tracker}&", "p.found"),
        ("/p/a-final/ballots?tracker=0000-0000-0000-0000&", "div.missing"),
        ("/p/a-final/ballots?tracker=abc&", "p.missing"),
        ("/p/a-unlisted/ballots?", ".fingerprint"),
        ("/p/a-final?", ".record"),
        ("/p/a-final/present?", ".record"),
        ("/embed/a-final?", ".phase.final"),
    ):
        page.goto(f"{stack.result_url}{path}lang={code}")
        expect(page.locator(shown)).to_be_visible()
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= 320, path


@pytest.mark.parametrize("code", ["en", "ar"])
def test_the_ballot_with_a_tracker_and_when_voting_is_closed(stack: Stack, page: Page, code: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    slug = f"a-tracker-{len(stack.rows('SELECT FROM polls'))}"
    path = make_poll(stack, slug, publish=True)
    eventually(lambda: httpx.get(stack.vote_url + path).status_code == 200)
    page.goto(f"{stack.vote_url}{path}?lang={code}")
    page.locator("button[value=b]").click()
    expect(page.locator("#status small")).to_have_count(2)
    for is_over in (False, True):
        if is_over:
            close_poll(stack, slug)
            expect(page.locator("#ballots")).to_be_visible()
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
