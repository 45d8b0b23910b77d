"""The pages of the admin service in a real browser: from `voting up` to the first vote; a session; bad input."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.conftest import OpenBrowser
from tests.e2e.stack import Stack
from tests.e2e.test_accessibility import violations
from tests.waiting import PLAIN, eventually

PHONE = {"viewport": {"width": 390, "height": 844}}
MARKUP = "<b>Bold</b> & <img src=x onerror=alert(1)>"


def admin_link(stack: Stack) -> str:
    """Return the link that `voting up` prints."""
    found = re.search(r"Admin +(http\S+key=\S+)", stack.output.read_text())
    assert found
    return found[1]


def signed_in(stack: Stack, context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto(f"{stack.admin_url}/?key={stack.admin_key}")
    expect(page).to_have_url(f"{stack.admin_url}/")
    return page


def make_poll(stack: Stack, *, state: str = "draft", **fields: object) -> str:
    values = {"question": "Tea or coffee?", "options": ["Tea", "Coffee"]} | fields
    with stack.admin() as client:
        answer = client.post("/api/polls", json=values)
        assert answer.status_code == 201, answer.text
        slug: str = answer.json()["slug"]
        if state != "draft":
            assert client.patch(f"/api/polls/{slug}", json={"state": "open"}).status_code == 200
        if state == "closed":
            assert client.patch(f"/api/polls/{slug}", json={"state": "closed"}).status_code == 200
    return slug


def poll(stack: Stack, slug: str) -> dict[str, object]:
    with stack.admin() as client:
        found: dict[str, object] = client.get(f"/api/polls/{slug}").json()
        return found


def make_session(stack: Stack, *slugs: str, title: str = "All hands") -> tuple[str, str]:
    """Make a session; return its code and its host link."""
    with stack.admin() as client:
        made = client.post("/api/sessions", json={"title": title, "polls": slugs}).json()
    return made["code"], made["host_url"]


def press_until(page: Page, name: str, key: str = "Tab") -> None:
    """Press a key until the control with this name has the focus."""
    for _ in range(60):
        page.keyboard.press(key)
        focused = page.evaluate("(document.activeElement.textContent || document.activeElement.value || '').trim()")
        if focused.startswith(name):
            return
    pytest.fail(f"no control named {name} gets the focus")


def slug_of(page: Page) -> str:
    return urlsplit(page.url).path.split("/")[2]


@pytest.mark.parametrize("device", ["mouse", "keyboard"])
def test_from_voting_up_to_the_first_vote(
    stack: Stack, open_browser: OpenBrowser, artefacts: Path, device: str
) -> None:
    """Host on a phone, screen and voter: under a minute to the first vote on one's own poll, with one device alone."""
    host, screen, voter = (
        open_browser(**PHONE).new_page(),
        open_browser(viewport={"width": 1920, "height": 1080}).new_page(),
        open_browser(**PHONE).new_page(),
    )
    began = time.monotonic()
    host.goto(admin_link(stack))

    if device == "mouse":
        host.screenshot(path=artefacts / "admin-empty.png")
        host.get_by_role("link", name="New poll").click()
        for field, text in (("Your question", "Where do we eat?"), ("Option 1", "Pizza"), ("Option 2", "Soup")):
            host.get_by_label(field, exact=True).click()
            host.keyboard.type(text, delay=30)
        host.screenshot(path=artefacts / "admin-first-poll.png")
        host.get_by_role("button", name="Open now").click()
    else:
        press_until(host, "New poll")
        host.keyboard.press("Enter")
        expect(host.get_by_label("Your question")).to_be_focused()
        for text in ("Where do we eat?", "Pizza", "Soup"):
            host.keyboard.type(text, delay=30)
            if text != "Soup":
                host.keyboard.press("Enter")
        press_until(host, "Open now")
        host.keyboard.press("Enter")
    expect(host.get_by_role("heading", name="Where do we eat?")).to_be_visible()
    expect(host.locator(".pill").first).to_have_text("Open")
    expect(host.locator(".qr svg")).to_be_visible()
    host.screenshot(path=artefacts / "admin-first-open.png")

    address = host.get_by_label("The address for voters").input_value()
    screen.goto(str(host.get_by_role("link", name="Big screen").get_attribute("href")))
    expect(screen.get_by_role("heading", name="Where do we eat?")).to_be_visible()
    voter.goto(address)
    if device == "mouse":
        voter.get_by_role("button", name="Soup").click()
    else:
        press_until(voter, "Soup")
        voter.keyboard.press("Enter")
    expect(host.locator("#total")).to_have_text("1")
    took = time.monotonic() - began
    expect(host.locator("#bars li", has_text="Soup").locator(".value")).to_have_text("1 · 100.0%")
    expect(screen.locator("#total")).to_contain_text("1")
    host.screenshot(path=artefacts / "admin-first-vote.png")
    screen.screenshot(path=artefacts / "admin-first-vote-screen.png")
    assert took < 60

    if device == "mouse":
        host.get_by_role("button", name="Close voting").click()
    else:
        press_until(host, "Close voting", "Shift+Tab")
        host.keyboard.press("Enter")
    expect(host.locator(".pill").first).to_have_text("Final result")
    assert poll(stack, slug_of(host))["state"] == "final"


