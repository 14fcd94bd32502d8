"""A line of links under the title of every chapter: Colab, its notebook, its source.

The theme's launch buttons do not serve pages written in Markdown. The notebook is
copied into the book, so that the download works offline, and the page is read
again when its notebook has changed.
"""

from __future__ import annotations

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from tools.site import colab_url, source_url


def add_links(app: Sphinx, doctree: nodes.document) -> None:
    """Put the links below the title of a chapter; other pages stay as they are."""
    docname = app.env.docname
    if not docname.startswith("book/chapters/"):
        return
    root = Path(app.srcdir)
    notebook = f"notebooks/{Path(docname).name}.ipynb"
    download = addnodes.download_reference(
        "", "Download notebook", reftarget=f"/{notebook}", refdoc=docname
    )
    title = next(doctree.findall(nodes.title))
    title.parent.insert(1, _line(colab_url(notebook, root), download, f"{docname}.md", root))


def _line(colab: str, download: nodes.Node, source: str, root: Path) -> nodes.paragraph:
    separator = " · "
    return nodes.paragraph(
        "",
        "",
        nodes.reference("", "Open in Colab", refuri=colab),
        nodes.Text(separator),
        download,
        nodes.Text(separator),
        nodes.reference("", "Source", refuri=source_url(source, root)),
        classes=["chapter-links"],
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension, ahead of Sphinx's own collector of downloads."""
    app.connect("doctree-read", add_links, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
