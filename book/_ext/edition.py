"""The version of the package, which is that of the book, at the foot of every page."""

from __future__ import annotations

from importlib.metadata import version

from sphinx.application import Sphinx
from sphinx.config import Config


def set_version(_app: Sphinx, config: Config) -> None:
    """Take the version from the installed package: it is typed in `pyproject.toml` alone."""
    config.version = config.release = version("pai-lite")
    footer = f'<p class="version">Version {config.version}</p>'
    config.html_theme_options = {**config.html_theme_options, "extra_footer": footer}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register it, before the builder reads the options of the theme."""
    app.connect("config-inited", set_version)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
