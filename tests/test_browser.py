"""The built book in a browser: nothing from elsewhere, no errors, nothing wider than the screen."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import WIDTHS, Visit, each_visit, needs_browser, set_theme
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

CHAPTER = "book/chapters/03_connection_sensitivity.html"
AXE = Axe()
SMALLEST_PRINT = 7.5  # points
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
# A closing mark that stands to the left of the formula before it.
MARKS_ALONE = """
() => [...document.querySelectorAll(".bd-article mjx-container:not([display])")].filter(it => {
  let next = it;
  while (!next.nextSibling && next.parentElement.matches("span")) next = next.parentElement;
  next = next.nextSibling;
  if (next?.nodeType !== 3 || !/^[.,;:!?)\\]]/.test(next.data) || !it.clientWidth) return false;
  const mark = document.createRange();
  mark.setStart(next, 0);
  mark.setEnd(next, 1);
  return mark.getBoundingClientRect().left < it.getBoundingClientRect().right - 1;
}).map(it => it.parentElement.parentElement.textContent.slice(0, 100))
"""

pytestmark = needs_browser


def violations(page: Page, *, contrast: bool) -> list[str]:
    """What axe-core finds; contrast apart, because that takes it far longer."""
    # MathJax writes thousands of elements and describes itself; LOW_CONTRAST measures code.
    outside = {"exclude": ["mjx-container", *(["pre", "dt.sig"] if contrast else [])]}
    rule = "color-contrast"
    chosen = {"runOnly": [rule]} if contrast else {"rules": {rule: {"enabled": False}}}
    found = AXE.run(page, outside, {"resultTypes": ["violations"], **chosen})
    return [
        f"{it['id']} ({it['impact']}): {node['html'][:120]}"
        for it in found.response["violations"]
        for node in it["nodes"]
    ]


@each_visit(*WIDTHS)
def test_page_is_whole(shared: Visit) -> None:
    page = shared.page
    assert shared.elsewhere == []
    assert shared.errors == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator(".bd-article .math:not(:has(mjx-container))").count() == 0
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


@each_visit(WIDTHS[1])
def test_what_cells_print_is_read_without_scrolling(shared: Visit) -> None:
    printed = shared.page.locator(".bd-article .cell_output .output pre")
    assert printed.evaluate_all("all => all.filter(it => it.scrollWidth > it.clientWidth)") == []


@each_visit(*WIDTHS)
def test_what_goes_on_to_the_right_fades_there(shared: Visit) -> None:
    boxes = shared.page.locator(".bd-article :is(.wide-picture, div.math > mjx-container, pre)")
    wrong = boxes.evaluate_all(
        """all => all.filter(
          it => it.checkVisibility()
            && (it.scrollWidth > it.clientWidth + 1) !== it.classList.contains("continues"))
          .map(it => it.outerHTML.slice(0, 200))"""
    )
    assert wrong == []


@each_visit(WIDTHS[1])
def test_no_line_begins_with_the_mark_behind_a_formula(shared: Visit) -> None:
    assert shared.page.evaluate(MARKS_ALONE) == []


@each_visit(*WIDTHS)
def test_axe_finds_nothing(shared: Visit) -> None:
    assert violations(shared.page, contrast=False) == []


@each_visit(WIDTHS[0])
def test_text_has_contrast_in_both_themes(shared: Visit) -> None:
    for theme in ("light", "dark"):
        set_theme(shared.page, theme)
        assert shared.page.evaluate(LOW_CONTRAST) == [], theme
        assert violations(shared.page, contrast=True) == [], theme


@each_visit(*WIDTHS)
def test_explorers_are_worked_with_the_keyboard(shared: Visit) -> None:
    page = shared.page
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
    return page.locator(".pai-explorer img").evaluate_all("all => all.map(it => !it.hidden)")


def takes_focus(page: Page, selector: str) -> bool:
    """Whether the first such element can be reached by Tab and shows that it has the focus."""
    page.keyboard.press("Tab")  # the focus is shown to whoever uses the keyboard
    return page.locator(selector).first.evaluate(
        """it => {
          it.focus();
          const style = getComputedStyle(it);
          const shown = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)
            || style.boxShadow !== "none";
          return document.activeElement === it && it.tabIndex >= 0
            && shown && style.maskImage === "none";
        }"""
    )


@pytest.mark.parametrize(("path", "width"), [(CHAPTER, 1280)])
@pytest.mark.parametrize(
    "selector",
    [
        ".theme-switch-button:visible",
        ".search-button-field:visible",
        ".bd-article .chapter-links a",
        ".pai-explorer input",
        ".bd-article summary",
        ".bd-article .toggle-button",
    ],
)
def test_what_can_be_worked_takes_the_focus_and_shows_it(visit: Visit, selector: str) -> None:
    assert takes_focus(visit.page, selector)


@pytest.mark.parametrize(("path", "width"), [("book/chapters/06_force.html", 375)])
@pytest.mark.parametrize("box", [".wide-picture", "pre", "div.math > mjx-container"])
def test_nothing_fades_once_its_end_is_reached(visit: Visit, box: str) -> None:
    fading = visit.page.locator(f".bd-article {box}.continues:visible").first.element_handle()
    fading.evaluate("it => { it.scrollLeft = it.scrollWidth; }")
    visit.page.wait_for_function(
        "it => !it.classList.contains('continues')", arg=fading, timeout=5000
    )


@pytest.mark.parametrize(("path", "width"), [(CHAPTER, 375)])
@pytest.mark.parametrize("selector", ["pre.continues", "div.math > mjx-container.continues"])
def test_what_fades_shows_that_it_has_the_focus(visit: Visit, selector: str) -> None:
    assert takes_focus(visit.page, f".bd-article {selector}:visible")


@pytest.mark.parametrize(("path", "width"), [(CHAPTER, 1280)])
def test_solutions_open_and_the_theme_changes_with_the_keyboard(visit: Visit) -> None:
    page = visit.page
    solution = page.locator(".solution.dropdown").first
    text = solution.locator("p:not(.admonition-title)").first
    assert not text.is_visible()
    solution.locator(".toggle-button").press("Enter")
    assert text.is_visible()
    mode = page.evaluate("document.documentElement.dataset.mode")
    page.locator(".theme-switch-button:visible").first.press("Enter")
    assert page.evaluate("document.documentElement.dataset.mode") != mode


@pytest.mark.parametrize(
    ("path", "width", "box"),
    [
        (CHAPTER, 375, ".pst-scrollable-table-container"),
        ("book/chapters/06_force.html", 375, ".wide-picture"),
    ],
)
def test_what_scrolls_takes_the_focus_and_scrolls(visit: Visit, box: str) -> None:
    page = visit.page
    boxes = f"{box}[tabindex='0']"
    assert takes_focus(page, boxes)
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.activeElement.scrollLeft > 0")
    wide = page.locator(boxes).count()
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function(f'document.querySelectorAll("{boxes}").length < {wide}')


@pytest.mark.parametrize(("path", "width"), [("search.html", 375)])
def test_the_search_works_without_a_network(visit: Visit) -> None:
    page = visit.page
    page.goto(page.url + "?q=gradient")
    results = page.locator("#search-results .search li a")
    results.first.wait_for()
    assert any("04_gradient_flow" in it.get_attribute("href") for it in results.all())
    assert visit.elsewhere == []
    assert visit.errors == []
    assert violations(page, contrast=False) == []


@pytest.mark.parametrize(("path", "width"), [("book/method-cards.html", 1280)])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_method_cards_print_on_one_sheet(visit: Visit, theme: str) -> None:
    page = visit.page
    set_theme(page, theme)
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
    """The measures themselves: a request, a wide page, grey on grey, a nameless button."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    visit = Visit(page)
    visit.hears("https://example.org/x.js")
    assert visit.elsewhere == ["https://example.org/x.js"]
    page.set_content(
        "<div class='bd-article' style='width: 900px'><p style='color: #888'>grey words</p></div>"
        "<button></button>"
    )
    assert not page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert len(page.evaluate(LOW_CONTRAST)) == 1
    assert any("color-contrast" in it for it in violations(page, contrast=True))
    assert any("button-name (critical)" in it for it in violations(page, contrast=False))
    page.close()
