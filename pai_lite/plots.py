"""Figures: one colour and one marker per method throughout the book.

The colours are those of Okabe and Ito and of Paul Tol, which survive colour blindness; markers
repeat what the colours say, and methods of one family share a hue.
"""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from pai_lite.masks import Mask

STYLE: dict[str, tuple[str, str]] = {
    "dense": ("#000000", "_"),
    "random": ("#999999", "o"),
    "random-uniform": ("#56B4E9", "v"),
    "random-erk": ("#009E73", "^"),
    "magnitude": ("#E69F00", "s"),
    "snip": ("#D55E00", "D"),
    "snip, shuffled": ("#CC79A7", "*"),
    "iter-snip": ("#F4A582", "<"),
    "force": ("#A63D00", ">"),
    "grasp": ("#AA4499", "p"),
    "grasp-abs": ("#882255", "H"),
    "grasp-it": ("#CC6677", "d"),
    "iter-grasp": ("#DDAACC", "8"),
    "synflow": ("#117733", "X"),
    "prospr": ("#332288", "s"),
    "prospr-first-order": ("#8888DD", "h"),
    "magnitude-after": ("#0072B2", "P"),
    "lottery-ticket": ("#004B87", "*"),
}
OTHER = ("#44AA99", "X")


def plot_layer_density(masks: Mapping[str, Mask], ax: Axes | None = None) -> Axes:
    """Draw the density of each layer, one line a mask, on a logarithmic scale.

    A layer that lost all its weights has no point; the line breaks there.

    Args:
        masks: by the name that the legend shows.
    """
    ax = ax or plt.subplots(figsize=(7, 3.5), layout="constrained")[1]
    for name, mask in masks.items():
        density = mask.layer_density()
        color, marker = STYLE.get(name, OTHER)
        shown = density.where(density > 0)
        ax.semilogy(range(len(density)), shown, color=color, marker=marker, label=name)
    layers = [name.removesuffix(".weight") for name in density.index]
    ax.set_xticks(range(len(layers)), layers, rotation=60 if len(layers) > 6 else 0)
    ax.set_xlabel("layer, from input to output")
    ax.set_ylabel("density (fraction kept)")
    ax.legend()
    return ax


def plot_accuracy(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw test accuracy against density: the mean over seeds, and bars from least to most.

    Args:
        frame: rows of :func:`pai_lite.sweep`.
    """
    ax = ax or plt.subplots(figsize=(7, 4), layout="constrained")[1]
    for place, (name, rows) in enumerate(frame.groupby("method", sort=False)):
        color, marker = STYLE.get(name, OTHER)
        groups = rows.groupby("sparsity")["test_accuracy"]
        mean, low, high = 100 * groups.mean(), 100 * groups.min(), 100 * groups.max()
        if name == "dense":
            ax.axhline(mean.iloc[0], color=color, linestyle="--", label=name)
            continue
        # Set apart sideways, so that no bar hides another.
        density = (1 - mean.index.to_numpy()) * 1.015**place
        ax.errorbar(
            density, mean, yerr=[mean - low, high - mean],
            color=color, marker=marker, capsize=3, label=name,
        )  # fmt: skip
    ticks = sorted({1 - s for s in frame.loc[frame["method"] != "dense", "sparsity"]})
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{100 * (1 - t):.4g}" for t in ticks], minor=False)
    ax.minorticks_off()
    ax.invert_xaxis()
    ax.set_xlabel("sparsity (% of prunable weights removed)")
    ax.set_ylabel("test accuracy (%)")
    ax.legend()
    return ax
