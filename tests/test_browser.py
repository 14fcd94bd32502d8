"""The built book in a browser: nothing from elsewhere, no errors, nothing wider than the screen."""

from __future__ import annotations

import io
import math
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfReader

from tools.site import ROOT

BUILT = ROOT / "_build" / "html"
PAGES = sorted(str(path.relative_to(BUILT)) for path in BUILT.rglob("*.html"))
PAGES = [path for path in PAGES if not path.startswith(("_static", "_sources"))]
WIDTHS = (1280, 375)
SMALLEST_PRINT = 7.5  # points
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Text and its nearest painted background, as WCAG's contrast ratio.
LOW_CONTRAST = """
() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = rgb => {
    const [r, g, b] = rgb.map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = node => {
    for (; node; node = node.parentElement) {
      const colour = rgba(getComputedStyle(node).backgroundColor);
      if (colour[3] > 250) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const low = [];
  const texts = ".bd-article :is(p, a, li, td, th, code, span, label)";
  for (const node of document.querySelectorAll(texts)) {
    const words = [...node.childNodes].filter(n => n.nodeType === 3 && n.data.trim());
    if (!words.length || !node.getClientRects().length || node.matches(".headerlink")) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(rgba(style.color).slice(0, 3)), light(ground(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const what = `${node.className}: ${words[0].data.slice(0, 30)}`;
    if (ratio < 4.5) low.push(`${ratio.toFixed(1)} ${what}`);
  }
  return [...new Set(low)];
}
"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt install chromium"),
    pytest.mark.skipif(not PAGES, reason="no built book: run `make book`"),
]
each_page = pytest.mark.parametrize("path", PAGES)
each_width = pytest.mark.parametrize("width", WIDTHS)


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve the built book on localhost."""
    handler = partial(QuietHandler, directory=str(BUILT))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


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


@pytest.fixture
def visit(browser: Browser, address: str, path: str, width: int) -> Iterator[Visit]:
    """Open one page at one width and wait until its mathematics is set."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    visit = Visit(page)
    page.on("request", lambda request: visit.hears(request.url))
    page.on("response", lambda it: it.status >= 400 and visit.errors.append(it.url))
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda it: it.type == "error" and visit.errors.append(it.text))
    page.goto(f"{address}/{path}", wait_until="load")
    page.wait_for_load_state("networkidle")
    page.evaluate("window.MathJax && window.MathJax.startup && window.MathJax.startup.promise")
    yield visit
    page.close()


@each_page
@each_width
def test_page_is_whole(visit: Visit) -> None:
    page = visit.page
    assert visit.elsewhere == []
    assert visit.errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    formulas = page.locator(".bd-article .math").count()
    assert page.locator("mjx-container").count() >= formulas
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert page.locator("img:not([alt])").count() == 0
    for slider in page.locator(".pai-explorer input[type=range]").all():
        before = shown_frames(page)
        slider.focus()
        page.keyboard.press("ArrowRight")
        assert shown_frames(page) != before
        assert sum(shown_frames(page)) == sum(before)
    for menu in page.locator(".pai-explorer select").all():
        before = shown_frames(page)
        menu.focus()
        page.keyboard.press("ArrowDown")
        assert shown_frames(page) != before


def shown_frames(page: Page) -> list[bool]:
    """Which pictures of the page's explorers are visible."""
    return [frame.is_visible() for frame in page.locator(".pai-explorer img").all()]


@each_page
@pytest.mark.parametrize("width", WIDTHS[:1])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(visit: Visit, theme: str) -> None:
    visit.page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    visit.page.wait_for_timeout(300)
    assert visit.page.evaluate(LOW_CONTRAST) == []


on_scorecard = pytest.mark.parametrize(("path", "width"), [("book/scorecard.html", 1280)])


def shown_claims(page: Page) -> list[str]:
    """The ids of the claims that are visible on the scorecard."""
    cards = page.locator("section:has(> .claim-verdict)").all()
    return [card.get_attribute("id") for card in cards if card.is_visible()]


