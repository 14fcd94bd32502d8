"""What the pages need to be read on a phone, with a keyboard or with a screen reader."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from sphinx.application import Sphinx

from tools.table_markup import tidy_tables

PICTURE = re.compile(r'<img [^>]*src="[^"]*_images/([^"/]+\.png)"[^>]*>')
# The figures of the book are 7 inches wide, 140 pixels each; wider ones have panels side by side.
WIDE = 1100


def mend(app: Sphinx, _page: str, _template: str, context: dict[str, Any], *_: Any) -> None:
    """Mend the body of a page just before it is written."""
    # docutils gives a list of references entries of a role that lists may not have.
    body = context.get("body", "").replace('role="doc-biblioentry"', 'role="listitem"')
    # sphinx-exercise puts the space into the link, which underlines it.
    body = re.sub(r"(Solution to)(<a [^>]*>) ", r"\1 \2", body)
    if body:
        sources = {name: Path(app.srcdir, path) for path, (_, name) in app.env.images.items()}
        context["body"] = tidy_tables(box_wide_pictures(body, sources))


def box_wide_pictures(body: str, sources: dict[str, Path]) -> str:
    """Put the wide pictures of a page into boxes, in which they scroll on a phone."""

    def boxed(picture: re.Match[str]) -> str:
        source = sources.get(picture[1])
        if source is None or width(source) < WIDE:
            return picture[0]
        return f'<span class="wide-picture">{picture[0]}</span>'

    return PICTURE.sub(boxed, body)


@cache
def width(path: Path) -> int:
    """The width of a picture in pixels."""
    with Image.open(path) as picture:
        return picture.width


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it, and the script that lets wide tables and pictures be scrolled by keyboard."""
    app.connect("html-page-context", mend)
    app.add_js_file("scrolling.js")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
