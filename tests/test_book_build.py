"""The book shows exactly what the notebooks hold, and building it executes nothing."""

from __future__ import annotations

import html
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
import pytest
from fixtures.mini_book import make_mini_book

from tools import atlas
from tools.build_book import build
from tools.convert import convert
from tools.notebooks import code_cells, stale_notebooks, update
from tools.site import ROOT, chapter_paths, notebook_path, source_url

pytestmark = pytest.mark.book


ONE_CLAIM = """
- id: toy-claim
  source: code
  where: in no repository
  claim: Nothing is measured.
  made_on: nothing at all
  scale: papers
  verdict: not tested
  checks:
    - says: No such method
      no_rows: {method: none-such}
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample book, executed and built once for this file."""
    root = make_mini_book(tmp_path_factory.mktemp("book"))
    for chapter in chapter_paths(root):
        update(chapter, root)
    build(root)
    return root


def page(root: Path, name: str) -> str:
    path = root / "_build" / "html" / "book" / "chapters" / f"{name}.html"
    return path.read_text(encoding="utf8")


def article(root: Path, name: str) -> str:
    """The words of a page's article."""
    text = page(root, name)
    inside = text[text.index("<article") : text.index("</article>")]
    return html.unescape(re.sub(r"<[^>]+>", "", inside))


def test_the_page_that_leads_to_the_book_names_an_icon_that_is_there(book: Path) -> None:
    built = book / "_build" / "html"
    icons = re.findall(r'rel="icon" href="([^"]+)"', (built / "index.html").read_text())
    assert len(icons) == 1
    assert (built / icons[0]).exists()


def test_every_page_has_the_version_at_its_foot(book: Path) -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))
    pages = list((book / "_build" / "html" / "book").rglob("*.html"))
    assert len(pages) == 3
    for path in pages:
        foot = path.read_text(encoding="utf8").split("</article>")[1]
        assert f">Version {pyproject['project']['version']}<" in foot


def replace_output(root: Path, name: str, old: str, new: str) -> None:
    path = root / "notebooks" / f"{name}.ipynb"
    text = path.read_text(encoding="utf8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf8")


@pytest.mark.parametrize(
    "words",
    ["The second chapter", "Figure 2.1 A line, by (2.2).", "Theorem 2.1", "Algorithm 2.1"],
)
def test_page_has_the_numbers_of_the_notebook(book: Path, words: str) -> None:
    notebook = convert(book / "book" / "chapters" / "02_second.md", book)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert words in article(book, "02_second")
    assert words in text.replace("Figure 2.1. A", "Figure 2.1 A")


def test_equation_numbers_are_those_of_the_notebook(book: Path) -> None:
    notebook = convert(book / "book" / "chapters" / "02_second.md", book)
    text = "\n".join(cell.source for cell in notebook.cells)
    on_page = re.findall(r'class="eqno">\((\d+\.\d+)\)', page(book, "02_second"))
    assert on_page == re.findall(r"\\tag\{(\d+\.\d+)\}", text)
    assert on_page == ["2.1", "2.2", "2.3"]


def test_cross_references_read_the_same(book: Path) -> None:
    words = article(book, "02_second")
    assert "See (2.1) and (1.1), Figure 2.1 and The first chapter," in words
    assert "And Fig. 2.2, Exercise 2.1." in words


def test_links_of_a_chapter(book: Path) -> None:
    text = page(book, "02_second")
    assert "Open in Colab</a> · <a" in text
    assert "/blob/main/book/chapters/02_second.md" in text
    download = re.search(r'href="\.\./\.\./(_downloads/[^"]+/02_second\.ipynb)"', text)
    assert download
    stored = notebook_path(Path("02_second.md"), book).read_bytes()
    assert (book / "_build" / "html" / download[1]).read_bytes() == stored


def test_pages_load_nothing_from_elsewhere(book: Path) -> None:
    for path in (book / "_build" / "html").rglob("*.html"):
        text = path.read_text(encoding="utf8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]*', text), path
        assert not re.findall(r'<link[^>]+rel="(?:stylesheet|preload)"[^>]+href="https?:', text)


def test_page_shows_stored_outputs_and_nothing_is_executed(book: Path) -> None:
    # No execution could give 4242 here, and only the notebook has changed, not the page's source.
    replace_output(book, "01_first", '"2\\n"', '"4242\\n"')
    build(book)
    assert "4242" in article(book, "01_first")
    replace_output(book, "01_first", '"4242\\n"', '"2\\n"')


def test_a_changed_style_sheet_alone_reaches_the_book(book: Path) -> None:
    build(book)  # so that nothing but the style sheet is new to the next build
    sheet = book / "book" / "_static" / "book.css"
    text = sheet.read_text(encoding="utf8")
    sheet.write_text(text + "/* changed */\n", encoding="utf8")
    build(book)
    built = book / "_build" / "html" / "_static" / "book.css"
    assert "/* changed */" in built.read_text(encoding="utf8")
    sheet.write_text(text, encoding="utf8")


def test_removed_output_stays_in_the_notebook_only(book: Path) -> None:
    notebook = nbformat.read(book / "notebooks" / "02_second.ipynb", as_version=4)
    assert "not yet" in str(code_cells(notebook)[-1].outputs)
    assert "not yet\n" not in article(book, "02_second").replace('print("not yet")', "")


def test_stale_notebook_is_refused(tmp_path: Path) -> None:
    root = make_mini_book(tmp_path)
    with pytest.raises(ValueError, match=r"make notebooks.*01_first: no notebook yet"):
        build(root)


def test_stale_page_of_results_is_refused(book: Path) -> None:
    shutil.copytree(ROOT / "book" / "results", book / "book" / "results")
    claims = book / "book" / "claims.yml"
    claims.write_text(ONE_CLAIM, encoding="utf8")
    try:
        with pytest.raises(ValueError, match=r"make results-pages.*book/results-atlas.md"):
            build(book)
    finally:
        claims.unlink()
        shutil.rmtree(book / "book" / "results")


def test_warnings_fail_the_build_twice(book: Path) -> None:
    index = book / "book" / "index.md"
    text = index.read_text(encoding="utf8")
    index.write_text(text + "\nSee {ref}`nowhere`.\n", encoding="utf8")
    try:
        for _ in range(2):
            with pytest.raises(ValueError, match="warnings"):
                build(book)
    finally:
        index.write_text(text, encoding="utf8")


def test_the_built_atlas_has_its_figures_and_links() -> None:
    text = (ROOT / "_build" / "html" / "book" / "results-atlas.html").read_text(encoding="utf8")
    shown = re.findall(r'src="\.\./(_images/[^"]+\.svg)"', text)
    assert len(shown) == len(re.findall(":class: only-", atlas.make_page(ROOT)))
    for path in shown:
        assert (ROOT / "_build" / "html" / path).exists()
    assert source_url("book/results/digits.csv") in text


def test_the_built_book_has_every_chapter() -> None:
    assert stale_notebooks(ROOT) == []
    for chapter in chapter_paths():
        assert (ROOT / "_build" / "html" / "book" / "chapters" / f"{chapter.stem}.html").exists()
