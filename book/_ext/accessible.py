"""What the pages need to be read on a phone, with a keyboard or with a screen reader."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

from tools.table_markup import tidy_tables


def mend(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], *_: Any) -> None:
    """Mend the body of a page just before it is written."""
    # docutils gives a list of references entries of a role that lists may not have.
    body = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')
    if body:
        context["body"] = tidy_tables(body)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it, and the script that lets wide tables be scrolled with the keyboard."""
    app.connect("html-page-context", mend)
    app.add_js_file("scrolling.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
