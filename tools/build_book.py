"""Build the book from the stored notebooks, executing nothing.

The outputs of every notebook are put in the cache that MyST-NB reads before it
would execute a page; the build then finds them all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import JupyterCacheBase
from myst_nb.core.read import read_myst_markdown_notebook
from myst_parser.config.main import MdParserConfig
from nbformat import NotebookNode

from tools import atlas, scorecard
from tools.notebooks import code_cells, stale_notebooks
from tools.results_pages import stale_pages
from tools.site import ROOT, chapter_paths, config, notebook_path

# Leads to the book. Without an icon here browsers would ask for one that is not there.
FIRST_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}: first page</title>
<link rel="icon" href="_static/favicon.svg">
<meta http-equiv="refresh" content="0; url=book/index.html">
<h1><a href="book/index.html">{title}</a></h1>
</html>
"""


def main() -> int:
    """The command line: build the book of this repository."""
    try:
        build(ROOT)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(root: Path) -> Path:
    """Build the book under `root/_build/html` and return its first page.

    Raises ValueError when a notebook or a page of results is stale, when Sphinx warns, or when a
    page was executed.
    """
    stale = stale_notebooks(root)
    if stale:
        raise ValueError("Run `make notebooks` first; stale: " + "; ".join(stale))
    if outdated := stale_pages(root):
        raise ValueError("Run `make results-pages` first; stale: " + "; ".join(outdated))
    atlas.draw_figures(root)
    scorecard.draw_figures(root)
    cache = _fill_cache(root)
    stored = len(cache.list_cache_records())
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    # All pages: Sphinx copies a changed style sheet only when it writes some page.
    command = [jupyter_book, "build", "--all", "-W", "-n", "--keep-going", root]
    # Sphinx's local extensions take the addresses from tools/site.py.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if subprocess.run(command, env=environment, check=False).returncode:
        raise ValueError("The book has warnings, listed above; mend them.")
    if len(cache.list_cache_records()) != stored:
        raise ValueError("A page was executed: its cells differ from its notebook's.")
    first = root / "_build" / "html" / "index.html"
    first.write_text(FIRST_PAGE.format(title=config(root)["title"]), encoding="utf8")
    return first


def _fill_cache(root: Path) -> JupyterCacheBase:
    """A fresh cache that holds the outputs of every chapter, and nothing else."""
    folder = root / "_build" / ".jupyter_cache"
    shutil.rmtree(folder, ignore_errors=True)
    cache = get_cache(str(folder))
    for chapter in chapter_paths(root):
        page = _page_with_outputs(chapter, root)
        bundle = CacheBundleIn(page, str(chapter))
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    return cache


def _page_with_outputs(chapter: Path, root: Path) -> NotebookNode:
    """The chapter as MyST-NB reads it, with the outputs of its stored notebook."""
    extensions = config(root)["parse"]["myst_enable_extensions"]
    page = read_myst_markdown_notebook(
        chapter.read_text(encoding="utf8"), MdParserConfig(enable_extensions=extensions)
    )
    notebook = nbformat.read(notebook_path(chapter, root), as_version=4)
    stored = [c for c in code_cells(notebook) if "install" not in c.metadata.get("tags", [])]
    for shown, executed in zip(code_cells(page), stored, strict=True):
        if shown.source != executed.source:
            raise ValueError(f"{chapter}: the book reads this cell otherwise:\n{shown.source}")
        shown.outputs, shown.execution_count = executed.outputs, executed.execution_count
    return page


if __name__ == "__main__":
    sys.exit(main())
