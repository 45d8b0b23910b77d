"""`voting admin` as a process: it starts and stops cleanly, and browsers sign in as people do."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import OpenBrowser
from tests.e2e.service import Service
from tests.e2e.stack import free_port
from tests.http_server import Handler, serving
from tests.integration.admin import KEY, PASSWORD
from tests.integration.cluster import Cluster
from tests.waiting import PLAIN, eventually


@pytest.fixture(scope="module", autouse=True)  # before Chromium, with which no other event loop can run
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running service."""
    folder = tmp_path_factory.mktemp("admin")
    cluster = Cluster(folder / "database")
    cluster.migrate(("admin", PASSWORD))
    number = free_port()
    url = cluster.url_of("voting_admin", PASSWORD)
    service = Service("admin", folder, DATABASE_URL=url, ADMIN_KEY=KEY, ADMIN_PORT=str(number), HOST="127.0.0.1")
    eventually(lambda: httpx.get(f"http://127.0.0.1:{number}/readyz", verify=PLAIN).status_code == 200)
    yield number
    assert service.stop() == 0, service.log
    assert "admin.stopped" in service.log
    assert KEY not in service.log
    cluster.stop()


@pytest.fixture
def other_site(port: int) -> Iterator[str]:
    """The address of a page of another site, with links to the service."""
    page = f'<a id="plain" href="http://localhost:{port}/">x</a> <a id="key" href="http://localhost:{port}/?key={KEY}">y</a>'

    class Page(Handler):
        def answer(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

    with serving(Page) as url:
        yield f"{url}/"


def test_a_link_on_another_site_leads_to_the_page_of_who_is_signed_in(
    port: int, other_site: str, open_browser: OpenBrowser, artefacts: Path
) -> None:
    """The cookie is Strict, so the browser does not send it at first."""
    site = f"http://localhost:{port}/"
    for first in ("#key", "signed in"):
        page = open_browser().new_page()
        if first == "signed in":
            page.goto(f"{site}?key={KEY}")
            page.wait_for_url(f"{site}**")
        page.goto(other_site)
        page.click("#key" if first == "#key" else "#plain")
        page.wait_for_selector("text=Polls and sessions")
        assert page.url == site
        assert KEY not in page.content()
        assert page.evaluate("document.referrer") in {"", site}
    page.goto(f"{site}docs")
    page.screenshot(path=artefacts / "api-docs.png")


def test_without_a_key_a_link_on_another_site_ends_at_the_refusal(
    port: int, other_site: str, open_browser: OpenBrowser
) -> None:
    page = open_browser().new_page()
    page.goto(other_site)
    page.click("#plain")
    page.wait_for_selector("text=Not signed in")
    assert page.url == f"http://localhost:{port}/"
