"""Measuring a figure again: the same rows agree, a wrong one is noticed, chance is allowed for."""

from __future__ import annotations

import shutil
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pai_lite.__main__ import main as run_pai_lite
from pai_lite.results import KEY
from tools.results_quick import compare_means, far_networks, main, report

TINY = """
data = "digits"
model = "small-conv"
methods = ["random", "magnitude"]
sparsities = [0.5]
seeds = [0, 1, 2]

[recipe]
epochs = 4
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny grid and its rows."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "tiny.toml").write_text(TINY)
    grid = ["grid", str(folder / "tiny.toml"), "--out", str(folder / "tiny.csv")]
    assert run_pai_lite([*grid, "--workers", "1"]) == 0
    return folder


@pytest.fixture
def folder(measured: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    for name in ("tiny.toml", "tiny.csv"):
        shutil.copy(measured / name, tmp_path)
    return tmp_path


def again(folder: Path) -> int:
    """The exit status of measuring the tiny grid again."""
    options = ["--grid", str(folder / "tiny.toml"), "--out", str(folder / "new" / "out")]
    return main([*options, "--workers", "1"])


def change(folder: Path, column: str, value: object, **where: object) -> None:
    """Change a column of the committed rows that are so."""
    rows = pd.read_csv(folder / "tiny.csv", dtype={"prune_at": str})
    chosen = np.logical_and.reduce([rows[name] == wanted for name, wanted in where.items()])
    rows[column] = rows[column].astype(object)
    rows.loc[chosen, column] = value
    rows.to_csv(folder / "tiny.csv", index=False)


def test_the_same_rows_agree_and_a_figure_is_drawn(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert again(folder) == 0
    shown = capsys.readouterr().out
    assert "6 of 6 networks have the committed accuracy" in shown
    assert "0 of 2 means lie outside" in shown
    assert shown.endswith("The rows agree.\n")
    assert (folder / "new" / "out" / "tiny.png").read_bytes()[:4] == b"\x89PNG"


def test_it_measures_from_scratch(folder: Path) -> None:
    out = folder / "new" / "out"
    out.mkdir(parents=True)
    (out / "tiny.csv").write_text("these are no results\n")
    assert again(folder) == 0
    assert len(pd.read_csv(out / "tiny.csv")) == 6


def test_one_wrong_row_is_noticed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(folder, "test_accuracy", 0.01, method="random", sparsity=0.5, seed=1)
    assert again(folder) == 1
    shown = capsys.readouterr().out
    assert "1 networks are farther off" in shown
    assert "5 of 6 networks have" in shown
    assert shown.endswith("The rows do not agree.\n")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("recipe", '{"epochs": 9}', "holds rows with recipe"),
        ("options", '{"a": 1}', "holds rows with options"),
        ("seed", 7, "lacks 1 networks of the grid; add them"),
    ],
)
def test_rows_of_another_grid_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], column: str, value: object, message: str
) -> None:
    change(folder, column, value, method="magnitude", seed=2)
    assert again(folder) == 2
    assert message in capsys.readouterr().err


def test_a_grid_without_rows_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tiny.csv").unlink()
    assert again(folder) == 2
    assert "no results at" in capsys.readouterr().err


def test_too_few_seeds_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tiny.toml").write_text(TINY.replace("[0, 1, 2]", "[0, 1]"))
    assert again(folder) == 2
    assert "tiny.toml has 2 seeds; an interval needs 3" in capsys.readouterr().err


def make_pairs(
    generator: np.random.Generator, cells: int = 60, seeds: int = 5, shift: float = 0.0
) -> pd.DataFrame:
    """Accuracies of two independent measurements, three sparsities with spreads of their own."""
    sparsity = np.repeat(np.arange(cells) % 3, seeds)
    spread = np.array([0.5, 2.0, 8.0])[sparsity]
    table = pd.DataFrame({"sparsity": [0.8, 0.9, 0.99]}).loc[sparsity].reset_index(drop=True)
    table = table.assign(method=np.repeat([f"m{i}" for i in range(cells)], seeds))
    table = table.assign(seed=np.tile(range(seeds), cells), ablation="none", prune_at="0")
    draws = 80 + generator.normal(size=(2, cells * seeds)) * spread
    return table[list(KEY)].assign(committed=draws[0], measured=draws[1] + shift * spread)


def test_intervals_of_differences_are_those_of_welch() -> None:
    pairs = make_pairs(np.random.default_rng(0))
    means = compare_means(pairs)
    for cell, its in pairs.groupby([name for name in KEY if name != "seed"]):
        p = stats.ttest_ind(its["committed"], its["measured"], equal_var=False).pvalue
        assert means.loc[cell, "agrees"] == (p > 0.05)


def test_other_seeds_put_a_twentieth_of_the_means_outside() -> None:
    generator = np.random.default_rng(0)
    outside = [1 - compare_means(make_pairs(generator))["agrees"].mean() for _ in range(10)]
    assert 0.03 < np.mean(outside) < 0.06  # Welch's test is a little cautious with five seeds


def test_other_seeds_are_seldom_called_far() -> None:
    generator = np.random.default_rng(0)
    alarms = [len(far_networks(make_pairs(generator))) > 0 for _ in range(100)]
    assert np.mean(alarms) < 0.03


def test_a_difference_that_is_everywhere_fails(capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    assert report(make_pairs(generator)) == 0
    assert report(make_pairs(generator, shift=1.5)) == 1
    chances = [comb(60, k) * 0.05**k * 0.95 ** (60 - k) for k in range(61)]
    most = next(k for k in range(61) if sum(chances[k + 1 :]) <= 0.01)
    assert f"put 3.0 there, and more than {most} fail" in capsys.readouterr().out


def test_constant_accuracies_agree_only_when_they_are_equal() -> None:
    pairs = make_pairs(np.random.default_rng(0), cells=3)
    same = pairs.assign(committed=10.0, measured=10.0)
    assert compare_means(same)["agrees"].all()
    assert far_networks(same).empty
    other = pairs.assign(committed=10.0, measured=10.1)
    assert not compare_means(other)["agrees"].any()
    assert len(far_networks(other)) == len(other)


def test_a_network_that_could_be_trained_only_once_is_far() -> None:
    pairs = make_pairs(np.random.default_rng(0), cells=3)
    pairs.loc[4, "committed"] = np.nan
    pairs.loc[5, ["committed", "measured"]] = np.nan
    assert list(far_networks(pairs).index) == [4]
