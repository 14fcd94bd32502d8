"""Keep Thebe, which Jupyter Book always loads, out of the pages.

It would fetch its scripts from the web, and this book works without a kernel.
"""

from __future__ import annotations

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Disconnect everything that Thebe's extension has connected, its style sheet too."""
    app.registry.css_files[:] = [it for it in app.registry.css_files if "thebe" not in it[0]]
    for listeners in app.events.listeners.values():
        listeners[:] = [it for it in listeners if "thebe" not in it.handler.__module__]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
