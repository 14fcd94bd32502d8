"""Measure one figure of the book from scratch, and compare it with the committed rows.

python -m tools.results_quick [--grid book/results/digits.toml] [--out _build/results-quick]

The seeds are those of the committed rows. On the same kind of processor every network comes out the
same to the last digit; another one rounds differently, and training makes more of the difference.
Two things fail the comparison:

* More means outside the 95% interval of a difference (Welch's, from the seeds of both) than chance
  would put there, were the seeds different ones. With the same seeds there should be hardly any.
* A network farther from the committed one of its seed than networks of different seeds would be.
  One wrong row moves a mean by little and widens its interval, so that the means alone miss it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import binom, t, ttest_ind

from pai_lite.grid import load, read_grid, run_grid
from pai_lite.results import KEY, cells_in, check_same, read_results
from tools.atlas_figures import draw_sheet
from tools.atlas_rows import make_section
from tools.intervals import FEWEST
from tools.site import ROOT

GRID = ROOT / "book" / "results" / "digits.toml"
OUT = ROOT / "_build" / "results-quick"
OUTSIDE = 0.05  # share of means outside their intervals, were the seeds independent
RARE = 0.01  # probability of a false alarm, of either kind
CELL = [name for name in KEY if name != "seed"]
POINTS = ["committed", "measured"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 where the rows agree, 1 where they do not, 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--grid", type=Path, default=GRID, help="TOML file beside its CSV file")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the rows and the figure")
    parser.add_argument("--workers", type=int, help="processes (default: one a core)")
    given = parser.parse_args(arguments)
    try:
        committed = read_committed(given.grid)
        fresh, seconds = measure(given.grid, given.out, given.workers)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    name = given.grid.stem
    figure = draw_sheet(make_section(name, {name: fresh}), f"{name}, measured again")
    figure.savefig(given.out / f"{name}.png", dpi=150)
    plt.close(figure)
    print(f"{len(fresh)} networks in {seconds:.0f} s: {given.out / name}.csv, {name}.png")
    return report(pair_up(committed, fresh))


def read_committed(path: Path) -> pd.DataFrame:
    """Return the rows beside a grid.

    Raises:
        ValueError: they are not all there or are of other settings, or a mean would be of fewer
            than three seeds.
    """
    grid, rows = read_grid(path), read_results(path.with_suffix(".csv"))
    expected = grid.expected(load(grid.data, "cpu").name)
    expected[0].pop("version")  # whether another version gives the same is the question
    check_same(path.with_suffix(".csv"), expected)
    if lacking := set(grid.cells) - cells_in(rows):
        raise ValueError(f"{path.stem}.csv lacks {len(lacking)} networks of the grid; add them.")
    if (seeds := len({cell.seed for cell in grid.cells})) < FEWEST:
        raise ValueError(f"{path.name} has {seeds} seeds; an interval needs {FEWEST}.")
    return rows


def measure(grid: Path, out: Path, workers: int | None) -> tuple[pd.DataFrame, float]:
    """Train every network of a grid anew; return the rows and the seconds it took."""
    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{grid.stem}.csv"
    path.unlink(missing_ok=True)
    run_grid(read_grid(grid), path, workers=workers)
    return read_results(path), time.perf_counter() - begin


def pair_up(committed: pd.DataFrame, fresh: pd.DataFrame) -> pd.DataFrame:
    """Return the accuracies of each network, committed and measured, in points."""
    both = fresh.merge(committed, on=list(KEY), suffixes=("", "_committed"), validate="1:1")
    columns = {"test_accuracy_committed": "committed", "test_accuracy": "measured"}
    pairs = both[[*KEY, *columns]].rename(columns=columns)
    return pairs.assign(**{name: 100 * pairs[name] for name in POINTS})


def compare_means(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return both means of every cell, their difference, and what Welch's interval allows."""
    known = pairs.dropna(subset=POINTS)
    rows = {cell: compare(its["committed"], its["measured"]) for cell, its in known.groupby(CELL)}
    columns = [*POINTS, "difference", "allowed"]
    means = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    means.index = pd.MultiIndex.from_tuples(means.index, names=CELL)
    return means.assign(agrees=means["difference"].abs() <= means["allowed"] + 1e-9)


def compare(old: pd.Series, new: pd.Series) -> tuple[float, float, float, float]:
    """Return two means, their difference and half of the 95% interval of it (Welch)."""
    half = 0.0
    if np.ptp(old) > 0 or np.ptp(new) > 0:
        interval = ttest_ind(new, old, equal_var=False).confidence_interval(1 - OUTSIDE)
        half = (interval.high - interval.low) / 2
    return old.mean(), new.mean(), new.mean() - old.mean(), half


def far_networks(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the networks that are farther from the committed ones than other seeds would be.

    The spread over seeds is that of the networks measured now, pooled over the methods of a
    sparsity. The quantile is such that in one comparison of a hundred some network would lie
    outside by chance, were its seed another one. A network that could be trained once and not the
    other time is far.
    """
    cells = pairs.groupby(CELL)["measured"].agg(["var", "count"]).groupby("sparsity")
    freedom = cells["count"].sum() - cells.size()
    bound = (2 * cells["var"].mean()) ** 0.5 * t.isf(RARE / (2 * len(pairs)), freedom)
    difference = pairs["measured"] - pairs["committed"]
    allowed = pairs["sparsity"].map(bound)
    once = pairs[POINTS].isna().sum(axis=1) == 1
    table = pairs.assign(difference=difference, allowed=allowed)
    return table[(difference.abs() > allowed + 1e-9) | once]


def report(pairs: pd.DataFrame) -> int:
    """Print what agrees and what does not, and return the exit status."""
    means, far = compare_means(pairs), far_networks(pairs)
    outside = means[~means["agrees"]].drop(columns="agrees")
    allowed = int(binom.isf(RARE, len(means), OUTSIDE))
    difference = (pairs["measured"] - pairs["committed"]).abs()
    lines = (
        f"{int((difference == 0).sum())} of {len(pairs)} networks have the committed accuracy;",
        f"the largest difference is {difference.max():.1f} points, on average "
        f"{difference.mean():.2f}.",
        f"{len(outside)} of {len(means)} means lie outside the interval of a difference;",
        f"other seeds would put {OUTSIDE * len(means):.1f} there, and more than {allowed} fail.",
        f"{len(far)} networks are farther off than other seeds would be; one fails.",
    )
    print("\n".join(lines))
    for table in (outside.reset_index(), far):
        if len(table):
            print("\n" + table.to_string(index=False, float_format="{:.4g}".format))
    agrees = len(outside) <= allowed and far.empty
    print("The rows agree." if agrees else "The rows do not agree.")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
