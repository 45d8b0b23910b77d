"""The pages with voting codes in a real browser: with and without JavaScript, printed, and for axe."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.stack import Stack
from tests.e2e.test_accessibility import violations
from tests.e2e.test_admin_pages import check, make_poll, make_session, signed_in, slug_of

CARDS_OF_17 = [8, 8, 1]


def make_codes(stack: Stack, owner: str, count: int) -> list[str]:
    with stack.admin() as client:
        answer = client.post(f"/api/{owner}/codes", json={"count": count})
    assert answer.status_code == 201, answer.text
    found: list[str] = answer.json()["codes"]
    return found


@pytest.mark.parametrize("javascript", [True, False])
def test_codes_from_a_new_poll_to_a_revoked_card(stack: Stack, open_browser: OpenBrowser, *, javascript: bool) -> None:
    page = signed_in(stack, open_browser(java_script_enabled=javascript))
    page.goto(f"{stack.admin_url}/polls/new")
    page.get_by_label("Your question").fill("A new clubhouse?")
    page.get_by_label("Option 1", exact=True).fill("Yes")
    page.get_by_label("Option 2", exact=True).fill("No")
    page.get_by_text("Who may vote, who sees").click()
    page.get_by_label("People with a voting code").check()
    page.get_by_role("button", name="Open now").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Voting codes")
    slug = slug_of(page)
    page.get_by_label("How many more?").fill("12")
    page.get_by_role("button", name="Make codes").click()
    expect(page.get_by_role("status")).to_contain_text("The codes are made.")
    page.get_by_role("link", name="Cards 1 to 12").click()
    expect(page.locator(".card")).to_have_count(12)
    old = page.locator(".card .code").nth(6).inner_text()
    page.get_by_role("link", name="Voting codes", exact=True).click()

    page.get_by_label("Numbers or codes").fill(f"2, 4-5, {old}")
    page.get_by_role("button", name="Revoke …").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Revoke 4 codes?")
    assert old not in page.content() + page.url
    page.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("Revoked numbers: 2, 4-5, 7")).to_be_visible()
    page.get_by_label("Numbers or codes").fill("7")
    page.get_by_role("button", name="Replace …").click()
    page.get_by_role("button", name="Replace").click()
    page.get_by_role("link", name="Card 7", exact=True).click()
    expect(page.locator(".card .code")).to_have_count(1)
    assert page.locator(".card .code").inner_text() != old
    page.goto(f"{stack.admin_url}/polls/{slug}/codes")
    page.get_by_role("button", name="Replace all codes …").click()
    page.get_by_role("button", name="Replace all codes").click()
    expect(page.get_by_role("status")).to_contain_text("All codes are new.")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    rows = Path(download.value.path()).read_text("utf-8-sig").splitlines()
    assert rows[0] == "number,code,link"
    assert len(rows) == 13
    page.goto(f"{stack.admin_url}/audit")
    assert old not in page.content()


@pytest.mark.parametrize("paper", ["A4", "Letter"])
@pytest.mark.parametrize("question", ["Lunch?", "W" * 200])
def test_17_cards_are_three_sheets_and_nothing_on_them_is_cut_off(
    stack: Stack, open_browser: OpenBrowser, artefacts: Path, paper: str, question: str
) -> None:
    slug = make_poll(stack, question=question, access="code")
    make_codes(stack, f"polls/{slug}", 20)
    page = signed_in(stack, open_browser())
    page.goto(f"{stack.admin_url}/polls/{slug}/codes/cards?first=4&last=20")
    printed = page.pdf(format=paper)
    (artefacts / f"cards-{paper}-{len(question)}.pdf").write_bytes(printed)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == len(CARDS_OF_17)
    page.emulate_media(media="print")
    sheets = page.locator(".sheet")
    assert [sheets.nth(number).locator(".card").count() for number in range(sheets.count())] == CARDS_OF_17
    cut = (
        "all => all.filter(card => card.scrollHeight > card.clientHeight || card.scrollWidth > card.clientWidth).length"
    )
    assert page.locator(".card").evaluate_all(cut) == 0


def test_axe_finds_nothing_on_the_pages_with_codes(stack: Stack, open_browser: OpenBrowser) -> None:
    slug, member = make_poll(stack, access="code"), make_poll(stack)
    code, _ = make_session(stack, member)
    make_codes(stack, f"polls/{slug}", 9)
    make_codes(stack, f"sessions/{code}", 2)
    page = signed_in(stack, open_browser(reduced_motion="reduce", viewport={"width": 320, "height": 700}))
    paths = [f"/polls/{slug}/codes", f"/polls/{slug}/codes?done=make&numbers=1-9", f"/polls/{slug}/codes/cards"]
    paths += [f"/polls/{slug}", f"/sessions/{code}/codes", f"/polls/{member}/codes", f"/sessions/{code}/codes/cards"]
    for path in (*paths, f"/sessions/{code}", f"/sessions/{code}/delete"):
        check(page, stack.admin_url + path)
    page.goto(f"{stack.admin_url}/polls/{slug}/codes")
    page.get_by_label("Numbers or codes").fill("100")
    page.get_by_role("button", name="Replace …").click()
    expect(page.get_by_role("alert")).to_contain_text("the last one is 9")
    assert violations(page) == []
    page.get_by_label("Numbers or codes").fill("1-9")
    page.get_by_role("button", name="Replace …").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Replace 9 codes?")
    assert violations(page) == []
