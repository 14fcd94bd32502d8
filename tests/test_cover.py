"""The committed cover shows what the methods choose now, in the picture and in words."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pai_lite as pai
from tools import cover
from tools.pictures import THEMES
from tools.site import ROOT

FILES = [ROOT / cover.FOLDER / f"cover_{theme.name}.svg" for theme in THEMES]
ALIKE = 0.9  # overlap; another version of PyTorch may round otherwise, but hardly ever so
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def masks() -> dict[str, pai.Mask]:
    return cover.choose()


def matrices(path: Path) -> Iterator[np.ndarray]:
    """The matrices of dots in a picture: True where a weight is drawn as kept."""
    text = path.read_text(encoding="utf8")
    for code in re.findall(r"data:image/png;base64,\s*([\w+/=\s]+)", text):
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(code))))
        yield pixels[:: cover.SHARP, :: cover.SHARP, 3] == 255


def description(path: Path) -> str:
    """What a picture says about itself."""
    (found,) = re.findall(r"<dc:description>(.*)</dc:description>", path.read_text(encoding="utf8"))
    return found


@each_file
def test_the_dots_are_the_weights_that_the_methods_keep_now(
    path: Path, masks: dict[str, pai.Mask]
) -> None:
    drawn = list(matrices(path))
    layers = [cover.as_dots(kept) for mask in masks.values() for kept in mask.values()]
    network, methods = drawn[:4], drawn[4:]
    assert all(dots.all() for dots in network)
    for dots, kept in zip(methods, layers, strict=True):
        assert dots.shape == kept.shape
        assert (dots & kept).sum() > ALIKE * (dots | kept).sum()


@each_file
def test_the_words_hold_the_densities_of_now(path: Path, masks: dict[str, pai.Mask]) -> None:
    said, now = description(path), cover.words(masks)
    assert re.sub(r"\d+", "", said) == re.sub(r"\d+", "", now)
    pairs = zip(*(map(int, re.findall(r"\d+", text)) for text in (said, now)), strict=True)
    assert all(abs(mine - other) <= 1 for mine, other in pairs)


@each_file
def test_the_first_page_tells_what_the_picture_shows(path: Path) -> None:
    page = (ROOT / "book" / "index.md").read_text(encoding="utf8")
    shown = re.search(rf"{{image}} _static/{path.name}\n:class: .*\n:alt: (.*)\n", page)
    assert shown
    assert shown[1] == description(path)


@each_file
def test_the_picture_is_small_enough_for_a_phone(path: Path) -> None:
    assert path.stat().st_size < 150_000


def test_convolutions_lie_with_inputs_downwards_and_outputs_across() -> None:
    kept = torch.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    dots = cover.as_dots(kept)
    assert dots.shape == (6, 4)
    assert dots[:2, :2].tolist() == kept[0, 0].tolist()
    assert dots[2:4, 2:].tolist() == kept[1, 1].tolist()
