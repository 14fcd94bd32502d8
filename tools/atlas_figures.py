"""The figures of the results atlas: one SVG a panel, for light pages and for dark ones.

The axis of accuracies is logarithmic in the error, so that differences near the top can be seen;
the axis of sparsities is logarithmic in the density.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from tools.atlas_rows import LATER, Line, Panel, Section, percent
from tools.pictures import THEMES, WIDTH, Theme, drawn_on, save

HEIGHT = 2.9  # inches
ACCURACIES = (99.9, 99.8, 99.5, 99, 98, 95, 90, 80, 50, 10)  # of the ticks
CONTRAST = 3  # of lines to the page, as the accessibility guidelines ask


def draw_all(sections: Sequence[Section], folder: Path) -> None:
    """Draw every panel of every section into a folder."""
    folder.mkdir(exist_ok=True)
    for section in sections:
        for panel in section.panels:
            for theme in THEMES:
                figure = draw_panel(section, panel, theme)
                save(figure, folder / f"{figure_stem(section, panel)}_{theme.name}.svg")


def figure_stem(section: Section, panel: Panel) -> str:
    """Return what the names of a panel's files begin with."""
    return f"{section.name}_{panel.slug}"


def draw_panel(section: Section, panel: Panel, theme: Theme) -> Figure:
    """Return a panel as a figure of its own."""
    with drawn_on(theme):
        figure = plt.figure(figsize=(WIDTH, HEIGHT))
        # At the same place in all panels, whatever the legend needs.
        fill_axes(figure.add_axes((0.13, 0.14, 0.84, 0.63)), section, panel, theme)
    return figure


def draw_sheet(section: Section, title: str) -> Figure:
    """Return all panels of a section in one figure, two in a row, for a white page."""
    across = -(-len(section.panels) // 2)
    size = (2 * WIDTH, (HEIGHT + 0.25) * across)
    with plt.rc_context({"font.size": 8}):
        figure, places = plt.subplots(across, 2, figsize=size, squeeze=False, layout="constrained")
        for ax, panel in zip(places.flat, section.panels, strict=False):
            fill_axes(ax, section, panel, THEMES[0])
        for ax in places.flat[len(section.panels) :]:
            ax.set_axis_off()
        figure.suptitle(title, fontsize=8)
    return figure


def fill_axes(ax: Axes, section: Section, panel: Panel, theme: Theme) -> None:
    """Draw the lines of a panel, its axes and its legend."""
    for line in panel.behind:
        ax.plot(line.points.index.map(place_of(section)), error(line.points["mean"]),
                color=theme.behind, linewidth=0.8, zorder=1)  # fmt: skip
    for mean in section.dense["mean"]:
        ax.axhline(error(mean), color=theme.text, linestyle="--", linewidth=1)
    for line in panel.lines:
        draw_line(ax, line, section, theme)
    accuracy_axis(ax, section)
    step_axis(ax, panel) if section.kind == LATER else sparsity_axis(ax, section)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(panel.title, loc="left", fontsize=9, fontweight="bold", pad=28)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=3 if section.kind == LATER
              else 2, frameon=False, fontsize=7.5, borderpad=0.2, labelspacing=0.25,
              columnspacing=1.2, handlelength=1.8)  # fmt: skip


def draw_line(ax: Axes, line: Line, section: Section, theme: Theme) -> None:
    """Draw means with markers, and a band where there is an interval."""
    color = readable(line.color, theme)
    x = line.points.index.map(place_of(section))
    means, low, high = (error(line.points[name]) for name in ("mean", "low", "high"))
    ax.fill_between(x, low, high, color=color, alpha=0.22, linewidth=0)
    ax.plot(x, means, color=color, marker=line.marker, markersize=4, linewidth=1.3,
            label=line.label)  # fmt: skip


def place_of(section: Section) -> Callable[[float], float]:
    """Return what turns an index of points into a place on the horizontal axis."""
    return (lambda step: step) if section.kind == LATER else (lambda sparsity: 1 - sparsity)


def error(accuracy: pd.Series | float) -> pd.Series | float:
    """Return the error in points; an interval that reaches over 100% ends just below it."""
    return np.clip(100 - accuracy, 0.01, 100)


def accuracy_axis(ax: Axes, section: Section) -> None:
    """Label the errors as accuracies, over the range of all means of the section."""
    lines = [line.points["mean"] for panel in section.panels for line in panel.lines]
    errors = error(pd.concat([*lines, section.dense["mean"]]))
    above = max((100 - a for a in ACCURACIES if 100 - a <= errors.min()), default=errors.min())
    least, most = 0.8 * above, min(100.0, 1.15 * errors.max())
    ticks = [100 - a for a in ACCURACIES if least <= 100 - a <= most]
    ax.set_yscale("log")
    ax.set_ylim(most, least)
    ax.set_yticks(ticks, [f"{100 - tick:.4g}" for tick in ticks])
    ax.minorticks_off()
    ax.set_ylabel("test accuracy (%)", labelpad=2)


def sparsity_axis(ax: Axes, section: Section) -> None:
    """Label the densities as percentages of weights removed."""
    ticks = sorted(set(section.rows.loc[section.rows["sparsity"] > 0, "sparsity"]))
    ax.set_xscale("log")
    ax.set_xticks([1 - s for s in ticks], [percent(s) for s in ticks])
    ax.minorticks_off()
    ax.invert_xaxis()
    ax.set_xlabel("weights removed (%)", labelpad=2)


def step_axis(ax: Axes, panel: Panel) -> None:
    """Place the steps of training on a logarithmic axis that has a 0."""
    ticks = sorted({step for line in panel.lines for step in line.points.index})
    first = min((step for step in ticks if step > 0), default=1)
    ax.set_xscale("symlog", linthresh=first, linscale=0.4)
    ax.set_xlim(-0.15 * first, 1.15 * max(ticks))
    ax.set_xticks(ticks, [str(step) for step in ticks])
    ax.minorticks_off()
    ax.set_xlabel("pruned after so many steps of training", labelpad=2)


def readable(color: str, theme: Theme) -> str:
    """Return the colour, mixed with the colour of text until it stands out from the page."""
    start, end = np.array(to_rgb(color)), np.array(to_rgb(theme.text))
    for share in np.linspace(0, 1, 21):
        mixed = to_hex((1 - share) * start + share * end)
        if contrast(mixed, theme.ground) >= CONTRAST:
            return mixed
    return theme.text


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours, from 1 to 21.

    Source: Web Content Accessibility Guidelines 2.2, "contrast ratio" and "relative luminance".
    """
    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    """Return the relative luminance of a colour, from 0 to 1."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
