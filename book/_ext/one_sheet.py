"""The method cards print on one sheet, with a style sheet of their own."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def leave_out_print_css(_app: Sphinx, page: str, _template: str, context: dict, *_: Any) -> None:
    """Keep the rules for long texts on paper away from the cards."""
    if page == "book/method-cards":
        files = context["css_files"]
        context["css_files"] = [it for it in files if "print.css" not in str(it.filename)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.connect("html-page-context", leave_out_print_css)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
