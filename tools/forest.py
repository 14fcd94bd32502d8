"""The pictures of all effects: one row an effect, its mean and its interval.

One picture a source, as wide as a phone's screen; in it one panel a quantity. The panels of
accuracies have the same axis in all pictures: linear within a point of zero, and logarithmic
beyond, for tenths of a point and tens of points are both there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tools.claims import Claim
from tools.evidence import FAILS, HOLDS, OPEN, Finding
from tools.pictures import THEMES, WIDTH, Theme, drawn_on
from tools.shown import Shown, axis_label, shown

ROW, GAP, SINGLE = 0.085, 0.075, 0.15  # inches: an effect, between claims, the least of a claim
TITLE, FOOT = 0.24, 0.44  # inches: above the first panel, below each
LEFT, RIGHT = 1.23, 0.08  # inches
TICKS = (-50, -10, -3, -1, 0, 1, 3, 10, 50)
ACCURACY = "difference in test accuracy (points)"
#: Colour on light pages and on dark ones, and marker, of every outcome.
STYLE = {
    HOLDS: ("#0072B2", "#56B4E9", "o"),
    FAILS: ("#C44500", "#FF9A57", "X"),
    OPEN: ("#6B6B6B", "#A9B0B8", "D"),
}


@dataclass(frozen=True)
class Panel:
    """The effects of one quantity, claim by claim."""

    label: str
    claims: dict[str, list[Shown]] = field(default_factory=dict)

    @property
    def height(self) -> float:
        """The height in inches."""
        return sum(map(block_height, self.claims.values()))

    @property
    def effects(self) -> list[Shown]:
        """All effects, from top to bottom."""
        return [effect for effects in self.claims.values() for effect in effects]


def block_height(effects: Sequence[Shown]) -> float:
    """Return the height of a claim's rows in inches, with the gap below them."""
    return max(SINGLE, ROW * len(effects)) + GAP


def panels(judged: Iterable[tuple[Claim, Sequence[Finding]]]) -> list[Panel]:
    """Return the panels of the claims of one source; accuracies come first."""
    found: dict[str, Panel] = {}
    for claim, findings in judged:
        for finding in findings:
            for effect in finding.effects:
                label = axis_label(finding.check)
                panel = found.setdefault(label, Panel(label))
                panel.claims.setdefault(claim.id, []).append(shown(effect, finding.check))
    return sorted(found.values(), key=lambda panel: panel.label != ACCURACY)


def limits(drawn: Iterable[Panel]) -> dict[str, tuple[float, float]]:
    """Return the limits of the axis of every quantity over all pictures.

    They hold all intervals and all ends of claimed ranges, and zero where differences are drawn.
    """
    ends: dict[str, list[float]] = {}
    for panel in drawn:
        seen = [end for e in panel.effects for end in (e.low, e.high, e.least, e.most)]
        zero = [0.0] if panel.label.startswith("difference") else []
        found = [end for end in [*zero, *seen] if np.isfinite(end)]
        ends.setdefault(panel.label, []).extend(found)
    return {label: (min(values), max(values)) for label, values in ends.items()}


def draw(
    title: str, drawn: Sequence[Panel], ends: dict[str, tuple[float, float]], theme: Theme
) -> Figure:
    """Return the picture of one source."""
    height = TITLE + sum(panel.height + FOOT for panel in drawn)
    with drawn_on(theme):
        figure = plt.figure(figsize=(WIDTH, height))
        figure.text(0.01, 1 - 0.13 / height, title, fontsize=9, fontweight="bold", va="center")
        top = height - TITLE
        for panel in drawn:
            place = (LEFT, top - panel.height, WIDTH - LEFT - RIGHT, panel.height)
            box = np.array(place) / (WIDTH, height, WIDTH, height)
            draw_panel(figure.add_axes(tuple(box)), panel, ends[panel.label], theme)
            top -= panel.height + FOOT
    return figure


