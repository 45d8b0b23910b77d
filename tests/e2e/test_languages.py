"""The pages in every language: server and script write the same text; Arabic is right-to-left."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.stack import Stack
from tests.e2e.test_accessibility import violations
from voting.web.language import NAMES, language

LEFT_TO_RIGHT = "\u200e"  # a mark that browsers put around the Arabic percent sign, and that shows nothing


@pytest.mark.parametrize("code", list(NAMES))
def test_the_way_of_a_vote_in_each_language(
    stack: Stack, open_browser: OpenBrowser, artefacts: Path, code: str
) -> None:
    words = language(code)
    phone = open_browser(locale=code, viewport={"width": 320, "height": 700}).new_page()
    phone.goto(stack.vote_url)
    assert phone.get_attribute("html", "dir") == words.direction
    phone.get_by_role("button").first.click()
    thanks = words.text("Your vote for {label} is in. Choose another to change it.").format(label="Cats")
    expect(phone.get_by_role("status")).to_contain_text(thanks)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 320
    assert violations(phone) == []
    phone.screenshot(path=artefacts / f"ballot-{code}.png")

    desk = open_browser(locale=code, viewport={"width": 1280, "height": 800}).new_page()
    desk.goto(stack.result_url)
    expect(desk.locator("#state")).to_have_text(words.text("Live"))
    for shown in (".share", ".votes", "#total"):
        written = httpx.get(stack.result_url, headers={"accept-language": code}).text
        for text in desk.locator(shown).all_text_contents():
            assert f">{text.replace(LEFT_TO_RIGHT, '')}<" in written
    for count in (0, 999, 1234, 1234567):
        assert desk.evaluate("count => number.format(count)", count) == words.number(count)
    assert violations(desk) == []
    desk.screenshot(path=artefacts / f"result-{code}.png")
    desk.goto(f"{stack.result_url}/present")
    expect(desk.locator("#state")).to_have_text(words.text("Live"))
    assert violations(desk) == []
    desk.screenshot(path=artefacts / f"present-{code}.png")


def test_the_switch_changes_the_language_of_both_pages_for_good(stack: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser(locale="en").new_page()
    page.goto(stack.vote_url)
    page.get_by_role("link", name="العربية").click()
    expect(page.locator("html")).to_have_attribute("dir", "rtl")
    page.get_by_role("link", name=language("ar").text("See the live result")).click()
    expect(page).to_have_url(f"{stack.result_url}/")
    expect(page.locator("html")).to_have_attribute("lang", "ar")
    page.get_by_role("link", name="Deutsch").click()
    page.goto(f"{stack.vote_url}/")
    expect(page.locator("html")).to_have_attribute("lang", "de")


def test_in_arabic_everything_runs_from_the_right(stack: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser(locale="ar", viewport={"width": 1000, "height": 800}).new_page()
    page.goto(stack.result_url)
    label = page.locator(".tally .label").first.bounding_box()
    votes = page.locator(".tally .votes").first.bounding_box()
    assert label
    assert votes
    assert label["x"] > votes["x"]


REFUSED: dict[int, dict[str, Any]] = {
    400: {"method": "POST", "url": "/", "data": {"vote": "zz"}},
    403: {"method": "POST", "url": "/", "data": {"vote": "a"}, "headers": {"origin": "http://evil.example"}},
    404: {"method": "GET", "url": "/nowhere"},
    405: {"method": "PUT", "url": "/"},
    413: {"method": "POST", "url": "/", "data": {"vote": "a" * 5000}},
    415: {"method": "POST", "url": "/", "json": {"vote": "a"}},
}


@pytest.mark.parametrize("status", list(REFUSED))
def test_a_refusal_is_a_page_with_a_sentence_and_the_way_on_in_the_readers_language(
    stack: Stack, open_browser: OpenBrowser, artefacts: Path, status: int
) -> None:
    with httpx.Client(base_url=stack.vote_url, headers={"accept": "text/html", "accept-language": "de"}) as client:
        answer = client.request(**REFUSED[status])
    assert answer.status_code == status
    page = open_browser(locale="de").new_page()
    page.route("**/refused", lambda route: route.fulfill(body=answer.content, headers=dict(answer.headers)))
    page.goto(f"{stack.vote_url}/refused")
    assert page.get_attribute("html", "lang") == "de"
    assert len(page.inner_text("main > p:nth-of-type(2)")) > 20
    expect(page.get_by_role("link", name="Zurück zur Abstimmung")).to_be_visible()
    assert violations(page) == []
    page.screenshot(path=artefacts / f"refused-{status}.png")
