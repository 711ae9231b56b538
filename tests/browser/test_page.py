"""The page in a real browser: click through it, answer a question, and see that the strict policy is never broken."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from web_demo import DemoView, busy

from aiops.web.app import create_app
from aiops.web.server import Server

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync"]
pytestmark = [pytest.mark.real, pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no chromium on this machine")]
sync_api = pytest.importorskip("playwright.sync_api")


class Site:
    """A served demo, a page on it, and everything that the browser complained about."""

    def __init__(self, view: DemoView, server: Server, page: sync_api.Page) -> None:
        self.view, self.server, self.page = view, server, page
        self.complaints: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith(server.url) else self.complaints.append(f"asked {r.url}"))
        page.set_default_timeout(15_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield opened
        opened.close()


def open_site(browser: sync_api.Browser, view: DemoView, **options: object) -> Iterator[Site]:
    server = Server(create_app(view, poll_s=0.05), port=0)
    server.start()
    context = browser.new_context(**options)  # type: ignore[arg-type]
    try:
        yield Site(view, server, context.new_page())
    finally:
        context.close()
        server.stop()


@pytest.fixture
def site(browser: sync_api.Browser) -> Iterator[Site]:
    yield from open_site(browser, busy())


@pytest.fixture
def phone(browser: sync_api.Browser) -> Iterator[Site]:
    yield from open_site(browser, busy(), viewport={"width": 360, "height": 740}, color_scheme="dark")


@pytest.fixture
def guarded(browser: sync_api.Browser) -> Iterator[Site]:
    yield from open_site(browser, busy("s3cret"))


def test_from_the_list_to_the_plots_of_an_incident(site: Site) -> None:
    """Click an incident: its plots are there, drawn, and the browser has nothing to complain about."""
    site.page.goto(site.server.url)
    site.page.get_by_role("link", name=re.compile("gpu_temperature")).click()
    sync_api.expect(site.page.get_by_role("heading", level=1)).to_contain_text("91.2 °C")
    plots = site.page.locator("figure.plot svg")
    sync_api.expect(plots).to_have_count(5)
    for k in range(5):
        line = plots.nth(k).locator("path.line")
        sync_api.expect(line).to_be_visible()
        box = line.bounding_box()
        assert box is not None
        assert box["width"] > 200
    sync_api.expect(site.page.locator("#link")).to_have_text("live")
    assert site.complaints == []


def test_what_is_urgent_and_was_here_before(phone: Site) -> None:
    """The most urgent first, with its level; the incident tells who is hurt, why not the next, and what helped before."""
    phone.page.goto(phone.server.url)
    rows = phone.page.locator("section.alarm tbody tr")
    sync_api.expect(rows.first).to_contain_text("P1")
    sync_api.expect(rows.first).to_contain_text("the third like it in 7 days; on 2026-02-22 Drain helped")
    sync_api.expect(rows.last).to_contain_text("P4")
    phone.page.goto(f"{phone.server.url}/incidents/inc-7f21")
    told = phone.page.locator("dl.account")
    for words in ("Who is hurt", "spends its error budget 21 times too fast", "Why not", "aiops approve act-7f21-2"):
        sync_api.expect(told).to_contain_text(words)
    assert phone.complaints == []


def test_an_answer_is_sent_and_the_page_follows(site: Site) -> None:
    """Approve: the daemon hears it, the button goes, without a reload."""
    site.page.goto(f"{site.server.url}/incidents/inc-7f21")
    site.page.get_by_role("button", name="Approve").click()
    sync_api.expect(site.page.get_by_text("Approved. It is checked once more before it acts.")).to_be_visible()
    sync_api.expect(site.page.get_by_role("button", name="Approve")).to_have_count(0)
    assert site.view.said == [("approve", "act-7f21-2", "http")]
    assert site.complaints == []


def test_the_page_follows_what_happens_elsewhere(site: Site) -> None:
    """Somebody else's change appears through the event stream; what was unfolded stays so."""
    site.page.goto(f"{site.server.url}/incidents/inc-7f21")
    site.page.get_by_text("1 less likely candidate").click()
    sync_api.expect(site.page.locator("#link")).to_have_text("live")
    site.view.feedback("inc-7f21", "useful", "cli")
    sync_api.expect(site.page.get_by_text("Last said: useful")).to_be_visible()
    assert site.page.locator("#other-causes").get_attribute("open") is not None
    assert site.complaints == []


def test_a_token_is_asked_for_once(guarded: Site) -> None:
    """The dialog takes the token, the answer goes through, and the next one needs no dialog."""
    guarded.page.goto(f"{guarded.server.url}/incidents/inc-7f21")
    guarded.page.get_by_role("button", name="Approve").click()
    guarded.page.get_by_label(re.compile("The token")).fill("s3cret")
    guarded.page.get_by_role("button", name="Send").click()
    sync_api.expect(guarded.page.get_by_role("button", name="Approve")).to_have_count(0)
    guarded.page.get_by_role("button", name="Useful").click()
    sync_api.expect(guarded.page.get_by_text("Last said: useful")).to_be_visible()
    assert [said[0] for said in guarded.view.said] == ["approve", "useful"]
    assert all("401" in text for text in guarded.complaints)


@pytest.mark.parametrize("path", ["/", "/learned", "/incidents/inc-7f21", "/incidents/inc-55aa"])
def test_a_phone_needs_no_sideways_scrolling(phone: Site, path: str) -> None:
    """Everything fits into 360 pixels, in dark too, and text is not tiny."""
    phone.page.goto(phone.server.url + path)
    sync_api.expect(phone.page.locator("#link")).to_have_text("live")
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert phone.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert phone.complaints == []


def test_the_page_works_with_the_keyboard_and_without_scripts(browser: sync_api.Browser) -> None:
    """Tab reaches the incident and Enter opens it; without scripts everything is shown and the command is named."""
    for site in open_site(browser, busy(), java_script_enabled=False):
        site.page.goto(site.server.url)
        site.page.get_by_role("link", name=re.compile("gpu_temperature")).focus()
        site.page.keyboard.press("Enter")
        sync_api.expect(site.page.locator("figure.plot")).to_have_count(5)
        sync_api.expect(site.page.get_by_text("aiops approve act-7f21-2", exact=True)).to_be_visible()
        sync_api.expect(site.page.get_by_role("button", name="Approve")).to_be_hidden()
