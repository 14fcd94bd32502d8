"""The one look of all figures: a style sheet, and for each method a colour and a marker."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_rgb

import pai_lite as pai
from pai_lite.plots import OTHER, STYLE
from tools.site import chapter_paths

USE = 'plt.style.use("pai_lite.book")'


def test_every_method_has_a_look_of_its_own() -> None:
    assert set(pai.METHODS) <= set(STYLE)
    assert len({*STYLE.values(), OTHER}) == len(STYLE) + 1


def lightness(color: str) -> float:
    """CIE L*, from 0 to 100, which colour blindness leaves nearly as it is."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(color)]
    return (
        116 * sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) ** (1 / 3)
        - 16
    )


def alike(first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Whether two looks differ in hue alone."""
    return first[1] == second[1] and abs(lightness(first[0]) - lightness(second[0])) < 15


def test_no_two_looks_differ_in_hue_alone() -> None:
    assert [pair for pair in combinations([*STYLE.values(), OTHER], 2) if alike(*pair)] == []


def test_looks_that_differ_in_hue_alone_are_found() -> None:
    assert alike(("#D55E00", "D"), ("#8888DD", "D"))
    assert not alike(("#D55E00", "D"), ("#8888DD", "h"))


def test_the_style_sheet_holds_nothing_that_matplotlib_ignores(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with warnings.catch_warnings(), plt.style.context("default"):
        warnings.simplefilter("error")  # for settings that no style may have
        plt.style.use("pai_lite.book")
        assert not plt.rcParams["axes.spines.top"]
    assert caplog.messages == []  # for unknown settings and wrong values


@pytest.mark.parametrize("chapter", chapter_paths(), ids=lambda path: path.stem)
def test_every_chapter_uses_the_style_sheet(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf8")
    assert text.count(USE) == 1
    assert 'rcParams["font' not in text