def test_a_host_runs_a_session_from_a_phone(stack: Stack, open_browser: OpenBrowser, artefacts: Path) -> None:
    first, second = make_poll(stack), make_poll(stack, question="Which snacks?", options=["Nuts", "Fruit"])
    other = make_poll(stack, question="Not for the host")
    code, link = make_session(stack, first, second)
    host, voter = open_browser(**PHONE).new_page(), open_browser(**PHONE).new_page()
    host.goto(link)
    expect(host).to_have_url(f"{stack.admin_url}/sessions/{code}/control")
    assert violations(host) == []
    host.get_by_role("button", name="Start with the first question").click()
    expect(host.get_by_role("heading", name="Tea or coffee?")).to_be_visible()
    host.get_by_role("button", name="Open voting").click()
    expect(host.locator(".condition .pill")).to_have_text("Open")
    voter.goto(f"{stack.vote_url}/{code}")
    voter.get_by_role("button", name="Tea").click()
    expect(host.locator("#total")).to_have_text("1")
    expect(host.locator("#people")).to_have_text("1")
    host.get_by_role("button", name="Close in 1:00").click()
    expect(host.locator("#countdown")).to_contain_text(re.compile(r"closes in .?(1:0\d|0:5\d)"))
    host.get_by_role("button", name="+1 minute").click()
    expect(host.locator("#countdown")).to_contain_text(re.compile(r"closes in .?(2:0\d|1:5\d)"))
    host.get_by_role("button", name="Hide result").click()
    expect(host.locator(".condition")).to_contain_text("Only the host sees the result")
    assert violations(host) == []
    host.screenshot(path=artefacts / "admin-control-phone.png")
    main = host.locator(".thumb .main")
    box = main.bounding_box()
    assert box
    assert box["height"] >= 48
    assert box["y"] + box["height"] > 844 * 0.85  # within reach of the thumb
    main.click()
    expect(main).to_have_text("Next question")
    main.click()
    expect(host.get_by_role("heading", name="Which snacks?")).to_be_visible()
    expect(main).to_have_text("Open voting")
    host.get_by_role("button", name="Previous question").click()
    expect(host.get_by_role("heading", name="Tea or coffee?")).to_be_visible()
    for path in ("/", f"/sessions/{code}", f"/polls/{other}/control", "/audit", "/polls/new", f"/polls/{first}"):
        host.goto(stack.admin_url + path)
        if path == "/":
            expect(host).to_have_url(f"{stack.admin_url}/sessions/{code}/control")
        else:
            expect(host.get_by_role("heading", name="Not allowed")).to_be_visible()


