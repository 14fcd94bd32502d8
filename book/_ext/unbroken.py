"""A formula in a line is not parted from the full stop behind it or the bracket before it."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx

BEFORE = re.compile(r"[(\[“‘]+$")
BEHIND = re.compile(r"^[.,;:!?)\]”’%]+")


def keep_together(_app: Sphinx, doctree: nodes.document, _docname: str) -> None:
    """Put each formula and the marks next to it into one element, for the style sheet."""
    for formula in list(doctree.findall(nodes.math)):
        parent, place = formula.parent, formula.parent.index(formula)
        before = _cut(BEFORE, parent, place - 1) if place else ""
        behind = _cut(BEHIND, parent, place + 1) if place + 1 < len(parent) else ""
        if before or behind:
            together = nodes.inline(classes=["unbroken"])
            parent.replace(formula, together)
            together += [nodes.Text(before), formula, nodes.Text(behind)]


def _cut(marks: re.Pattern[str], parent: nodes.Element, place: int) -> str:
    """Take the marks out of a text beside a formula, and return them."""
    text = parent[place]
    found = marks.search(text.astext()) if isinstance(text, nodes.Text) else None
    if found is None:
        return ""
    parent[place] = nodes.Text(marks.sub("", text.astext()))
    return found[0]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.connect("doctree-resolved", keep_together)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
