"""Where the browser is that prints the book and tests its pages."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """The path of Chromium or Chrome, if one of them is there."""
    return next(filter(None, map(shutil.which, NAMES)), None)