def test_a_poll_works_without_javascript(stack: Stack, open_browser: OpenBrowser) -> None:
    page = signed_in(stack, open_browser(java_script_enabled=False, **PHONE))
    page.get_by_role("link", name="New poll").click()
    page.get_by_label("Your question").fill("Where to?")
    page.get_by_label("Option 1", exact=True).fill("Sea")
    page.get_by_label("Option 2", exact=True).fill("Hills")
    page.get_by_role("button", name="Add an option").click()
    page.get_by_label("Option 3", exact=True).fill("City")
    page.get_by_role("button", name="Move option 3 up").click()
    assert [page.get_by_label(f"Option {n}", exact=True).input_value() for n in (1, 2, 3)] == ["Sea", "City", "Hills"]
    page.get_by_role("button", name="Remove option 1").click()
    expect(page.get_by_label("Your question")).to_have_value("Where to?")
    page.get_by_role("button", name="Save for later").click()
    expect(page.locator(".condition .pill")).to_have_text("Not open yet")
    slug = slug_of(page)
    page.get_by_role("button", name="Open voting").click()
    expect(page.locator(".condition .pill")).to_have_text("Open")
    eventually(lambda: httpx.post(f"{stack.vote_url}/p/{slug}", data={"vote": "a"}, verify=PLAIN).status_code == 200)
    eventually(lambda: poll(stack, slug)["total"] == 1)
    page.reload()
    expect(page.locator("#total")).to_have_text("1")
    page.get_by_role("link", name="Edit poll").click()
    expect(page.get_by_text("This poll has votes, so its question and options must stay.")).to_be_visible()
    page.get_by_role("link", name="Reset …").click()
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_text("Round 2")).to_be_visible()
    page.get_by_role("link", name="Print or download the result").click()
    expect(page.get_by_role("heading", name="Earlier: round 1")).to_be_visible()


def test_a_session_works_without_javascript(stack: Stack, open_browser: OpenBrowser) -> None:
    make_poll(stack, question="Where to?")
    page = signed_in(stack, open_browser(java_script_enabled=False, **PHONE))
    page.get_by_role("link", name="New session").click()
    page.get_by_label("Title").fill("Friday")
    page.get_by_role("button", name="Make the session").click()
    link = page.get_by_role("textbox", name="Host link").input_value()
    assert re.fullmatch(re.escape(stack.admin_url) + "/host/[A-Za-z0-9_-]{43}", link)
    page.reload()
    expect(page.get_by_label("Host link")).to_have_count(0)
    assert link.rpartition("/")[2] not in page.content()
    for question in ("One?", "Two?"):
        page.get_by_role("link", name="Write a new question").click()
        page.get_by_label("Your question").fill(question)
        page.get_by_label("Option 1", exact=True).fill("Yes")
        page.get_by_label("Option 2", exact=True).fill("No")
        page.get_by_role("button", name="Add to the session").click()
    page.get_by_label("Or add a poll that you have").select_option(label="Where to?")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("button", name="Move up: Two?").click()
    page.get_by_role("button", name="Remove from the session: Where to?").click()
    titles = page.locator(".order h3")
    expect(titles).to_have_text(["Two?", "One?"])
    page.get_by_role("link", name="Control").click()
    page.get_by_role("button", name="Start with the first question").click()
    expect(page.get_by_role("heading", name="Two?")).to_be_visible()
    page.goto(page.url.replace("/control", ""))
    page.get_by_role("link", name="Delete this session").click()
    page.get_by_role("button", name="Delete the session").click()
    expect(page).to_have_url(f"{stack.admin_url}/")


