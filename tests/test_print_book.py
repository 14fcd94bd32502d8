"""The printed book: two pages of the built one, read back from the PDF that Chromium makes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from pypdf import PageObject, PdfReader, mult
from pypdf.generic import Destination

from tools.chromium import find_chromium
from tools.one_page import one_page
from tools.print_book import book_parts, page_numbers, print_book
from tools.site import ROOT, config

BUILT = ROOT / "_build" / "html"
GUIDE = "book/how-to-use.html"
CHAPTER = "book/chapters/03_connection_sensitivity.html"
PARTS = [("Orientation", [GUIDE]), ("Chapters", [CHAPTER])]
RIGHT_MARGIN = 18 / 25.4 * 72  # points; print.css asks for 18 mm

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (BUILT / CHAPTER).exists(), reason="no built book: run `make book`"),
]
needs_chromium = pytest.mark.skipif(not find_chromium(), reason="no Chromium: apt install chromium")


@dataclass
class Printed:
    """The PDF of the guide and a chapter, and the words of each of its pages."""

    reader: PdfReader
    pages: list[str]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """Print the guide and a chapter."""
    target = tmp_path_factory.mktemp("print") / "book.pdf"
    pages = print_book(BUILT, PARTS, target)
    assert [path.name for path in target.parent.iterdir()] == ["book.pdf"]
    reader = PdfReader(target)
    assert len(reader.pages) == pages
    return Printed(reader, [words(page) for page in reader.pages])


def words(page: PageObject) -> str:
    """The text of a page, with ligatures taken apart and one space between words."""
    return " ".join(unicodedata.normalize("NFKC", page.extract_text()).split())


def titles(outline: list) -> Iterator[str]:
    for entry in outline:
        yield from [entry["/Title"]] if isinstance(entry, Destination) else titles(entry)


def headings(name: str) -> list[str]:
    """The headings of a built page as an outline has them: without marks and formulas."""
    article = BeautifulSoup((BUILT / name).read_text(encoding="utf8"), "html.parser").article
    for tag in article.select(".headerlink, .math"):
        tag.decompose()
    return [heading.get_text() for heading in article.find_all(["h1", "h2", "h3", "h4"])]


def link_targets(reader: PdfReader) -> Iterator[str]:
    """Where the links of all pages lead: names of places within, and addresses outside."""
    for page in reader.pages:
        for link in (it.get_object() for it in page.get("/Annots", [])):
            yield str(link["/Dest"]) if "/Dest" in link else link["/A"]["/URI"]


@needs_chromium
def test_the_pages_are_printed_after_a_title_page(printed: Printed) -> None:
    text = " ".join(printed.pages)
    assert "Choose Runtime, Run all" in text
    assert "The inequality of Cauchy and Schwarz bounds it from above" in text
    assert 15 < len(printed.pages) < 40
    assert config(ROOT)["author"] in printed.pages[0]


@needs_chromium
def test_the_outline_has_every_heading_once(printed: Printed) -> None:
    title = config(ROOT)["title"]
    wanted = [title, "Contents", *headings(GUIDE), *headings(CHAPTER)]
    assert list(titles(printed.reader.outline)) == [*wanted, "Solutions", headings(CHAPTER)[0]]


@needs_chromium
def test_links_between_pages_lead_to_places_in_the_pdf(printed: Printed) -> None:
    places = set(printed.reader.named_destinations)
    targets = list(link_targets(printed.reader))
    inside = [it for it in targets if it.startswith("/")]
    assert set(inside) <= places
    assert "/equation-eq-snip-bounds" in inside
    outside = {it for it in targets if it not in inside}
    assert [it for it in outside if not it.startswith("https://")] == []
    assert [it for it in outside if "book.invalid" in it] == []


@needs_chromium
def test_the_table_of_contents_has_the_true_page_numbers(printed: Printed) -> None:
    numbers = page_numbers(printed.reader)
    contents = printed.pages[1]
    for name, title in (("page-2", headings(CHAPTER)[0]), ("sources", "Sources")):
        assert f"{title} {numbers[name]}" in contents
        page = printed.pages[numbers[name] - 1]
        assert title in page
        assert str(numbers[name]) in page.split()


@needs_chromium
def test_an_exercise_names_the_page_of_its_solution(printed: Printed) -> None:
    page = next(page for page in printed.pages if "Solution on page" in page)
    number = int(re.search(r"Solution on page (\d+)", page)[1])
    assert "Solution to Exercise 3.1" in printed.pages[number - 1]
    assert "Solution to Exercise 3.1" not in page


@needs_chromium
def test_formulas_are_set(printed: Printed) -> None:
    text = " ".join(printed.pages)
    assert text.count("∑") >= 5
    assert [mark for mark in (r"\(", r"\[", r"\frac") if mark in text] == []


def beyond_the_margin(page: PageObject) -> list[str]:
    """The pieces of text that begin in the right margin, or on none of the page."""
    found = []

    def visit(text: str, cm: list[float], tm: list[float], *_: object) -> None:
        x = mult(tm, cm)[4]
        if text.strip() and not 0 < x < float(page.mediabox.width) - RIGHT_MARGIN + 1:
            found.append(text)

    page.extract_text(visitor_text=visit)
    return found


@needs_chromium
def test_no_text_stands_in_the_right_margin(printed: Printed) -> None:
    assert [text for page in printed.reader.pages for text in beyond_the_margin(page)] == []


WIDE = f"""
<article class="bd-article"><section><h1>Wide</h1><h2 id="table">Table</h2>
<table><tr>{"".join(f"<td>{number}</td>" for number in range(10_000, 10_040))}</tr></table>
<div class="highlight"><pre>{"long " * 60}END-OF-LINE</pre></div>
<div class="math" id="formula"><span class="eqno">(3.1)</span>
\\[ {" + ".join(["x y z"] * 20)} = \\Omega \\]</div>
</section></article>"""


@needs_chromium
def test_wide_tables_code_and_formulas_are_whole(tmp_path: Path) -> None:
    page = tmp_path / "built" / CHAPTER
    page.parent.mkdir(parents=True)
    (tmp_path / "built" / "_static").symlink_to(BUILT / "_static")
    soup = BeautifulSoup((BUILT / CHAPTER).read_text(encoding="utf8"), "html.parser")
    soup.article.replace_with(BeautifulSoup(WIDE, "html.parser").article)
    page.write_text(str(soup), encoding="utf8")
    print_book(tmp_path / "built", [("", [CHAPTER])], tmp_path / "wide.pdf")
    text = " ".join(words(page) for page in PdfReader(tmp_path / "wide.pdf").pages)
    assert "10039" in text
    assert "END-OF-LINE" in text
    assert "Ω" in text


def test_without_chromium_the_remedy_is_named_and_an_older_print_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "none"))
    target = tmp_path / "book.pdf"
    target.write_text("older")
    with pytest.raises(ValueError, match="apt install chromium"):
        print_book(BUILT, PARTS[:1], target)
    assert target.read_text() == "older"
    assert list(tmp_path.iterdir()) == [target]


def test_a_page_that_is_not_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"other\.html is missing: run `make book`"):
        print_book(BUILT, [("", ["book/other.html"])], tmp_path / "book.pdf")


def test_every_page_of_the_book_is_listed_for_printing() -> None:
    listed = {name for _, names in book_parts(ROOT) for name in names}
    built = {str(path.relative_to(BUILT)) for path in (BUILT / "book").rglob("*.html")}
    assert listed == built


def test_ids_are_unique_and_links_reach_them() -> None:
    parts = [("", ["book/index.html", "book/bibliography.html", CHAPTER])]
    page = BeautifulSoup(one_page(BUILT, parts, "Title", ""), "html.parser")
    ids = [tag["id"] for tag in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    links = [tag["href"] for tag in page.select("body a[href]")]
    assert {it[1:] for it in links if it.startswith("#")} <= set(ids)
    assert [it for it in links if not it.startswith(("#", "https://"))] == []
