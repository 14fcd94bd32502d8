"""Reports: means, intervals and paired differences, against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pai_lite.report import compare_pairs, interval, summarize


def make_frame(rows: list[tuple[str, float, int, float]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["method", "sparsity", "seed", "test_accuracy"])
    return frame.assign(ablation="none", prune_at="0")


ROWS = make_frame(
    [
        *[("random", 0.9, seed, value) for seed, value in enumerate([0.1, 0.2, 0.6])],
        *[("snip", 0.9, seed, value) for seed, value in enumerate([0.4, 0.5, 0.9])],
        ("snip", 0.98, 0, 0.25),
        *[("dense", 0.0, seed, value) for seed, value in enumerate([0.8, 0.9, 1.0])],
    ]
)


def row_of(table: pd.DataFrame, method: str, sparsity: float) -> pd.Series:
    (row,) = table[(table.method == method) & (table.sparsity == sparsity)].iloc
    return row


def test_a_summary_has_number_mean_and_spread() -> None:
    row = row_of(summarize(ROWS), "random", 0.9)
    assert row.seeds == 3
    assert row["mean"] == pytest.approx(0.3)
    assert row["std"] == pytest.approx(np.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert 0.1 <= row.low < row["mean"] < row.high <= 0.6


def test_fewer_than_three_seeds_have_no_interval() -> None:
    row = row_of(summarize(ROWS), "snip", 0.98)
    assert row.seeds == 1
    assert row["mean"] == 0.25
    assert np.isnan([row["std"], row.low, row.high]).all()


def test_missing_accuracies_are_not_counted() -> None:
    frame = pd.concat([ROWS, make_frame([("random", 0.9, 3, np.nan)])])
    assert row_of(summarize(frame), "random", 0.9).seeds == 3


def test_pairs_are_of_one_seed() -> None:
    """Both methods vary by 0.5 over the seeds; their difference does not at all."""
    pairs = compare_pairs(ROWS, "random")
    row = row_of(pairs, "snip", 0.9)
    assert row["mean"] == pytest.approx(0.3)
    assert row["std"] == pytest.approx(0.0, abs=1e-12)
    assert row.low == pytest.approx(0.3)
    assert row.high == pytest.approx(0.3)
    assert not (pairs.sparsity == 0.98).any(), "random has no row to compare with"


def test_the_dense_network_pairs_with_every_sparsity() -> None:
    pairs = compare_pairs(ROWS, "dense")
    assert row_of(pairs, "snip", 0.9)["mean"] == pytest.approx(-0.3)
    assert row_of(pairs, "snip", 0.98)["mean"] == pytest.approx(0.25 - 0.8)


def test_an_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    samples = generator.normal(size=(200, 30))
    covered = [low <= 0 <= high for low, high in map(interval, samples)]
    assert 0.87 < np.mean(covered) < 0.99


def test_an_interval_is_the_same_every_time() -> None:
    values = np.array([0.1, 0.4, 0.35, 0.8])
    assert interval(values) == interval(values)


def test_no_rows_and_no_such_method_are_said() -> None:
    with pytest.raises(ValueError, match="no rows to report"):
        summarize(ROWS[:0])
    with pytest.raises(ValueError, match="no rows of 'sinp'; the methods are random, snip, dense"):
        compare_pairs(ROWS, "sinp")