def draw_panel(ax: Axes, panel: Panel, ends: tuple[float, float], theme: Theme) -> None:
    """Draw the effects of a quantity, with the names of the claims to the left."""
    ax.set_ylim(panel.height, 0)
    scale_axis(ax, panel, ends)
    below, ticks = 0.0, []
    for effects in panel.claims.values():
        height = block_height(effects)
        ticks.append(below + (height - GAP) / 2 + GAP / 2)
        draw_block(ax, effects, below, theme)
        below += height
        ax.axhline(below, color=theme.behind, linewidth=0.4)
    if ax.get_xlim()[0] < 0:
        ax.axvline(0, color=theme.text, linewidth=0.6)
    ax.set_yticks(ticks, list(panel.claims), fontsize=7.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    label = ax.set_xlabel(panel.label, fontsize=7.5, labelpad=2)
    label.set_horizontalalignment("right")
    ax.xaxis.set_label_coords(1.0, -0.27 / panel.height)


def draw_block(ax: Axes, effects: Sequence[Shown], top: float, theme: Theme) -> None:
    """Draw the effects of a claim, each over the range that the claim gives it."""
    row = (block_height(effects) - GAP) / len(effects)
    for place, effect in enumerate(effects):
        start = top + GAP / 2 + place * row
        colors_and_marker = STYLE[effect.outcome]
        color, marker = colors_and_marker[THEMES.index(theme)], colors_and_marker[2]
        least, most = np.clip((effect.least, effect.most), *ax.get_xlim())
        edge = 3 if least == most else 0  # a range of one value is seen all the same
        ax.fill_betweenx((start, start + row), least, most, color=theme.behind, alpha=0.35, lw=edge)
        middle = start + row / 2
        ax.plot((effect.low, effect.high), (middle, middle), color=color, linewidth=1.1)
        ax.plot(effect.mean, middle, marker, color=color, markersize=3.4, markeredgewidth=0.8,
                markerfacecolor=theme.ground if effect.outcome == OPEN else color)  # fmt: skip


def scale_axis(ax: Axes, panel: Panel, ends: tuple[float, float]) -> None:
    """Choose the axis: that of accuracies, a linear one, or one for effects of all magnitudes."""
    least, most = ends
    margin = 0.06 * (most - least)
    ax.set_xlim(least - margin, most + margin)
    if not margin:  # one value for all: show it against zero
        ax.set_xlim(min(0.0, 1.05 * least), max(1.05 * most, 1.0))
    sizes = [abs(effect.mean) for effect in panel.effects if effect.mean]
    if panel.label == ACCURACY:
        ax.set_xscale("symlog", linthresh=1, linscale=0.7)
        ax.set_xlim(1.3 * min(least, -1), 1.3 * max(most, 1))
        ticks = [tick for tick in TICKS if 1.3 * least <= tick <= 1.3 * most]
        ax.set_xticks(ticks, [str(tick).replace("-", "−") for tick in ticks])
    elif sizes and max(sizes) > 100 * min(sizes):
        near = max(max(sizes) / 1000, min(sizes))
        ax.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(near)))
        ax.set_xlim(1.5 * min(least, -near / 2), 1.5 * max(most, near / 2))
        ax.xaxis.get_major_locator().set_params(numticks=6)
    else:
        counted = panel.label.startswith(("rank", "layers"))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=counted))
    ax.minorticks_off()
    ax.tick_params(axis="x", labelsize=7)


def alt_text(title: str, drawn: Sequence[Panel]) -> str:
    """Return what the picture shows, in words."""
    effects = [effect for panel in drawn for effect in panel.effects]
    ids = {name for panel in drawn for name in panel.claims}
    outcomes = groupby(sorted(effect.outcome for effect in effects))
    counts = ", ".join(f"{outcome} {len(list(group))}" for outcome, group in outcomes)
    claims = "1 claim" if len(ids) == 1 else f"{len(ids)} claims"
    return f"{title}, {len(effects)} effects of {claims} with their intervals: {counts}."
