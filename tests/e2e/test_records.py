"""Trackers, the closing of a poll, its final result and its recount, as voters, viewers and hosts see them."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import psycopg
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e import test_admin_pages as admin
from tests.e2e.conftest import OpenBrowser
from tests.e2e.polls import change_poll, close_poll, make_final, make_poll
from tests.e2e.stack import Stack
from tests.e2e.test_browser import sum_of
from tests.e2e.test_follow import open_page
from tests.waiting import PLAIN, eventually

PHONE = {"viewport": {"width": 390, "height": 844}, "reduced_motion": "reduce"}
WALL = {"viewport": {"width": 1280, "height": 720}, "reduced_motion": "reduce"}
TRACKER = re.compile("[0-9a-f]{4}(?:-[0-9a-f]{4}){3}")
CHOICES = {  # kind -> the labels that are chosen, and how the list of ballots says them
    "single": (["Salad"], "Salad"),
    "multiple": (["Salad", "Cake"], "Salad, Cake"),
    "rating": (["4"], "4"),
    "ranking": (["Cake", "Soup"], "Cake \u203a Soup"),
}


def choose(page: Page, kind: str) -> None:
    for label in CHOICES[kind][0]:
        if kind == "multiple":
            page.get_by_label(label).check()
        else:
            page.locator("#ballot button:visible", has_text=label).click()
    if kind in {"multiple", "ranking"}:
        send(page)


def send(page: Page) -> None:
    page.get_by_role("button", name="Send your vote").click()


def tracker_on(page: Page, *, other_than: str = "") -> str:
    """Return the tracker that the ballot shows beside the receipt."""
    small = page.locator("#status small")
    expect(small.first).to_have_text(re.compile(r"^Receipt .?\d+-\d+"))
    expect(small.last).to_have_text(re.compile("^Your tracker .?[0-9a-f]{4}-"))
    if other_than:
        expect(small.last).not_to_contain_text(other_than)
    found = TRACKER.search(small.last.inner_text())
    assert found
    return found[0]


@pytest.mark.parametrize("kind", CHOICES)
def test_a_voter_finds_the_own_ballot_and_counts_all_of_them_again(
    stack: Stack, open_browser: OpenBrowser, artefacts: Path, tmp_path: Path, kind: str
) -> None:
    path = make_poll(stack, f"r-{kind}", kind, publish=True, scale=5 if kind == "rating" else None)
    page = open_page(stack, open_browser(**PHONE), path)
    choose(page, kind)
    replaced = tracker_on(page)
    if kind in {"multiple", "ranking"}:
        send(page)
    else:
        choose(page, kind)
    own = tracker_on(page, other_than=replaced)
    page.reload()
    assert tracker_on(page) == own
    page.screenshot(path=artefacts / f"ballot-tracker-{kind}.png", full_page=True)

    close_poll(stack, f"r-{kind}")
    expect(page.locator(".state-card")).to_have_text("Voting is closed.")
    expect(page.locator("#status")).to_have_text(f"Your vote: {' · '.join(CHOICES[kind][0])}")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=artefacts / f"ballot-closed-{kind}.png", full_page=True)
    page.get_by_role("link", name="Is my vote in?").click()
    expect(page).to_have_url(f"{stack.result_url}{path}/ballots?tracker={own}")
    expect(page.get_by_role("textbox")).to_have_value(own)
    expect(page.locator(".found bdi")).to_have_text(CHOICES[kind][1])
    page.screenshot(path=artefacts / f"ballots-{kind}.png", full_page=True)
    page.get_by_role("textbox").fill(replaced)
    page.get_by_role("button", name="Look for it").click()
    expect(page.locator(".missing")).to_contain_text("No ballot in the list has this tracker.")

    assert verified(page, tmp_path) == 0
    change_first_ballot(next(tmp_path.glob("*.csv")))
    assert verified(page, tmp_path, download=False) == 1


def verified(page: Page, folder: Path, *, download: bool = True) -> int:
    """Save both files, as somebody does who reads the page, and run the command that it names; return the exit code."""
    if download:
        for link in ("All ballots (CSV)", "The record of the final result (JSON)"):
            with page.expect_download() as downloading:
                page.get_by_role("link", name=link).click()
            downloading.value.save_as(folder / downloading.value.suggested_filename)
    command = page.locator("code", has_text="voting verify").inner_text().split()
    command += ["--fingerprint", page.locator(".fingerprint").inner_text()]
    assert command[0] == "./voting"
    run = subprocess.run(
        [sys.executable, "-m", "voting", *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    is_right = "✓ the ballots add up to the record" in run.stdout and "✓ the record has the fingerprint" in run.stdout
    assert is_right == (run.returncode == 0), run.stdout + run.stderr
    return run.returncode


def change_first_ballot(file: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b",", b",1" if b",4" in lines[1] else b",a", 1)
    file.write_bytes(b"".join(lines))


def test_without_javascript_the_tracker_is_shown_with_the_receipt_and_found_when_it_is_typed(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    plain = open_browser(java_script_enabled=False, viewport={"width": 320, "height": 640})
    page = open_page(stack, plain, make_poll(stack, "r-plain", "multiple", publish=True))
    page.get_by_label("Bread").check()
    send(page)
    own = tracker_on(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.goto(f"{stack.vote_url}/p/r-plain/ballots?tracker={own}")
    expect(page.locator("main")).to_contain_text("Voting has not closed yet, so there is no final result.")
    close_poll(stack, "r-plain")
    eventually(lambda: "Is my vote in?" in httpx.get(f"{stack.vote_url}/p/r-plain").text)
    page.goto(f"{stack.vote_url}/p/r-plain")
    page.get_by_role("link", name="Is my vote in?").click()
    page.get_by_role("textbox").fill("0123")
    page.get_by_role("button", name="Look for it").click()
    expect(page.locator(".missing")).to_contain_text("A tracker has 16 digits")
    page.get_by_role("textbox").fill(own.upper().replace("-", " "))
    page.get_by_role("button", name="Look for it").click()
    expect(page.locator(".found bdi")).to_have_text("Bread")


def test_all_pages_say_closing_until_the_last_vote_is_counted_and_then_final(
    stack: Stack, open_browser: OpenBrowser, artefacts: Path
) -> None:
    """A lock keeps the workers from counting: the last vote is accepted, and waits, while the poll is closed."""
    slug = admin.make_poll(stack, state="open", publish=True)
    ballot = open_page(stack, open_browser(**PHONE), f"/p/{slug}")
    host = admin.signed_in(stack, open_browser(**PHONE))
    host.goto(f"{stack.admin_url}/polls/{slug}/control")
    live = [open_browser(**WALL).new_page() for _ in range(3)]
    result, wall, _ = live
    plain = open_browser(java_script_enabled=False).new_page()
    for page, path in zip(live, (f"/p/{slug}", f"/p/{slug}/present", f"/embed/{slug}"), strict=True):
        page.goto(stack.result_url + path)
        expect(page.locator("#state")).to_have_text("Live")
    for page in (host, *live):
        page.evaluate("window.same = true")

    with psycopg.connect(stack.state["database_url"]) as blocker:
        blocker.execute("LOCK TABLE votes IN EXCLUSIVE MODE")
        ballot.get_by_role("button", name="Coffee").click()
        tracker_on(ballot)
        host.get_by_role("button", name="Close voting").click()
        expect(host.locator(".condition .pill")).to_have_text("Closing …")
        expect(host.locator("main")).to_contain_text("Closing …: the last votes are being counted")
        for page in live:
            expect(page.locator("#phase")).to_have_text("Closing …")
            expect(page.locator("#state")).to_have_text("Closing …: the last votes are being counted")
        plain.goto(f"{stack.result_url}/p/{slug}")
        expect(plain.locator("#phase")).to_have_text("Closing …")
        expect(ballot.locator(".state-card")).to_have_text("Voting is closed.")
        host.screenshot(path=artefacts / "control-closing.png", full_page=True)
        result.screenshot(path=artefacts / "result-closing.png", full_page=True)
        wall.screenshot(path=artefacts / "present-closing.png")
        ballot.get_by_role("link", name="Is my vote in?").click()
        expect(ballot.locator("main")).to_contain_text("Voting is closing: the last votes are being counted.")

    expect(host.locator(".condition .pill")).to_have_text("Final result")
    expect(host.locator("#total")).to_have_text("1")
    for page in live:
        expect(page.locator("#state")).to_have_text("Final result")
        expect(page.locator("[data-key=b] .votes")).to_have_text("1 vote")
    expect(plain.locator("#state")).to_have_text("Final result")  # it loads itself again
    assert [page.evaluate("window.same") for page in (host, *live)] == [True] * 4
    host.screenshot(path=artefacts / "control-final.png", full_page=True)
    result.screenshot(path=artefacts / "result-final.png", full_page=True)
    wall.screenshot(path=artefacts / "present-final.png")


def test_the_same_fingerprint_is_everywhere_and_stays_with_its_round(stack: Stack, open_browser: OpenBrowser) -> None:
    slug = admin.make_poll(stack, state="open", publish=True)
    vote_url = f"{stack.vote_url}/p/{slug}"
    eventually(lambda: httpx.post(vote_url, data={"vote": "a"}, verify=PLAIN).status_code == 200)
    with stack.admin() as client:
        before = client.patch(f"/api/polls/{slug}", json={"state": "closed"}).json()
    eventually(lambda: admin.poll(stack, slug)["state"] == "final")
    found = admin.poll(stack, slug)
    fingerprint = str(found["fingerprint"])
    record = httpx.get(str(found["record_url"]), verify=PLAIN).json()
    assert (record["total"], record["fingerprint"]) == (1, fingerprint)
    assert found["final"] >= before["closed"]
    page = admin.signed_in(stack, open_browser())
    for url in (
        f"{stack.result_url}/p/{slug}",
        f"{stack.result_url}/p/{slug}/present",
        f"{stack.admin_url}/polls/{slug}/control",
    ):
        page.goto(url)
        code = page.locator("code", has_text=fingerprint[:16])
        expect(code).to_have_attribute("title", fingerprint)
    page.get_by_role("link", name="The list of ballots, and the record").click()
    expect(page).to_have_url(str(found["ballots_url"]))
    expect(page.locator(".fingerprint")).to_have_text(fingerprint)
    page.goto(f"{stack.admin_url}/polls/{slug}/print")
    expect(page.locator(".fingerprint")).to_have_text(fingerprint)
    with stack.admin() as client:
        again = client.patch(f"/api/polls/{slug}", json={"state": "draft"}).json()
    assert (again["final"], again["fingerprint"]) == (None, None)
    (earlier,) = again["rounds"]
    expected = {"round": 1, "total": 1, "final": found["final"], "fingerprint": fingerprint, "publish": True}
    assert {name: earlier[name] for name in expected} == expected


def test_the_host_decides_until_the_first_vote_whether_people_can_check_the_count(
    stack: Stack, open_browser: OpenBrowser, artefacts: Path
) -> None:
    page = admin.signed_in(stack, open_browser(**PHONE))
    page.goto(f"{stack.admin_url}/polls/new")
    page.get_by_label("Your question").fill("Do we check?")
    page.get_by_label("Option 1", exact=True).fill("Yes")
    page.get_by_label("Option 2", exact=True).fill("No")
    page.get_by_text("Who may vote, who sees the result, and when voting ends").click()
    group = page.get_by_role("group", name="Can people check the count?")
    expect(group.get_by_label("No list of ballots")).to_be_checked()
    group.get_by_label("Publish the ballots").check()
    page.screenshot(path=artefacts / "editor-publish.png", full_page=True)
    page.get_by_role("button", name="Open now").click()
    expect(page.locator(".condition .pill")).to_have_text("Open")
    slug = admin.slug_of(page)
    assert admin.poll(stack, slug)["publish"] is True
    page.goto(f"{stack.admin_url}/polls/{slug}")
    for label, publishes in (("No list of ballots", False), ("Publish the ballots", True)):
        group.get_by_label(label).check()
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator(".condition")).to_be_visible()
        assert admin.poll(stack, slug)["publish"] is publishes
        page.goto(f"{stack.admin_url}/polls/{slug}")
    url = f"{stack.vote_url}/p/{slug}"
    eventually(lambda: "tracker" in httpx.post(url, data={"vote": "a"}, headers={"accept": "application/json"}).json())
    eventually(lambda: admin.poll(stack, slug)["total"])
    page.reload()
    expect(group.get_by_label("Publish the ballots")).to_be_checked()
    expect(group.get_by_label("No list of ballots")).to_be_disabled()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".condition")).to_be_visible()
    assert admin.poll(stack, slug)["publish"] is True


def test_the_way_to_the_ballots_is_shown_only_while_the_result_is_public(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    path = make_poll(stack, "r-hidden", publish=True, results="hidden")
    page = open_page(stack, open_browser(), path)
    page.get_by_role("button", name="Soup").click()
    own = tracker_on(page)
    close_poll(stack, "r-hidden")
    expect(page.locator(".state-card")).to_have_text("Voting is closed.")
    link = page.get_by_role("link", name="Is my vote in?")
    expect(link).to_be_hidden()
    assert httpx.get(f"{stack.result_url}{path}/ballots").status_code == 404
    change_poll(stack, "r-hidden", "results = 'live'")
    expect(link).to_have_attribute("href", f"{stack.vote_url}{path}/ballots?tracker={own}")
    change_poll(stack, "r-hidden", "results = 'hidden'")
    expect(link).to_be_hidden()


@pytest.mark.parametrize("kind", ["single", "multiple"])
def test_a_vote_that_was_sent_before_the_script_was_loaded_is_remembered(
    stack: Stack, open_browser: OpenBrowser, kind: str
) -> None:
    browser = open_browser()
    browser.route("**/ballot-*.js", lambda route: route.abort(), times=1)
    slug = f"r-early-{kind}"
    page = open_page(stack, browser, make_poll(stack, slug, kind, publish=True))
    choose(page, kind)
    own = tracker_on(page)
    close_poll(stack, slug)
    expect(page.locator(".state-card")).to_have_text("Voting is closed.")
    expect(page.locator("#status")).to_have_text(f"Your vote: {' · '.join(CHOICES[kind][0])}")
    link = page.get_by_role("link", name="Is my vote in?")
    expect(link).to_have_attribute("href", f"{stack.vote_url}/p/{slug}/ballots?tracker={own}")


def test_the_page_of_the_ballots_is_small(stack: Stack, context: BrowserContext) -> None:
    tracker = make_final(stack, "r-small", publish=True)
    page = context.new_page()
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(sum_of(request.sizes())))
    page.goto(f"{stack.result_url}/p/r-small/ballots?tracker={tracker}", wait_until="networkidle")
    expect(page.locator(".found")).to_be_visible()
    assert len(sizes) <= 6
    assert sum(sizes) < 60_000
