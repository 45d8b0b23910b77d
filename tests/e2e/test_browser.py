"""The pages in Chromium: with and without JavaScript, by keyboard, on a phone, through a restart."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import zxingcpp
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.conftest import require
from tests.e2e.conftest import QUIET, OpenBrowser
from tests.e2e.stack import Stack, stopped
from tests.waiting import eventually


def votes(page: Page, key: str) -> int:
    return int(re.sub(r"\D", "", page.inner_text(f"[data-key={key}] .votes")))


def test_a_vote_in_one_browser_moves_the_result_in_another(stack: Stack, open_browser: OpenBrowser) -> None:
    result = open_browser().new_page()
    result.goto(stack.result_url)
    expect(result.locator("#state")).to_have_text("Live")
    before = votes(result, "a"), votes(result, "b")
    ballot = open_browser().new_page()
    ballot.goto(stack.vote_url)
    ballot.get_by_role("button", name="Cats").click()
    expect(ballot.get_by_role("status")).to_contain_text("Your vote for Cats is in")
    eventually(lambda: (votes(result, "a"), votes(result, "b")) == (before[0] + 1, before[1]))
    ballot.get_by_role("button", name="Dogs").click()
    expect(ballot.get_by_role("button", name="Dogs")).to_have_attribute("aria-pressed", "true")
    eventually(lambda: (votes(result, "a"), votes(result, "b")) == (before[0], before[1] + 1))


def test_the_choice_is_still_marked_when_the_ballot_is_loaded_again(stack: Stack, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(stack.vote_url)
    page.get_by_role("button", name="Dogs").click()
    expect(page.get_by_role("status")).to_contain_text("is in")
    message = page.inner_text("#status")
    page.reload()
    expect(page.get_by_role("button", name="Dogs")).to_have_attribute("aria-pressed", "true")
    assert page.inner_text("#status") == message


def test_pages_of_a_poll_that_changes_and_is_deleted_say_so(stack: Stack, open_browser: OpenBrowser) -> None:
    insert = "INSERT INTO polls (slug, question, options) VALUES ('snack', 'Which?', %s)"
    with psycopg.connect(stack.state["database_url"], autocommit=True) as database:
        database.execute(insert, ['[{"key": "a", "label": "Apple"}, {"key": "b", "label": "Nuts"}]'])
        eventually(lambda: "Apple" in httpx.get(f"{stack.vote_url}/p/snack").text)
        ballot, result = open_browser().new_page(), open_browser().new_page()
        ballot.route_web_socket("**/ws?*", lambda socket: socket.close())  # else the page would change by itself
        ballot.goto(f"{stack.vote_url}/p/snack")
        database.execute("UPDATE polls SET options = replace(options::text, 'Apple', 'Pear')::jsonb")
        eventually(lambda: "Pear" in httpx.get(f"{stack.vote_url}/p/snack").text)
        ballot.get_by_role("button", name="Apple").click()
        expect(ballot.get_by_role("status")).to_contain_text("This poll has changed")
        ballot.get_by_role("button", name="Pear").click()
        expect(ballot.get_by_role("status")).to_contain_text("Your vote for Pear is in")

        result.goto(f"{stack.result_url}/p/snack")
        eventually(lambda: votes(result, "a") == 1)
        for table in ("votes", "tallies"):
            database.execute(f"DELETE FROM {table} WHERE poll = 'snack'")  # noqa: S608 - one of two tables
        database.execute("DELETE FROM polls WHERE slug = 'snack'")
        expect(result.get_by_role("heading")).to_have_text("Page not found")


@pytest.mark.parametrize("where", ["ballot", "result", "present"])
def test_a_page_is_small_and_a_second_visit_asks_only_for_the_page_itself(
    stack: Stack, context: BrowserContext, where: str
) -> None:
    url = {"ballot": stack.vote_url, "result": stack.result_url, "present": f"{stack.result_url}/present"}[where]
    page = context.new_page()
    sizes: dict[str, int] = {}
    page.on("requestfinished", lambda request: sizes.update({request.url: sum_of(request.sizes())}))
    page.goto(url, wait_until="networkidle")
    assert all(each.startswith((stack.vote_url, stack.result_url)) for each in sizes)
    assert sum(sizes.values()) < 60_000, sizes
    assert len(sizes) <= (8 if where == "present" else 6)
    page.reload(wait_until="networkidle")
    again = page.evaluate("performance.getEntriesByType('resource').map(each => each.transferSize)")
    assert set(again) == {0}  # from the browser's cache


def sum_of(sizes: Any) -> int:
    return int(sizes["responseBodySize"] + sizes["responseHeadersSize"])


def test_the_chart_shows_the_votes_of_the_last_minute_also_to_one_who_comes_later(
    stack: Stack, context: BrowserContext
) -> None:
    for _ in range(5):
        httpx.post(stack.vote_url, data={"vote": "a"})
    first, later = context.new_page(), context.new_page()
    first.goto(stack.result_url)
    eventually(lambda: sum(map(int, votes_per_second(later, stack))) >= 5)
    for page in (first, later):
        assert len(page.locator("#pace rect").all()) == 60
        assert int(page.inner_text("#pace-most")) >= 1


def votes_per_second(page: Page, stack: Stack) -> list[str]:
    page.goto(stack.result_url)
    return str(page.get_attribute("#pace", "data-rates")).split()


def test_two_browsers_are_two_voters(stack: Stack, open_browser: OpenBrowser) -> None:
    before = stack.settled_tally()["a"]
    for _ in range(2):
        page = open_browser().new_page()
        page.goto(stack.vote_url)
        page.get_by_role("button", name="Cats").click()
        expect(page.get_by_role("status")).to_contain_text("is in")
    eventually(lambda: stack.tally()["a"] == before + 2)


def test_both_pages_work_without_javascript(stack: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser(java_script_enabled=False).new_page()
    page.goto(stack.vote_url)
    page.get_by_role("button", name="Dogs").click()
    expect(page.get_by_role("status")).to_contain_text("Your vote for Dogs is in")
    expect(page.get_by_role("button", name="Dogs")).to_have_attribute("aria-pressed", "true")
    stack.settled_tally()
    page.get_by_role("link", name="See the live result").click()
    expect(page).to_have_url(f"{stack.result_url}/")
    shown = votes(page, "b")
    assert shown == stack.tally()["b"]
    httpx.post(stack.vote_url, data={"vote": "b"})
    expect(page.locator("[data-key=b] .votes")).to_contain_text(f"{shown + 1:,}")  # it loads itself again


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_browser_without_cookies_is_told_so_instead_of_voting_twice(
    stack: Stack, chromium: Browser, tmp_path: Path, artefacts: Path, *, script: bool
) -> None:
    preferences = tmp_path / "Default" / "Preferences"
    preferences.parent.mkdir()
    preferences.write_text(json.dumps({"profile": {"default_content_setting_values": {"cookies": 2}}}))  # 2: block
    before = stack.settled_tally()
    browser = chromium.browser_type.launch_persistent_context(
        tmp_path, executable_path=require("chromium", "chromium"), args=QUIET, java_script_enabled=script
    )
    with browser:
        page = browser.new_page()
        for _ in range(2):
            page.goto(stack.vote_url)
            assert browser.cookies() == []
            page.get_by_role("button", name="Cats").click()
            if script:
                expect(page.get_by_role("status")).to_contain_text("Your vote was not taken")
                expect(page.get_by_role("button", name="Cats")).to_have_attribute("aria-pressed", "false")
            else:
                expect(page.locator("h1")).to_have_text("Cookies are needed")
            expect(page.locator("main")).to_contain_text("Allow cookies for this site in your browser's settings")
        page.screenshot(path=artefacts / f"no-cookies-{'script' if script else 'plain'}.png")
    assert stack.settled_tally() == before


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
    stack: Stack, open_browser: OpenBrowser, artefacts: Path, width: int, scheme: str
) -> None:
    page = open_browser(viewport={"width": width, "height": 720}, color_scheme=scheme).new_page()
    for name, url in (("ballot", stack.vote_url), ("result", stack.result_url), ("missing", f"{stack.vote_url}/none")):
        page.goto(url)
        if name == "ballot":
            page.get_by_role("button", name="Cats").click()
            expect(page.get_by_role("status")).to_contain_text("is in")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=artefacts / f"{name}-{width}-{scheme}.png", full_page=True)


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
        expect(ballot.get_by_role("status")).to_contain_text("is in")
        with stopped(stack.process.pid):  # so that nothing is started again meanwhile
            stack.kill("result")
            expect(result.locator("#state")).to_contain_text("reconnecting")
        ballot.get_by_role("button", name="Dogs").click()
        expect(result.locator("#state")).to_have_text("Live")
        expect(result.locator("[data-key=b] .votes")).to_have_text("1 vote")
        expect(result.locator("[data-key=a] .votes")).to_have_text("0 votes")
    finally:
        stack.stop()


def test_the_big_screen_invites_and_obeys_its_keys(stack: Stack, open_browser: OpenBrowser, artefacts: Path) -> None:
    hall = open_browser(viewport={"width": 1280, "height": 720})
    page = hall.new_page()
    page.goto(f"{stack.result_url}/present")
    expect(page.locator("#state")).to_have_text("Live")
    expect(page.locator(".address")).to_have_text(stack.vote_url.removeprefix("http://"))
    page.screenshot(path=artefacts / "present-1280.png")
    with Image.open(artefacts / "present-1280.png") as seen:
        assert [code.text for code in zxingcpp.read_barcodes(seen)] == [f"{stack.vote_url}/"]
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
    page.keyboard.press("Space")
    eventually(lambda: votes(page, "a") == before + 1)
    page.bring_to_front()
    page.keyboard.press("f")
    eventually(lambda: page.evaluate("!!document.fullscreenElement"))


def test_ten_thousand_updates_leave_nothing_behind(stack: Stack, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{stack.result_url}/present")
    expect(page.locator("#state")).to_have_text("Live")
    devtools = context.new_cdp_session(page)
    devtools.send("Performance.enable")

    def measure() -> dict[str, float]:
        devtools.send("HeapProfiler.collectGarbage")
        found = devtools.send("Performance.getMetrics")["metrics"]
        return {each["name"]: each["value"] for each in found}

    many = """([from, to]) => {
        const snapshot = JSON.parse(window.seen);
        for (let n = from; n < to; n += 1) {
            snapshot.options.forEach((option, index) => { option.votes = n * (index + 1); });
            snapshot.total = n * 3;
            snapshot.revision += 1;
            receive(JSON.parse(JSON.stringify(snapshot)));
            draw();
            recordRate();
        }
    }"""
    page.evaluate("seen => { window.seen = seen; }", httpx.get(f"{stack.result_url}/api/results").text)
    page.evaluate(many, [0, 500])  # the first ones leave some objects for good
    before = measure()
    page.evaluate(many, [500, 10_500])
    after = measure()
    assert votes(page, "a") == 10_499
    assert after["JSEventListeners"] <= before["JSEventListeners"]
    assert after["Nodes"] <= before["Nodes"] + 10
    assert after["JSHeapUsedSize"] <= before["JSHeapUsedSize"] + 200_000
