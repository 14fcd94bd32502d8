"""Tables of the built pages: one header row where one is enough, and rows that stack on a phone.

pandas writes the names of the index into a header row of their own, and its corner as an empty
header cell. Readers of the page, and their screen readers, are better off without both.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag

FRAME = re.compile(r'<table[^>]* class="dataframe">.*?</table>', re.DOTALL)
# pandas means it for one table alone, but browsers apply it to all of the page.
STYLE = re.compile(r"<style scoped>.*?</style>\n?", re.DOTALL)
WRITTEN = re.compile(r'<table class="table">.*?</table>', re.DOTALL)
# Behind a number may stand what is in brackets, an interval, or the mark of an outcome.
NUMBER = re.compile(
    r"[-+−]?[\d.]+([eE][-+]?\d+)?\s?%?( \(.*\)| ±.*|\s[-+−<>=?≤≥])?|nan|NaN|inf|[–—-]|"
)
# So many columns, in one of them so long a text, do not fit side by side on a phone.
COLUMNS, LONG = 4, 60


def tidy_tables(body: str) -> str:
    """Return the HTML of a page with its tables made readable."""
    body = FRAME.sub(lambda found: _printed(found[0]), STYLE.sub("", body))
    return WRITTEN.sub(lambda found: _written(found[0]), body)


def _printed(markup: str) -> str:
    """A pandas table in a box that scrolls, as Sphinx puts a written one."""
    table = BeautifulSoup(markup, "html.parser").table
    _merge_headers(table)
    _mark_index_names(table)
    _mark_numbers(table)
    for cell in table.select("th"):
        if not cell.get_text(strip=True):
            cell.name = "td"
    return f'<div class="pst-scrollable-table-container">{table}</div>'


def _merge_headers(table: Tag) -> None:
    """Write the names of the index into the row above, before the name of the columns."""
    rows = table.select("thead > tr")
    if len(rows) < 2:
        return
    names, above = rows[-1].select("th"), rows[-2].select("th")
    if len(names) != len(above):
        return
    for name, cell in zip(names, above, strict=True):
        texts = [it.get_text(strip=True) for it in (name, cell)]
        cell.string = " / ".join(filter(None, texts))
    rows[-1].decompose()


def _mark_index_names(table: Tag) -> None:
    """Give the class `index-name` to the header cells above the index."""
    first = table.select_one("tbody > tr")
    width = len(first.select("th")) if first else 0
    for row in table.select("thead > tr"):
        for cell in row.select("th")[:width]:
            cell["class"] = "index-name"


def _mark_numbers(table: Tag) -> None:
    """Give the class `number` to the cells of a column that holds nothing but numbers."""
    rows = [row.select("td") for row in table.select("tbody > tr")]
    header = [row.select("th") for row in table.select("thead > tr")]
    if not header:
        return
    # Counted from the right: on the left, a name may span several rows.
    for place in range(1, min(map(len, rows), default=0) + 1):
        cells = [row[-place] for row in rows]
        if all(NUMBER.fullmatch(cell.get_text(strip=True)) for cell in cells):
            for cell in [header[-1][-place], *cells]:
                cell["class"] = [*cell.get("class", []), "number"]


def _written(markup: str) -> str:
    """A table that was written in Markdown; one of long texts is marked so that it fits a phone."""
    table = BeautifulSoup(markup, "html.parser").table
    _mark_numbers(table)
    labels = [cell.get_text(" ", strip=True) for cell in table.select("thead th")]
    if max((len(cell.get_text()) for cell in table.select("td")), default=0) < LONG:
        return str(table)
    if len(labels) < COLUMNS:
        table["class"] = ["table", "prose"]
    else:
        _let_rows_stand_alone(table, labels)
    return str(table)


def _let_rows_stand_alone(table: Tag, labels: list[str]) -> None:
    """Let each cell name its column, so that a row can be laid out as a block."""
    table["class"] = ["table", "stacks"]
    # Laid out as blocks, the elements would lose what they are to a screen reader.
    roles = {"thead": "rowgroup", "tbody": "rowgroup", "tr": "row", "th": "columnheader"}
    for part in [table, *table.select("thead, tbody, tr, th, td")]:
        part["role"] = {"table": "table", "td": "cell", **roles}[part.name]
    for row in table.select("tbody > tr"):
        for label, cell in zip(labels, row.select("td"), strict=True):
            cell["data-label"] = label
