"""The ids of claims lead to the scorecard, and the scorecard loads its filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from pai_lite.methods import METHODS
from tools.claims import read_claims

SCORECARD = "book/scorecard"


def link_ids(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make a link of every id in code that is not a method's name, or opens a row of a table."""
    if docname == SCORECARD or SCORECARD not in app.env.found_docs:
        return
    ids = {claim.id for claim in read_claims(Path(app.srcdir))}
    page = app.builder.get_relative_uri(docname, SCORECARD)
    for code in list(doctree.findall(nodes.literal)):
        name = code.astext()
        if name in ids and (name not in METHODS or opens_a_row(code)):
            link = nodes.reference("", "", code.deepcopy(), refuri=f"{page}#{name}", internal=True)
            code.replace_self(link)


def opens_a_row(code: nodes.literal) -> bool:
    """Whether the code stands in the first cell of a row."""
    cell = code.parent.parent
    return isinstance(cell, nodes.entry) and cell.parent.index(cell) == 0


def add_filters(app: Sphinx, pagename: str, *_: Any) -> None:
    """Load the filters on the scorecard alone."""
    if pagename == SCORECARD:
        app.add_js_file("scorecard.js")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both."""
    app.connect("doctree-resolved", link_ids)
    app.connect("html-page-context", add_filters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