def test_errors_are_beside_their_fields_and_the_input_is_kept(stack: Stack, open_browser: OpenBrowser) -> None:
    page = signed_in(stack, open_browser())
    page.goto(f"{stack.admin_url}/polls/new")
    page.get_by_label("Option 1", exact=True).fill("Same")
    page.get_by_label("Option 2", exact=True).fill("same")
    page.get_by_text("Who may vote, who sees the result, and when voting ends").click()
    page.get_by_label("Only you").check()
    page.get_by_label("Close by itself at").fill("2020-01-01T10:00")
    page.get_by_role("button", name="Open now").click()
    summary = page.get_by_role("alert")
    expect(summary).to_be_focused()
    expect(summary).to_contain_text("This field is empty.")
    question = page.get_by_label("Your question")
    described = str(question.get_attribute("aria-describedby"))
    assert page.locator(f"#{described}").text_content() == "This field is empty."
    assert violations(page) == []
    question.fill("Is it so?")
    page.get_by_role("button", name="Open now").click()
    expect(page.get_by_role("alert")).to_contain_text("Another option has the same label.")
    expect(page.get_by_role("alert")).to_contain_text("This time is in the past.")
    expect(page.get_by_label("Option 2", exact=True)).to_have_value("same")
    expect(page.get_by_label("Close by itself at")).to_have_value("2020-01-01T10:00")
    expect(page.get_by_label("Only you")).to_be_checked()
    page.get_by_role("link", name="Option 2: Another option has the same label.").click()
    expect(page.get_by_label("Option 2", exact=True)).to_be_focused()
    page.get_by_label("Option 2", exact=True).fill("Different")
    page.get_by_label("Close by itself at").fill("")
    page.get_by_role("button", name="Open now").click()
    expect(page.locator(".condition")).to_contain_text("Only the host sees the result")


def test_times_are_those_of_the_browser(stack: Stack, open_browser: OpenBrowser) -> None:
    page = signed_in(stack, open_browser(timezone_id="America/New_York"))
    day = (datetime.now(UTC) + timedelta(days=400)).replace(month=7, day=4)  # summer time: UTC-4
    page.goto(f"{stack.admin_url}/polls/new")
    page.get_by_label("Your question").fill("When?")
    page.get_by_label("Option 1", exact=True).fill("Now")
    page.get_by_label("Option 2", exact=True).fill("Later")
    page.get_by_text("Who may vote, who sees the result, and when voting ends").click()
    expect(page.get_by_text("Your local time: America/New_York.")).to_be_visible()
    page.get_by_label("Open by itself at").fill(f"{day:%Y-%m-%d}T18:30")
    page.get_by_role("button", name="Save for later").click()
    expect(page.locator("#countdown")).to_contain_text("opens in")
    slug = slug_of(page)
    assert str(poll(stack, slug)["opens_at"]).startswith(f"{day:%Y-%m-%d}T22:30")
    page.goto(f"{stack.admin_url}/polls/{slug}")
    expect(page.get_by_label("Open by itself at")).to_have_value(f"{day:%Y-%m-%d}T18:30")
    changed = poll(stack, slug)["changed"]
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#countdown")).to_contain_text("opens in")
    assert poll(stack, slug)["changed"] == changed  # nothing was changed


def test_a_form_that_is_sent_twice_does_it_once(stack: Stack) -> None:
    with stack.admin() as client:
        page = client.get("/polls/new").text
        form_id = re.search(r'name="form" value="(\w+)"', page)
        assert form_id
        form = {"form": form_id[1], "question": "Twice?", "kind": "single", "option": ["Yes", "No"], "do": "open"}
        first, second = (client.post("/polls/new", data=form) for _ in range(2))
        assert (first.status_code, second.status_code) == (303, 303)
        assert first.headers["location"] == second.headers["location"]
        control = first.headers["location"]
        slug = control.split("/")[2]
        for action in ("open", "close"):
            for _ in range(2):
                assert client.post(control, data={"do": action}).status_code == 303
        for _ in range(2):
            assert client.post(f"/polls/{slug}/reset", data={"round": "1"}).status_code == 303
        assert poll(stack, slug)["round"] == 2
        assert client.post(control, data={"do": "open"}).status_code == 303
        ends = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        for _ in range(2):
            client.post(control, data={"do": "more", "closes_at": ends})
        left = datetime.fromisoformat(str(poll(stack, slug)["closes_at"])) - datetime.now(UTC)
        assert timedelta(minutes=5, seconds=50) < left < timedelta(minutes=6, seconds=1)
        code, _ = make_session(stack, slug, make_poll(stack), make_poll(stack))
        following = client.get(f"/api/sessions/{code}").json()["polls"]
        for _ in range(2):
            client.post(f"/sessions/{code}/control", data={"do": f"show {following[1]}"})
        assert client.get(f"/api/sessions/{code}").json()["current"] == following[1]
        edit = {"question": "Twice and edited?", "kind": "single", "option": ["Yes", "No"], "do": "save"}
        edit["changed"] = str(poll(stack, slug)["changed"])
        assert [client.post(f"/polls/{slug}", data=edit).status_code for _ in range(2)] == [303, 303]
        edit["question"] = "From an old page"
        refused = client.post(f"/polls/{slug}", data=edit)
        assert refused.status_code == 412
        assert "From an old page" in refused.text
        for _ in range(2):
            assert client.post(f"/polls/{slug}/delete").status_code == 303