@on_scorecard
def test_a_filter_hides_the_other_claims_and_the_address_keeps_it(visit: Visit) -> None:
    page, everything = visit.page, shown_claims(visit.page)
    page.get_by_label("Verdict").select_option("not tested")
    some = shown_claims(page)
    wanted = page.locator("section:has(> [data-verdict='not tested'])").all()
    assert some == [card.get_attribute("id") for card in wanted]
    assert 0 < len(some) < len(everything)
    count = page.locator("#claim-filter [aria-live]")
    assert count.inner_text() == f"{len(some)} of {len(everything)} claims shown"
    page.goto("about:blank")
    page.go_back()
    assert page.get_by_label("Verdict").input_value() == "not tested"
    assert shown_claims(page) == some
    page.get_by_role("button", name="Show all").press("Enter")
    page.wait_for_function("!location.hash")
    assert shown_claims(page) == everything


@on_scorecard
def test_filters_are_worked_with_the_keyboard_and_together(visit: Visit) -> None:
    page = visit.page
    for label in ("Verdict", "Scale"):
        page.get_by_label(label).focus()
        page.keyboard.press("ArrowDown")
    verdict, scale = (page.get_by_label(label).input_value() for label in ("Verdict", "Scale"))
    fits = f"section:has(> [data-verdict='{verdict}'][data-scale='{scale}'])"
    wanted = [card.get_attribute("id") for card in page.locator(fits).all()]
    assert shown_claims(page) == wanted
    for heading in page.locator("#the-claims > section").all():
        assert heading.is_visible() == bool(heading.locator(fits).count())


@on_scorecard
def test_an_address_with_a_claim_opens_it_though_it_is_filtered_out(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Verdict").select_option("not tested")
    hidden = page.locator("section[hidden]:has(> .claim-verdict)").first.get_attribute("id")
    page.evaluate(f"location.hash = '{hidden}'")
    page.locator(f"#{hidden}").wait_for(state="visible")
    assert page.locator(f"#{hidden} .claim-verdict").is_visible()


@pytest.mark.parametrize(
    ("path", "width"), [("book/chapters/03_connection_sensitivity.html", WIDTHS[0])]
)
def test_ids_in_the_tables_of_chapters_lead_to_the_scorecard(visit: Visit) -> None:
    visit.page.locator("td a[href$='#snip-product']").click()
    visit.page.wait_for_url("**/book/scorecard.html#snip-product")
    assert visit.page.locator("#snip-product .claim-verdict").is_visible()


def test_the_scorecard_shows_everything_without_scripts(browser: Browser, address: str) -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/book/scorecard.html")
    assert len(shown_claims(page)) == page.locator(".claim-verdict").count() > 0
    assert page.locator("#claim-filter > *").count() == 0
    page.close()


@pytest.mark.parametrize(("path", "width"), [("book/method-cards.html", 1280)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_method_cards_print_on_one_sheet(visit: Visit, theme: str) -> None:
    page = visit.page
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    (sheet,) = PdfReader(io.BytesIO(page.pdf(format="A4"))).pages
    sizes: set[float] = set()
    printed = sheet.extract_text(visitor_text=lambda *of: sizes.add(printed_size(*of)))
    for text in page.locator("#method-cards :is(h2, dt, dd, section p)").all_inner_texts():
        words = re.findall(r"[a-z-]{3,}", text, re.IGNORECASE)
        assert [word for word in words if word not in printed] == []
    assert min(sizes) >= SMALLEST_PRINT
    assert "Search" not in printed
    page.emulate_media(media="print")
    page.wait_for_timeout(300)
    assert page.evaluate(LOW_CONTRAST) == []


def printed_size(text: str, place: list[float], line: list[float], font: Any, size: float) -> float:
    """The height of the letters on paper in points; of formulas, whose fonts have no name, none."""
    named = text.strip() and font and "/BaseFont" in font
    return round(size * abs(place[3] * line[3]), 1) if named else math.inf


def test_a_page_that_does_wrong_is_caught(browser: Browser) -> None:
    """The measures themselves: a request, a wide page and grey on grey are seen."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    visit = Visit(page)
    visit.hears("https://example.org/x.js")
    assert visit.elsewhere == ["https://example.org/x.js"]
    page.set_content(
        "<div class='bd-article' style='width: 900px'><p style='color: #888'>x</p></div>"
    )
    assert not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert len(page.evaluate(LOW_CONTRAST)) == 1
    page.close()
