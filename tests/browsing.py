"""The built book in headless Chromium, for every test that needs a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from built import BUILT, page_paths

from tools.chromium import find_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = page_paths()
WIDTHS = (1280, 375)
CHROMIUM = find_chromium()
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt install chromium"),
    pytest.mark.skipif(not PAGES, reason="no built book: run `make book`"),
]


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path = BUILT) -> Iterator[str]:
    """Serve a folder on localhost; yields its address."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass
class Visit:
    """An open page and what happened while it loaded."""

    page: Page
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def hears(self, url: str) -> None:
        """Note a request that leaves this machine."""
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.elsewhere.append(url)


@contextmanager
def visiting(browser: Browser, url: str, width: int) -> Iterator[Visit]:
    """Open one page at one width and wait until its mathematics is set."""
    page = browser.new_page(viewport={"width": width, "height": 800}, reduced_motion="reduce")
    visit = Visit(page)
    page.on("request", lambda request: visit.hears(request.url))
    page.on("response", lambda it: it.status >= 400 and visit.errors.append(it.url))
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda it: it.type == "error" and visit.errors.append(it.text))
    page.goto(url, wait_until="load")
    page.wait_for_load_state("networkidle")
    page.evaluate("window.MathJax && window.MathJax.startup && window.MathJax.startup.promise")
    # What observes sizes acts one frame later.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    yield visit
    page.close()


def set_theme(page: Page, theme: str) -> None:
    """Show the page light or dark."""
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    page.wait_for_timeout(300)  # colours may fade


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address at which the built book is served."""
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser."""
    # Every test file reads this one; only those with a browser need Playwright.
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, address: str, path: str, width: int) -> Iterator[Visit]:
    """A page of its own for one test."""
    with visiting(browser, f"{address}/{path}", width) as visit:
        yield visit


@pytest.fixture(scope="module")
def shared(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """One visit for all tests of a page at a width: they look, and change nothing for the next."""
    path, width = request.param
    with visiting(browser, f"{address}/{path}", width) as visit:
        yield visit


def each_visit(*widths: int) -> Any:
    """Run a test on every page at these widths."""
    visits = [(path, width) for path in PAGES for width in widths]
    names = [f"{path}-{width}" for path, width in visits]
    return pytest.mark.parametrize("shared", visits, indirect=True, scope="module", ids=names)