def test_the_key_can_be_typed(stack: Stack, open_browser: OpenBrowser) -> None:
    page = open_browser().new_page()
    page.goto(stack.admin_url)
    expect(page.get_by_label("Key")).to_be_visible()
    assert violations(page) == []
    page.get_by_label("Key").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not valid")
    assert violations(page) == []
    page.get_by_label("Key").fill(stack.admin_key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="New poll")).to_be_visible()
    assert stack.admin_key not in page.url
    other_site = {"origin": "https://elsewhere.example", "sec-fetch-site": "cross-site"}
    answer = httpx.post(f"{stack.admin_url}/sign-in", data={"key": stack.admin_key}, headers=other_site, verify=PLAIN)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_control_says_when_the_connection_is_lost_and_when_something_is_refused(
    stack: Stack, open_browser: OpenBrowser
) -> None:
    slug = make_poll(stack, state="open")
    page = signed_in(stack, open_browser(**PHONE))
    page.goto(f"{stack.admin_url}/polls/{slug}/control")
    page.route("**/*", lambda route: route.abort())
    expect(page.locator("#trouble")).to_contain_text("Connection lost")
    assert violations(page) == []
    page.unroute("**/*")
    expect(page.locator("#trouble")).to_be_hidden()
    page.route("**/api/**", lambda route: route.abort())  # so that it does not learn that the poll is closed
    with stack.admin() as client:
        client.patch(f"/api/polls/{slug}", json={"state": "closed"})
    page.get_by_role("button", name="Close in 1:00").click()
    expect(page.locator("#trouble")).to_contain_text("This poll is closed.")
    expect(page.locator(".condition .pill")).to_have_text(re.compile("Closing …|Final result"))


def test_control_says_not_now_while_the_database_is_away(stack: Stack, open_browser: OpenBrowser) -> None:
    slug = make_poll(stack)
    page = signed_in(stack, open_browser(**PHONE))
    page.goto(f"{stack.admin_url}/polls/{slug}/control")
    with stack.frozen("postgres"):
        page.get_by_role("button", name="Open voting").click()
        expect(page.locator("#trouble")).to_contain_text("Not now: the database does not answer.")
    expect(page.locator("#trouble")).to_be_hidden()
    assert poll(stack, slug)["state"] == "draft"
    page.get_by_role("button", name="Open voting").click()
    expect(page.locator(".condition .pill")).to_have_text("Open")


