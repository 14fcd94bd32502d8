"""Print the built book to one PDF with headless Chromium."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from playwright.sync_api import Error, Page, Route, sync_playwright
from pypdf import PdfReader

from tools.chromium import find_chromium
from tools.one_page import Parts, one_page
from tools.site import ROOT, config, repository

NO_CHROMIUM = (
    "Chromium, which prints the book, does not start. Where it is missing, install Chromium or "
    "Chrome (on Debian: apt install chromium; anywhere: .venv/bin/python -m playwright install "
    "chromium), then run `make pdf` again."
)
ADDRESS = "http://book.invalid/"
# The width of the text on A4, in CSS pixels: what is wider is made smaller.
TEXT_WIDTH = 658
PATIENCE = 10 * 60_000  # milliseconds, for a busy machine
FIT = """
() => {
  const fit = (node, room, width) => { if (width > room) node.style.zoom = room / width; };
  for (const table of document.querySelectorAll(".bd-article table")) {
    const room = table.parentElement.clientWidth;
    table.classList.toggle("print-dense", table.offsetWidth > room);
    fit(table, room, table.offsetWidth);
  }
  for (const formula of document.querySelectorAll("div.math > mjx-container")) {
    const number = formula.parentElement.querySelector(".eqno");
    const room = formula.parentElement.clientWidth - (number ? 2 * number.offsetWidth : 0);
    fit(formula, room, formula.querySelector("mjx-math").getBoundingClientRect().width);
  }
}
"""
FILL = """
numbers => {
  for (const node of document.querySelectorAll(".page-of"))
    node.textContent = numbers[node.dataset.place] ?? "";
}
"""


def main() -> int:
    """The command line: print the built book of this repository."""
    target = ROOT / "_build" / "pruning-at-initialization.pdf"
    try:
        pages = print_book(ROOT / "_build" / "html", book_parts(ROOT), target)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{pages} pages: {target}")
    return 0


def book_parts(root: Path) -> Parts:
    """The parts of the book and the addresses of their pages, from the table of contents."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    parts = [("", [f"{toc['root']}.html"])]
    for part in toc["parts"]:
        parts.append((part["caption"], [f"{it['file']}.html" for it in part["chapters"]]))
    return parts


def print_book(built: Path, parts: Parts, target: Path) -> int:
    """Print pages of the built book to the file `target`; return how many sheets it has.

    Raises ValueError when a page is not built or Chromium does not start.
    """
    for path in (built / name for _, names in parts for name in names):
        if not path.is_file():
            raise ValueError(f"{path} is missing: run `make book` first.")
    html = one_page(built, parts, config(ROOT)["title"], front_matter(ROOT))
    draft = target.with_suffix(".part")
    try:
        with _open_page(built, html) as page:
            _print_with_numbers(page, draft)
        pages = len(PdfReader(draft).pages)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return pages


def front_matter(root: Path) -> str:
    """The title page, and what is different on paper."""
    title, author = escape(config(root)["title"]), escape(config(root)["author"])
    address = escape(repository(root))
    return f"""<header class="print-title">
<h1 id="title">{title}</h1>
<p>{author}</p>
<p>Version {escape(version("pai-lite"))}</p>
<p><a href="{address}">{address}</a></p>
<section>
<p>This is the whole book, printed from its pages on the web.</p>
<ul>
<li>Solutions to the exercises stand at the end.</li>
<li>An explorer, which has sliders or menus on the web, shows its first picture and its table.</li>
<li>Code that only draws a picture is left out; the notebooks hold it.</li>
</ul>
</section>
</header>"""


@contextmanager
def _open_page(built: Path, html: str) -> Iterator[Page]:
    """The page in Chromium, with its mathematics set; nothing is fetched from elsewhere."""

    def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path.lstrip("/")
        if not route.request.url.startswith(ADDRESS):
            route.abort()
        elif path:
            route.fulfill(path=built / path)
        else:
            route.fulfill(body=html, content_type="text/html; charset=utf-8")

    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=find_chromium())
        except Error as error:
            raise ValueError(f"{NO_CHROMIUM}\n{error.message}") from error
        page = browser.new_page(viewport={"width": TEXT_WIDTH, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.emulate_media(media="print", color_scheme="light")
        page.route("**/*", answer)
        page.goto(ADDRESS, wait_until="load")
        page.evaluate("window.MathJax && MathJax.startup.promise")
        page.evaluate("document.fonts.ready.then(() => null)")
        page.evaluate(FIT)
        yield page
        browser.close()


def _print_with_numbers(page: Page, path: Path) -> None:
    """Print until the numbers of pages in the table of contents are those of the print."""
    numbers: dict[str, int] = {}
    for _ in range(3):
        page.evaluate(FILL, numbers)
        page.pdf(path=path, prefer_css_page_size=True, outline=True, tagged=True)
        printed = page_numbers(PdfReader(path))
        if printed == numbers:
            return
        numbers = printed
    raise ValueError("The table of contents moves the pages that it lists: give its numbers room.")


def page_numbers(reader: PdfReader) -> dict[str, int]:
    """The number of the page, counted from one, on which each named place stands."""
    return {
        name.removeprefix("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


if __name__ == "__main__":
    sys.exit(main())
