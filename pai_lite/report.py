"""Reports: what the rows of a results file say, with intervals over seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from pai_lite.cells import DENSE

BY = ["method", "ablation", "prune_at", "sparsity"]
FEWEST = 3  # seeds for an interval


def interval(values: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Return a bootstrap interval of the mean, or NaN for fewer than three values.

    The percentile method with ten thousand resamples; with the few seeds that are usual here it is
    too narrow rather than too wide.
    """
    if len(values) < FEWEST:
        return np.nan, np.nan
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    found = bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=9999, method="percentile", rng=0
    ).confidence_interval
    return float(found.low), float(found.high)


def describe(values: pd.Series) -> pd.Series:
    """Return number, mean, standard deviation and interval of the values that are there."""
    known = values.dropna().to_numpy(dtype=float)
    low, high = interval(known)
    spread = known.std(ddof=1) if len(known) > 1 else np.nan
    mean = known.mean() if len(known) else np.nan
    return pd.Series({"seeds": len(known), "mean": mean, "std": spread, "low": low, "high": high})


def summarize(frame: pd.DataFrame, column: str = "test_accuracy") -> pd.DataFrame:
    """Return the mean of a column over seeds with its spread, a row for each kind of network.

    Args:
        frame: rows of :func:`pai_lite.read_results` or :func:`pai_lite.sweep`.

    Raises:
        ValueError: there are no rows.
    """
    if frame.empty:
        raise ValueError("There are no rows to report; run the grid first.")
    found = frame.groupby(BY, sort=False)[column].apply(describe).unstack()
    return found.astype({"seeds": int}).reset_index()


def compare_pairs(frame: pd.DataFrame, against: str, column: str = "test_accuracy") -> pd.DataFrame:
    """Return how far each method is above another of the same seed, sparsity and ablation.

    The dense network has no sparsity; it is that of the same seed.

    Args:
        against: the method that the others are compared with.

    Raises:
        ValueError: there are no rows of that method.
    """
    if against not in set(frame["method"]):
        raise ValueError(
            f"There are no rows of {against!r}; the methods are {', '.join(frame.method.unique())}."
        )
    rows = frame[frame.method == against]
    shared = ["seed"] if against == DENSE else ["ablation", "sparsity", "seed"]
    shared += ["prune_at"] if rows["prune_at"].nunique() > 1 else []
    base = rows.set_index(shared)[column]
    others = frame[frame.method != against].copy()
    places = pd.MultiIndex.from_frame(others[shared]) if len(shared) > 1 else others["seed"]
    others[column] -= base.reindex(places).to_numpy()
    return summarize(others.dropna(subset=[column]), column) if len(others) else others