def test_axe_finds_nothing_on_any_page_in_any_state(stack: Stack, open_browser: OpenBrowser) -> None:
    kinds: list[dict[str, object]] = [
        {"kind": "multiple", "max_choices": 2, "options": ["A", "B", "C"]},
        {"kind": "rating", "scale": 5, "options": []},
        {"kind": "ranking", "options": ["A", "B", "C"]},
    ]
    slugs = [make_poll(stack, **fields, state="open") for fields in kinds]
    draft = make_poll(stack, question=MARKUP, options=[MARKUP, "Plain"])
    closed = make_poll(stack, state="closed")
    for slug, choice in zip(slugs, ("ab", "4", "cab"), strict=True):
        url, vote = f"{stack.vote_url}/p/{slug}", {"vote": choice}
        eventually(lambda url=url, vote=vote: httpx.post(url, data=vote, verify=PLAIN).status_code < 400)  # type: ignore[misc]
    eventually(lambda: all(poll(stack, slug)["total"] for slug in slugs) and poll(stack, closed)["state"] == "final")
    code, _ = make_session(stack, *slugs, draft, closed, title=MARKUP)
    empty, _ = make_session(stack, title="Empty")
    paths = ["/", "/audit", "/polls/new", f"/polls/new?session={code}", "/polls/default", "/sessions/new", "/nowhere"]
    paths += ["/sign-in", f"/sessions/{code}", f"/sessions/{empty}", f"/sessions/{empty}/control"]
    paths += [f"/sessions/{code}/delete", f"/polls/{draft}/delete", "/polls/default/delete", f"/polls/{slugs[0]}/reset"]
    paths += [f"/polls/{slug}" for slug in (slugs[1], draft, closed)]
    paths += [f"/polls/{slug}{page}" for slug in (*slugs, closed) for page in ("/control", "/print")]
    page = signed_in(stack, open_browser(reduced_motion="reduce", viewport={"width": 320, "height": 700}))
    with stack.admin() as client:
        for current in (None, slugs[0], draft, closed):
            client.patch(f"/api/sessions/{code}", json={"current": current})
            check(page, f"{stack.admin_url}/sessions/{code}/control")
    for path in paths:
        check(page, stack.admin_url + path)


def check(page: Page, url: str) -> None:
    """Open a page: axe finds nothing, it is not wider than the screen, and nothing in it was taken for HTML."""
    page.emulate_media(color_scheme="light")
    page.goto(url)
    assert violations(page) == [], url
    page.emulate_media(color_scheme="dark")
    found = page.evaluate("axe.run(document, {runOnly: {type: 'rule', values: ['color-contrast']}})")
    assert found["violations"] == [], url
    assert page.evaluate("document.documentElement.scrollWidth") <= 320, url
    assert page.locator("b, img").count() == 0, url


def test_html_in_labels_is_text(stack: Stack, open_browser: OpenBrowser) -> None:
    page = signed_in(stack, open_browser())
    page.goto(f"{stack.admin_url}/polls/new")
    page.get_by_label("Your question").fill(MARKUP)
    page.get_by_label("Option 1", exact=True).fill(MARKUP)
    page.get_by_label("Option 2", exact=True).fill("'; DROP TABLE votes; --")
    page.get_by_role("button", name="Open now").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(MARKUP)
    slug = slug_of(page)
    for path in (
        f"/polls/{slug}",
        f"/polls/{slug}/print",
        f"/polls/{slug}/control",
        f"/polls/{slug}/delete",
        "/",
        "/audit",
    ):
        page.goto(stack.admin_url + path)
        shown = page.locator("main").inner_text() + "".join(
            page.locator("main input").evaluate_all("all => all.map(x => x.value)")
        )
        assert MARKUP in shown, path
        assert page.locator("main b, main img").count() == 0
    page.goto(f"{stack.vote_url}/p/{slug}")
    expect(page.get_by_role("heading", level=1)).to_have_text(MARKUP)
    page.goto(f"{stack.result_url}/p/{slug}")
    expect(page.get_by_role("heading", level=1)).to_have_text(MARKUP)


def test_the_list_copies_and_deletes(stack: Stack, open_browser: OpenBrowser) -> None:
    slug = make_poll(stack, question="To be copied?")
    page = signed_in(stack, open_browser())
    card = page.locator(f"#poll-{slug}")
    card.get_by_role("button", name="Copy").click()
    expect(page.get_by_label("Your question")).to_have_value("To be copied?")
    copied = slug_of(page)
    assert copied != slug
    page.goto(f"{stack.admin_url}/polls/{copied}/delete")
    page.get_by_role("button", name="Delete it for good").click()
    expect(page).to_have_url(f"{stack.admin_url}/")
    expect(page.locator(f"#poll-{slug}")).to_be_visible()
    expect(page.locator(f"#poll-{copied}")).to_have_count(0)
