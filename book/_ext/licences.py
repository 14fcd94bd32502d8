"""The licences of what the pages load are served with them."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

from tools.licences import write_licences


def write(app: Sphinx, exception: Exception | None) -> None:
    """Write the file once the book is built."""
    if exception is None and app.builder.format == "html":
        write_licences(Path(app.outdir) / "_static")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
