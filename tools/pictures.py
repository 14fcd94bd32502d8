"""Pictures of generated pages: SVG files for light and for dark pages, the same at every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

WIDTH = 3.6  # inches; as wide as a phone's screen
COLORED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")


@dataclass(frozen=True)
class Theme:
    """The colours of a page."""

    name: str
    ground: str
    text: str
    behind: str


THEMES = (
    Theme("light", "#ffffff", "#323232", "#c4c4c4"),
    Theme("dark", "#121212", "#ced6dd", "#55595f"),
)


@contextmanager
def drawn_on(theme: Theme) -> Iterator[None]:
    """Draw what is drawn inside with the text of a theme."""
    settings: dict[str, Any] = {"font.size": 8, **dict.fromkeys(COLORED, theme.text)}
    with plt.rc_context(settings):
        yield


def save(figure: Figure, path: Path, words: str | None = None) -> None:
    """Write a figure as SVG, the same at every time, with what it shows in words; close it."""
    with plt.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None, "Description": words}, transparent=True)
    plt.close(figure)


def shown_twice(stem: str, alt: str) -> str:
    """Return the Markdown of a picture: the one of light pages and the one of dark pages."""
    return "\n".join(
        f":::{{image}} _figures/{stem}_{theme.name}.svg\n"
        f":class: only-{theme.name}\n:alt: {alt}\n:::"
        for theme in THEMES
    )
