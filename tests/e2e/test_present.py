"""The pages of the result for each kind and state of a poll, in Chromium, while the database changes."""

import re
import time

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.polls import change_poll, close_poll, execute, make_poll, make_session, step
from tests.e2e.stack import Stack
from tests.e2e.test_accessibility import violations

COUNTED = {
    "single": {"a": 3, "b": 1},
    "multiple": {"ab": 2, "b": 1, "abc": 1},
    "rating": {"4": 3, "5": 1},
    "ranking": {"abc": 4, "bca": 3, "cba": 2},
}
FITS = "document.documentElement.scrollHeight <= innerHeight && document.documentElement.scrollWidth <= innerWidth"
OUTSIDE = """() => [...document.querySelectorAll(".stage *")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width && !each.closest(".unseen") && (box.bottom > innerHeight + 1 || box.right > innerWidth + 1);
}).map((each) => each.outerHTML.slice(0, 80))"""


def labels(number: int) -> tuple[str, ...]:
    long = " with a label that is as long as labels on a wall are at times"
    return tuple(f"Option {n + 1}{long * (n % 2)}" for n in range(number))


def add_poll(stack: Stack, slug: str, kind: str, number: int = 3) -> None:
    """Make a poll with votes."""
    scale = {"scale": 5} if kind == "rating" else {}
    make_poll(stack, slug, kind, labels(number), question=f"What about {slug}?", **scale)
    for choice, votes in COUNTED[kind].items():
        count(stack, slug, choice, votes)
    change_poll(stack, slug, "revision = revision + 1")


def count(stack: Stack, slug: str, choice: str, votes: int) -> None:
    """Count votes of new voters, as a worker does."""
    execute(
        stack,
        "WITH counted AS (INSERT INTO votes"
        " SELECT %s, uuid_send(gen_random_uuid()), %s, 1, n FROM generate_series(1, %s) AS n)"
        " INSERT INTO tallies AS tally VALUES (%s, %s, %s)"
        " ON CONFLICT (poll, choice) DO UPDATE SET votes = tally.votes + excluded.votes",
        *[slug, choice, votes] * 2,
    )


@pytest.mark.parametrize("kind", COUNTED)
def test_each_kind_is_shown_on_the_page_the_wall_and_in_an_iframe(
    stack: Stack, open_browser: OpenBrowser, kind: str
) -> None:
    add_poll(stack, kind, kind)
    page = open_browser(viewport={"width": 1280, "height": 720}, reduced_motion="reduce").new_page()
    for path in (f"/p/{kind}", f"/p/{kind}/present", f"/embed/{kind}"):
        page.goto(stack.result_url + path)
        expect(page.locator("#state")).to_have_text("Live")
        assert page.locator("#tally .share").first.is_visible()
        assert violations(page) == []
        if kind == "ranking":
            expect(page.locator("[data-key=b] .crown")).to_be_visible()
            expect(page.locator("[data-key=b] .share")).to_have_text("12 points")
        if kind == "rating":
            expect(page.locator("#mean")).to_have_text("4.25")
        if kind == "multiple":
            expect(page.locator("[data-key=b] .share")).to_have_text("100.0%")
    page.goto(f"{stack.result_url}/p/{kind}")
    if kind == "ranking":
        expect(page.locator("#runoff tr")).to_have_count(5)
        count(stack, "ranking", "cba", 38)
        change_poll(stack, "ranking", "revision = revision + 1")
        expect(page.locator("#runoff .winner th")).to_have_text("Option 3 Ahead")


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720)])
@pytest.mark.parametrize("number", [2, 6, 20])
def test_the_wall_needs_no_scrolling(
    stack: Stack, open_browser: OpenBrowser, size: tuple[int, int], number: int
) -> None:
    width, height = size
    slug = f"wall-{width}-{number}"
    add_poll(stack, slug, "single", number)
    page = open_browser(viewport={"width": width, "height": height}).new_page()
    for results in ("live", "hidden"):
        change_poll(stack, slug, f"results = '{results}'")
        page.goto(f"{stack.result_url}/p/{slug}/present")
        expect(page.locator("#state")).to_have_text("Live")
        assert page.evaluate(FITS)
        assert page.evaluate(OUTSIDE) == []
        expect(page.locator(".pace")).to_be_visible(visible=results == "live" and number <= 10)
    close_poll(stack, slug)
    change_poll(stack, slug, "results = 'live'")
    expect(page.locator(".record")).to_be_visible()
    assert page.evaluate(FITS)
    assert page.evaluate(OUTSIDE) == []


