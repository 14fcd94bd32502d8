"""The page of the leaderboard: one file that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

from pai_lite.course.feedback import render
from pai_lite.course.trials import Settings
from pai_lite.files import whole_file

FEWEST = 3  # seeds for an interval
WHO = ["kind", "submission"]
#: Colours and markers of sparsities; all are legible on a light ground and on a dark one.
MARKS = (("#D55E00", "D"), ("#0072B2", "o"), ("#009E73", "^"), ("#CC79A7", "s"))
INK = "#010203"  # becomes the colour of the page's text
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "leaderboard",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a name may hold dollar signs
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and half the width of its interval, in percent or in points.

    ``half`` is NaN for fewer than three seeds, and ``mean`` where a seed has no value.
    """

    mean: float
    half: float

    def text(self, sign: str = "") -> str:
        """Return it with one decimal; with the sign "+" the mean always has a sign."""
        if math.isnan(self.mean):
            return ""
        shown = f"{self.mean:{sign}.1f}".replace("-", "−")
        return shown if math.isnan(self.half) else f"{shown} ± {self.half:.1f}"


@dataclass(frozen=True)
class Standing:
    """What the page says of one criterion.

    Attributes:
        rank: None where it has no accuracy.
        accuracies: by sparsity, averaged over data sets.
        by_data: by data set and sparsity.
        shuffled, reinitialized: changes of accuracy at the highest sparsity, in pairs of a seed.
    """

    rank: int | None
    name: str
    baseline: bool
    accuracies: dict[float, Estimate]
    by_data: dict[tuple[str, float], Estimate]
    shuffled: Estimate
    reinitialized: Estimate
    seconds: float
    note: str

    @property
    def label(self) -> str:
        """The name, marked where it is a baseline's."""
        return f"{self.name} (baseline)" if self.baseline else self.name


def write_page(frame: pd.DataFrame, settings: Settings, path: Path) -> None:
    """Write the page of the rows that :func:`pai_lite.course.leaderboard.run_leaderboard` made."""
    rows = standings(frame)
    ranked = [row for row in rows if row.rank is not None]
    page = render(
        "leaderboard.html",
        rows=rows,
        settings=settings,
        data=list(dict.fromkeys(frame["data"])),
        sparsities=sorted(settings.sparsities, reverse=True),
        fewest=FEWEST,
        percent=percent,
        figure=to_svg(draw(ranked)) if ranked else "",
        alt=describe_figure(ranked) if ranked else "",
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf8")


def standings(frame: pd.DataFrame) -> list[Standing]:
    """Return what the page says of each criterion, the best first and those that failed last.

    The rank is that of the mean test accuracy at the highest sparsity: over data sets first, so
    that each counts the same, then over seeds. Equal means share a rank.
    """
    top = frame[(frame["sparsity"] == frame["sparsity"].max()) & (frame["control"] == "none")]
    means = 100 * top.groupby(WHO, sort=False)["test_accuracy"].apply(_mean_of_all)
    # Rounded, because the order in which accuracies are summed must not decide.
    ranks = means.round(9).rank(method="min", ascending=False)
    found = [
        _standing(rows, None if math.isnan(ranks[who]) else int(ranks[who]))
        for who, rows in frame.groupby(WHO, sort=False)
    ]
    return sorted(found, key=lambda one: math.inf if one.rank is None else one.rank)


def _mean_of_all(values: pd.Series) -> float:
    """Return the mean, or NaN where a value is missing."""
    return float(values.mean(skipna=False))


def _standing(rows: pd.DataFrame, rank: int | None) -> Standing:
    """Return what the page says of the criterion of these rows."""
    own = rows[rows["control"] == "none"]
    high = rows[rows["sparsity"] == rows["sparsity"].max()]
    controls = high.groupby(["control", "seed"])["test_accuracy"].apply(_mean_of_all).unstack()
    changes = 100 * (controls - controls.loc["none"])
    return Standing(
        rank,
        name=rows["submission"].iloc[0],
        baseline=rows["kind"].iloc[0] == "baseline",
        accuracies={s: over_seeds(group) for s, group in own.groupby("sparsity")},
        by_data={key: over_seeds(group) for key, group in own.groupby(["data", "sparsity"])},
        shuffled=estimate(changes.loc["shuffle"].to_numpy()),
        reinitialized=estimate(changes.loc["reinitialize"].to_numpy()),
        seconds=own["prune_seconds"].mean(),
        note=" ".join(dict.fromkeys(own["note"][own["note"] != ""])),
    )


def over_seeds(rows: pd.DataFrame) -> Estimate:
    """Return the accuracy of some rows in percent, averaged over data sets and then over seeds."""
    values = rows.groupby("seed")["test_accuracy"].apply(_mean_of_all)
    return estimate(100 * values.to_numpy())


def estimate(values: np.ndarray) -> Estimate:
    """Return the mean of values (n,) and half the width of Student's 95% interval.

    Source: equation (eq-shootout-interval) of chapter 10 of the book.
    """
    n, half = len(values), math.nan
    if n >= FEWEST:
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Estimate(float(np.mean(values)), half)


def draw(rows: Sequence[Standing]) -> Figure:
    """Draw accuracy and interval at each sparsity, a line for each criterion, the best on top."""
    with plt.rc_context(STYLE):
        size = (4.4, 1.2 + 0.3 * len(rows))
        figure, ax = plt.subplots(figsize=size, layout="constrained")
        for place, sparsity in enumerate(sorted(rows[0].accuracies)):
            _draw_sparsity(ax, rows, sparsity, *MARKS[place % len(MARKS)])
        ax.set_yticks(range(len(rows)), [shorten(row.label) for row in rows])
        ax.invert_yaxis()
        ax.set_xlim(0, 100)  # an interval may reach further, an accuracy cannot
        ax.set_xlabel("test accuracy (%)")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        figure.legend(title="weights removed", loc="outside upper center", ncols=4, frameon=False)
        plt.close(figure)
    return figure


def _draw_sparsity(
    ax: Axes, rows: Sequence[Standing], sparsity: float, color: str, marker: str
) -> None:
    found = [row.accuracies[sparsity] for row in rows]
    ax.errorbar(
        [one.mean for one in found], range(len(rows)), xerr=[one.half for one in found],
        color=color, marker=marker, linestyle="none", capsize=3, label=percent(sparsity),
    )  # fmt: skip


def shorten(name: str, length: int = 28) -> str:
    """Return the name, cut where it is long."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def to_svg(figure: Figure) -> str:
    """Return a figure as an element of a page, in the colours of its text."""
    file = StringIO()
    with plt.rc_context(STYLE):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    svg = file.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def describe_figure(rows: Sequence[Standing]) -> str:
    """Return the text that stands for the figure."""
    highest = max(rows[0].accuracies)
    ends = [f"{row.label} at {row.accuracies[highest].mean:.1f}%" for row in (rows[0], rows[-1])]
    return (
        f"Test accuracy of {len(rows)} criteria, one line each, with intervals; the numbers are "
        f"those of the table. With {percent(highest)} removed they range from {ends[0]} to "
        f"{ends[1]}."
    )


def percent(fraction: float) -> str:
    """Return a fraction in percent without needless digits."""
    return f"{100 * fraction:.6g}%"
