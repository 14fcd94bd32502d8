"""The built pages as they are written: pictures in words, headings in order, titles, languages."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from bs4 import BeautifulSoup
from built import BUILT, Elements, page_paths, read_elements, read_page

from tools.table_markup import tidy_tables

PAGES = page_paths()
NOT_WORDS = re.compile(r"\S+\.(png|svg|jpe?g|gif)|\S*/\S*|image|figure|picture", re.IGNORECASE)

pytestmark = pytest.mark.skipif(not PAGES, reason="no built book: run `make book`")


def pictures_without_words(page: Elements) -> list[str]:
    """The pictures whose text is missing, empty or the name of a file; decoration is left out."""
    pictures = [it for it in page.found if it.name == "img" and not it.get("aria-hidden")]
    texts = [(it.get("src")[:60], it.get("alt").strip()) for it in pictures]
    return [src for src, alt in texts if not alt or NOT_WORDS.fullmatch(alt)]


def heading_faults(page: Elements) -> list[str]:
    """What is wrong with the headings of the article: one of level 1, first; no level skipped."""
    headings = [it for it in page.found if re.fullmatch("h[1-6]", it.name)]
    in_article = [it for it in headings if it.in_article]
    levels = [int(heading.name[1]) for heading in in_article or headings]
    faults = [] if levels[:1] == [1] and levels.count(1) == 1 else [f"levels {levels}"]
    skips = [(before, after) for before, after in pairwise(levels) if after > before + 1]
    return faults + [f"h{after} after h{before}" for before, after in skips]


@pytest.mark.parametrize("path", PAGES)
def test_every_picture_has_its_words(path: str) -> None:
    assert pictures_without_words(read_page(BUILT / path)) == []


@pytest.mark.parametrize("path", PAGES)
def test_headings_are_in_order(path: str) -> None:
    assert heading_faults(read_page(BUILT / path)) == []


@pytest.mark.parametrize("path", PAGES)
def test_every_page_names_its_language(path: str) -> None:
    assert [it.get("lang") for it in read_page(BUILT / path).found if it.name == "html"] == ["en"]


def test_titles_of_pages_differ() -> None:
    titles = [read_page(BUILT / path).title.strip() for path in PAGES]
    assert all(titles)
    assert len(set(titles)) == len(titles)


def test_wrong_pictures_and_headings_are_found() -> None:
    wrong = "<img src=a><img src=b alt=' '><img src=c alt='../x/y.png'><img src=d alt='Two lines.'>"
    assert pictures_without_words(read_elements(wrong)) == ["a", "b", "c"]
    skipped = read_elements("<article><h1>a</h1><h3>b</h3></article>")
    assert heading_faults(skipped) == ["h3 after h1"]
    assert heading_faults(read_elements("<article><h1>a</h1><h1>b</h1>")) == ["levels [1, 1]"]
    assert heading_faults(read_elements("<article><h2>a</h2>")) == ["levels [2]"]


def frame(head: str, rows: str) -> BeautifulSoup:
    """A table as pandas writes it, made readable."""
    table = (
        f'<table border="1" class="dataframe"><thead>{head}</thead><tbody>{rows}</tbody></table>'
    )
    return BeautifulSoup(tidy_tables(f"<p>before</p>{table}<p>after</p>"), "html.parser")


def test_a_frame_without_a_header_stays_as_it_is() -> None:
    assert frame("", "<tr><th>0.9</th><td>2.4</td></tr>").select_one("td").get_text() == "2.4"


def test_the_style_that_pandas_writes_for_one_table_does_not_reach_the_others() -> None:
    assert (
        tidy_tables("<div>\n<style scoped>\n    th { color: red }\n</style>\n</div>")
        == "<div>\n</div>"
    )


def test_the_names_of_an_index_move_into_the_row_above() -> None:
    head = "<tr><th></th><th>mean</th></tr><tr><th>sparsity</th><th></th></tr>"
    page = frame(head, "<tr><th>0.9</th><td>2.4</td></tr>")
    rows = page.select("thead tr")
    assert [[cell.get_text() for cell in row.select("th")] for row in rows] == [
        ["sparsity", "mean"]
    ]
    assert page.select_one(".pst-scrollable-table-container > table.dataframe")
    assert page.get_text().startswith("before")


def test_the_name_of_the_index_stands_before_that_of_the_columns() -> None:
    head = "<tr><th>sparsity</th><th>0.9</th></tr><tr><th>method</th><th></th></tr>"
    page = frame(head, "<tr><th>snip</th><td>2.4</td></tr>")
    texts = [row.get_text(" ", strip=True) for row in page.select("thead tr")]
    assert texts == ["method / sparsity 0.9"]


def test_no_header_cell_is_empty_and_columns_of_numbers_are_known() -> None:
    head = "<tr><th></th><th>kept</th><th>where</th><th>gain</th></tr>"
    page = frame(head, "<tr><th>0</th><td>1.5e-3</td><td>3 layers</td><td>-0.8\xa0≤</td></tr>")
    assert [cell.get_text() for cell in page.select("th")] == ["kept", "where", "gain", "0"]
    numbers = [cell.get_text() for cell in page.select(".number")]
    assert numbers == ["kept", "gain", "1.5e-3", "-0.8\xa0≤"]


def test_rows_of_long_texts_name_their_columns() -> None:
    names, cells = ["id", "claim", "finding", "verdict"], ["a", "long " * 20, "b", "c"]
    head = "".join(f"<th>{name}</th>" for name in names)
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    table = (
        f"<table class='table'><thead><tr>{head}</tr></thead><tbody><tr>{row}</tr></tbody></table>"
    )
    page = BeautifulSoup(tidy_tables(table.replace("'", '"')), "html.parser")
    assert [cell["data-label"] for cell in page.select(".stacks td")] == names
    assert page.select_one(".stacks tr td")["role"] == "cell"
    short = table.replace("'", '"').replace("long " * 20, "short")
    assert "stacks" not in tidy_tables(short)


@pytest.mark.parametrize("path", PAGES)
def test_every_table_is_in_a_box_that_scrolls(path: str) -> None:
    found = [it for it in read_page(BUILT / path).found if it.in_article]
    tables = [place for place, it in enumerate(found) if it.name == "table"]
    tables = [it for it in tables if "indextable" not in found[it].get("class")]
    boxes = [found[place - 1].get("class").split() for place in tables]
    loose = [box for box in boxes if "pst-scrollable-table-container" not in box]
    assert loose == []


def test_few_columns_of_long_texts_share_the_width() -> None:
    head = "<thead><tr><th>symbol</th><th>meaning</th></tr></thead>"
    row = f"<tbody><tr><td>n</td><td>{'long ' * 20}</td></tr></tbody>"
    marked = tidy_tables(f'<table class="table">{head}{row}</table>')
    assert marked.startswith('<table class="table prose">')
    assert "data-label" not in marked