def test_an_address_on_the_wall_breaks_at_its_slash_only(stack: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser(viewport={"width": 1280, "height": 720}).new_page()
    for slug in ("s", "afterwards", "one-of-the-longest-names-of-polls"):
        add_poll(stack, slug, "single")
        page.goto(f"{stack.result_url}/p/{slug}/present")
        lines = page.locator(".address span").evaluate_all("spans => spans.map((span) => span.getClientRects().length)")
        widths = page.locator(".address").evaluate("(line) => [line.scrollWidth, line.clientWidth]")
        heights = page.locator(".address span").evaluate_all(
            "spans => spans.map((span) => span.clientHeight / parseFloat(getComputedStyle(span).fontSize))"
        )
        assert lines == [1, 1]
        assert widths[0] <= widths[1]
        assert max(heights) < 2


@pytest.mark.parametrize("path", ["", "/present"])
def test_the_countdown_is_right_where_the_clock_is_wrong(stack: Stack, open_browser: OpenBrowser, path: str) -> None:
    slug = f"clock{len(path)}"
    add_poll(stack, slug, "single")
    change_poll(stack, slug, "closes_at = now() + interval '20 minutes'")
    page = open_browser().new_page()
    page.clock.install(time=time.time() + 5 * 3600)
    page.goto(f"{stack.result_url}/p/{slug}{path}")
    expect(page.locator("#phase")).to_have_text(re.compile("^Closes in \u2066(20:00|19:[345])"))
    change_poll(stack, slug, "closes_at = now() + interval '90 minutes'")
    expect(page.locator("#phase")).to_have_text(re.compile(r"^Closes: \d\d:\d\d"))
    change_poll(stack, slug, "closes_at = now() + interval '12 seconds'")
    expect(page.locator("#phase.soon")).to_have_text(re.compile("^Closes in \u20660:"))
    expect(page.locator("#phase")).to_have_text("Closed")


def test_the_wall_follows_its_session_in_full_screen_and_its_controls_fade(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    add_poll(stack, "first", "single")
    add_poll(stack, "second", "rating")
    code = make_session(stack, "first", "second")
    page = open_browser(viewport={"width": 1280, "height": 720}).new_page()
    page.goto(f"{stack.result_url}/s/{code}/present")
    expect(page.locator("#question")).to_have_text("All hands")
    expect(page.locator(".code")).to_have_text(code)
    page.evaluate("window.same = true")
    page.keyboard.press("f")
    step(stack, code, "first")
    expect(page.locator("#question")).to_have_text("What about first?")
    change_poll(stack, "first", "results = 'hidden'")
    expect(page.locator(".withheld")).to_have_text("The result is not shown yet.")
    expect(page.locator("#tally")).to_have_count(0)
    step(stack, code, "second")
    expect(page.locator("#mean")).to_have_text("4.25")
    change_poll(stack, "second", "closes_at = now() + interval '50 seconds'")
    expect(page.locator("#phase")).to_have_text(re.compile("Closes in .?0:[34]"))
    change_poll(stack, "second", "state = 'closed'")
    expect(page.locator("#phase")).to_have_text("Closed")
    expect(page.locator("#state")).to_have_text("Final result")
    assert page.evaluate("window.same && !!document.fullscreenElement")
    expect(page.locator(".keys")).to_have_css("opacity", "0")
    page.mouse.move(100, 100)
    expect(page.locator(".keys")).to_have_css("opacity", "1")
    page.keyboard.press("Tab")
    expect(page.locator("html")).to_have_class(re.compile("idle"))
    expect(page.locator(".languages, .keys").filter(has=page.locator(":focus"))).to_have_css("opacity", "1")


def test_a_result_page_shows_what_was_hidden_without_a_reload_and_without_javascript_too(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    add_poll(stack, "secret", "single")
    change_poll(stack, "secret", "results = 'after_close'")
    page = open_browser().new_page()
    plain = open_browser(java_script_enabled=False).new_page()
    for each in (page, plain):
        each.goto(f"{stack.result_url}/p/secret")
        expect(each.locator(".withheld")).to_have_text("The result is shown after the poll has closed.")
    page.evaluate("window.same = true")
    change_poll(stack, "secret", "state = 'closed'")
    for each in (page, plain):
        expect(each.locator("[data-key=a] .votes")).to_have_text("3 votes")
        expect(each.locator("#phase")).to_have_text("Closed")
    assert page.evaluate("window.same")
