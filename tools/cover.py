"""The picture on the first page: which weights of one untrained network each method keeps.

python -m tools.cover
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from torch import Tensor

import pai_lite as pai
from tools.atlas_figures import readable
from tools.pictures import THEMES, WIDTH, Theme, drawn_on, save
from tools.site import ROOT

FOLDER = Path("book/_static")
SPARSITY = 0.95
NAMES = {
    "random": "random",
    "magnitude": "magnitude",
    "snip": "SNIP",
    "grasp": "GraSP",
    "synflow": "SynFlow",
    "force": "FORCE",
    "prospr": "ProsPr",
}
HEIGHTS = (9, 48, 96, 15)  # of the layers as drawn; of the larger two, one a weight
ACROSS = 96  # the width of every layer, in the same unit
GAP = 7
HEIGHT = 2.95  # inches
SHARP = 4  # pixels a side of a weight, so that a large screen shows its edges


def main() -> None:
    """The command line: write both pictures."""
    torch.set_num_threads(1)  # small networks: more threads only wait for each other
    masks = choose()
    for theme in THEMES:
        save(draw(masks, theme), ROOT / FOLDER / f"cover_{theme.name}.svg", words(masks))


def choose() -> dict[str, pai.Mask]:
    """Return the mask of every method, for one network and the same images.

    In float64, so that another version of PyTorch has no ties to break otherwise.
    """
    data = pai.load_data("digits")
    model = pai.build_model("small-conv", data, seed=0).double()
    batches = [(x.double(), y) for x, y in data.batches(4, per_class=10)]
    return {
        name: pai.prune(
            model, name, batches[: pai.METHODS[name].batches], sparsity=SPARSITY, progress=False
        )
        for name in NAMES
    }


def words(masks: dict[str, pai.Mask]) -> str:
    """Return what the picture shows, for those who do not see it."""
    size = next(iter(masks.values())).size
    kept = "; ".join(f"{NAMES[name]} {shares(mask)}" for name, mask in masks.items())
    return (
        f"The {size:,} weights of one untrained network as dots, layer by layer, and the "
        f"{1 - SPARSITY:.0%} that each of seven methods keeps. The shares kept of its four "
        f"layers in percent, from input to output, are {kept}."
    )


def shares(mask: pai.Mask) -> str:
    """Return the layer densities as a list of whole percentages."""
    return ", ".join(f"{100 * density:.0f}" for density in mask.layer_density())


def draw(masks: dict[str, pai.Mask], theme: Theme) -> Figure:
    """Return the picture: the network, and what every method keeps of it."""
    with drawn_on(theme):
        figure, places = plt.subplots(2, 4, figsize=(WIDTH, HEIGHT))
        figure.subplots_adjust(left=0, right=1, bottom=0, top=0.93, wspace=0, hspace=0.16)
        first, *others = places.flat
        dense = pai.Mask({name: torch.ones_like(m) for name, m in masks["random"].items()})
        sizes = [f"{count:,}" for count in dense.layer_counts().values()]
        tile(first, "all weights", dense, theme.behind, theme, sizes)
        for ax, (name, mask) in zip(others, masks.items(), strict=True):
            color = readable(pai.plots.STYLE[name][0], theme)
            labels = [f"{100 * density:.0f}%" for density in mask.layer_density()]
            tile(ax, NAMES[name], mask, color, theme, labels)
    return figure


def tile(
    ax: Axes, title: str, mask: pai.Mask, color: str, theme: Theme, labels: Iterable[str]
) -> None:
    """Draw the layers below one another, kept weights in a colour, with a label beside each."""
    ax.set_title(title, fontsize=8, fontweight="bold", loc="left", pad=4)
    ax.set_axis_off()
    top = 0
    for kept, height, label in zip(mask.values(), HEIGHTS, labels, strict=True):
        place = (0, ACROSS, top + height, top)
        ax.imshow(painted(as_dots(kept), color, theme), extent=place, interpolation="none")
        ax.text(ACROSS + 4, top + height / 2, label, fontsize=6.5, va="center")
        top += height + GAP
    ax.set(xlim=(0, 152), ylim=(top - GAP, 0), anchor="NW")


def as_dots(kept: Tensor) -> np.ndarray:
    """Return a layer's mask as a matrix: of a convolution, inputs downwards, outputs across."""
    if kept.dim() == 4:
        outputs, inputs, height, width = kept.shape
        kept = kept.permute(1, 2, 0, 3).reshape(inputs * height, outputs * width)
    return kept.numpy()


def painted(dots: np.ndarray, color: str, theme: Theme) -> np.ndarray:
    """Return the matrix in colours."""
    large = np.kron(dots, np.ones((SHARP, SHARP))).astype(bool)
    return np.where(large[..., None], to_rgba(color), to_rgba(theme.behind, 0.3))


if __name__ == "__main__":
    main()
