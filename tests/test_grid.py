"""Grids: what is shared, what is written, and what survives."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from conftest import full_disk

import pai_lite as pai
from pai_lite.__main__ import main
from pai_lite.cells import Cell, Experiment, make_cells, plan
from pai_lite.grid import read_grid, run_grid
from pai_lite.results import COLUMNS, add_row, cells_in, read_results, read_text

pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")
# The package has a function of that name.
sweep = importlib.import_module("pai_lite.sweep")

GRID = """
data = "digits"
model = "lenet-300-100"
methods = ["dense", "random", "snip"]
sparsities = [0.5, 0.9]
seeds = [0, 1]
per_class = 2

[recipe]
epochs = 1
lr = 0.05
"""


def write_grid(folder: Path, text: str = GRID) -> Path:
    path = folder / "grid.toml"
    path.write_text(text)
    return path


def fill(folder: Path, text: str = GRID, **options) -> pd.DataFrame:
    options = {"workers": 1, "progress": False, **options}
    return run_grid(read_grid(write_grid(folder, text)), folder / "results.csv", **options)


def measured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in one order, without times."""
    columns = [c for c in frame if not c.endswith("_seconds")]
    return frame[columns].sort_values(columns).reset_index(drop=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    fill(folder)
    return folder / "results.csv"


# Cells and tasks


def test_a_grid_has_every_network_once_and_dense_once_a_seed() -> None:
    cells = make_cells(["dense", "snip"], [0.5, 0.9], [0, 1], ablations=["none", "shuffle"])
    assert len(cells) == len(set(cells)) == 2 + 2 * 2 * 2
    assert Cell("dense", 0.0, 1, prune_at="end") in cells
    assert Cell("snip", 0.9, 1, "shuffle") in cells


def test_methods_after_training_have_their_own_step() -> None:
    cells = make_cells(["magnitude-after", "snip"], [0.5], [0], prune_at=[0, 7])
    assert [c.prune_at for c in cells] == ["end", "0", "7"]


def test_tasks_hold_together_what_shares_work() -> None:
    methods = ["dense", "magnitude-after", "lottery-ticket", "snip", "grasp"]
    tasks = plan(make_cells(methods, [0.5, 0.9], [0, 1], prune_at=[0, 7]))
    names = [{cell.method for cell in task} for task in tasks if task[0].seed == 0]
    after_training = {"dense", "magnitude-after", "lottery-ticket"}
    assert sorted(names, key=sorted) == [after_training, {"grasp"}, {"snip", "grasp"}, {"snip"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["snpi"]}, "Did you mean 'snip'"),
        ({"sparsities": [95]}, "sparsity is 95"),
        ({"ablations": ["shuffles"]}, "Did you mean 'shuffle'"),
        ({"prune_at": [-1]}, "prune_at is"),
    ],
)
def test_cells_that_cannot_be_are_refused(change: dict, message: str) -> None:
    settings = {"methods": ["snip"], "sparsities": [0.5], "seeds": [0], **change}
    with pytest.raises(ValueError, match=message):
        make_cells(**settings)


# What is computed, and how often


def test_no_score_and_no_dense_training_is_computed_twice(monkeypatch, digits) -> None:
    calls: Counter[str] = Counter()
    for name, method in pai.METHODS.items():

        def counted(*args, name=name, criterion=method.criterion, **options):
            calls[name] += 1
            return criterion(*args, **options)

        monkeypatch.setitem(pai.METHODS, name, replace(method, criterion=counted))

    def fit(*args, mask=None, **options):
        calls["trained dense" if mask is None else "trained pruned"] += 1
        return pai.fit(*args, mask=mask, **options)

    monkeypatch.setattr(sweep, "fit", fit)
    methods = ["dense", "snip", "magnitude-after", "lottery-ticket"]
    cells = make_cells(methods, [0.5, 0.9], [0], ablations=["none", "shuffle", "invert"])
    experiment = Experiment("lenet-300-100", pai.Recipe(epochs=1), per_class=2)
    rows = [row for task in plan(cells) for row in sweep.run_task(task, experiment, digits)]
    assert len(rows) == len(cells) == 1 + 3 * 2 * 3
    assert calls == {
        "snip": 1,
        "magnitude-after": 1,
        "lottery-ticket": 1,
        "trained dense": 1,
        "trained pruned": 18,
    }


def rows_of(cells: list[Cell], digits: pai.Data, recipe: pai.Recipe, **options) -> list[dict]:
    experiment = Experiment("lenet-300-100", recipe, per_class=2, options=options)
    return [row for task in plan(cells) for row in sweep.run_task(task, experiment, digits)]


def test_every_row_is_what_the_package_gives_by_hand(digits) -> None:
    recipe = pai.Recipe(epochs=1, lr=0.05)
    cells = make_cells(["snip"], [0.9], [1], ablations=["none", "shuffle", "reinitialize"])
    cells += make_cells(["snip"], [0.9], [1], prune_at=[3])
    cells += make_cells(["lottery-ticket", "prospr"], [0.9], [1])
    rows = rows_of(cells, digits, recipe, prospr={"steps": 4, "lr": 0.2})
    model = pai.build_model("lenet-300-100", digits, seed=1)
    batch = digits.batch(per_class=2, seed=1)
    mask = pai.prune(model, "snip", batch, sparsity=0.9)
    middle = pai.fit(model, digits, recipe, seed=1, stop_at=3).model
    ticket = pai.prune_later(model, "lottery-ticket", digits, recipe, sparsity=0.9, training_seed=1)
    # More steps than the preset has, so that its four batches would be too few.
    batches = [digits.batch(per_class=2, seed=1 + 1000 * i) for i in range(5)]
    prospr = pai.prune(model, "prospr", batches, sparsity=0.9, steps=4, lr=0.2)
    starts = [
        (model, mask),
        (model, pai.shuffle(mask, seed=1)),
        (pai.reinitialize(model, seed=10_001), mask),
        (middle, pai.prune(middle, "snip", batch, sparsity=0.9)),
        (model, ticket.mask),
        (model, prospr),
    ]
    runs = [pai.fit(start, digits, recipe, mask=m, seed=1) for start, m in starts]
    assert [row["test_accuracy"] for row in rows] == [run.test_accuracy for run in runs]
    assert len({row["test_accuracy"] for row in rows}) > 3


def test_a_network_that_diverges_is_noted_and_the_others_go_on(digits) -> None:
    cells = make_cells(["random", "snip"], [0.5], [0])
    wild = pai.Recipe(epochs=2, lr=1e6)
    assert [row["note"][:8] for row in rows_of(cells, digits, wild)] == ["diverged"] * 2


def test_a_network_that_cannot_be_pruned_is_noted_and_the_others_go_on(digits) -> None:
    cells = make_cells(["prospr", "snip"], [0.5], [0])
    failed, done = rows_of(cells, digits, pai.Recipe(epochs=1), prospr={"steps": -1})
    assert failed["note"].startswith("failed: steps is -1")
    assert pd.isna(failed["test_accuracy"])
    assert done["note"] == ""
    assert done["test_accuracy"] > 0


# The file


def test_the_rows_say_everything(finished: Path) -> None:
    frame = read_results(finished)
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 2 + 2 * 2 * 2
    assert (frame.test_accuracy > 0.1).all()
    assert (frame.reached - frame.sparsity).abs().max() < 1e-4
    assert set(frame.data) == {"digits"}
    assert (frame.note == "").all()
    assert frame.best_test_accuracy.notna().all()


def test_numbers_are_read_as_they_were_written(finished: Path, tmp_path: Path) -> None:
    row = {**read_text(finished).iloc[0], "method": "odd", "sparsity": 0.1 + 0.2}
    copy = tmp_path / "results.csv"
    copy.write_bytes(finished.read_bytes())
    assert add_row(copy, row)
    assert not add_row(copy, row), "a cell has one row"
    assert read_results(copy).sparsity.iloc[-1] == 0.1 + 0.2
    assert read_text(copy)[:-1].equals(read_text(finished))


def test_networks_pruned_first_and_trained_together_have_the_same_rows(digits, monkeypatch) -> None:
    """So a GPU trains the cells of a task; here fit_each does it in two processes."""
    recipe, wrong = pai.Recipe(epochs=1, lr=0.05), {"prospr": {"steps": -1}}
    cells = make_cells(["dense", "prospr", "random", "magnitude-after"], [0.5, 0.9], [1])
    in_turn = pd.DataFrame(rows_of(cells, digits, recipe, **wrong))
    monkeypatch.setattr(sweep, "train_in_turn", sweep.train_together)
    together = pd.DataFrame(rows_of(cells, digits, recipe, **wrong))
    pd.testing.assert_frame_equal(measured(together), measured(in_turn))
    assert together.note.str.startswith("failed: ").sum() == 2


def test_the_column_hardware_shows_mixed_precision(tmp_path: Path) -> None:
    rows = fill(tmp_path, limit=1, precision="bfloat16")
    assert rows.hardware.tolist() == ["CPU, bfloat16"]
    rows = fill(tmp_path, limit=1, precision="auto")
    assert rows.hardware.tolist() == ["CPU, bfloat16", "CPU"]
    with pytest.raises(ValueError, match="float23"):
        fill(tmp_path, precision="float23")


def test_what_has_a_row_is_not_trained_again(finished: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "results.csv"
    lines = finished.read_text().splitlines(keepends=True)
    out.write_text("".join([*lines[:3], *lines[5:]]))
    trained = []
    real = sweep.prune_cell
    monkeypatch.setattr(sweep, "prune_cell", lambda c, *a: trained.append(c) or real(c, *a))
    assert measured(fill(tmp_path)).equals(measured(read_text(finished)))
    assert len(trained) == 2
    trained.clear()
    fill(tmp_path)
    assert trained == []


def test_limit_trains_so_many(tmp_path: Path) -> None:
    assert len(fill(tmp_path, limit=1)) == 1
    assert len(fill(tmp_path, limit=3)) == 4


def test_several_workers_give_the_same_rows(finished: Path, tmp_path: Path) -> None:
    assert measured(fill(tmp_path, workers=2)).equals(measured(read_text(finished)))
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_an_engine_may_run_the_tasks_elsewhere(finished: Path, tmp_path: Path) -> None:
    def reversed_engine(function, tasks):
        for task in reversed(tasks):
            yield task, function(task)

    frame = fill(tmp_path, engine=reversed_engine)
    assert measured(frame).equals(measured(read_text(finished)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 1", "epochs = 2", "recipe"),
        ('"lenet-300-100"', '"small-conv"', "model"),
        ("per_class = 2", "per_class = 3", "per_class"),
        ("[recipe]", '[options.snip]\nbatchnorm = "eval"\n[recipe]', "options"),
    ],
)
def test_rows_of_another_grid_are_refused_before_training(
    finished: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    out = tmp_path / "results.csv"
    out.write_bytes(finished.read_bytes())
    with pytest.raises(ValueError, match=f"holds rows with {message}"):
        fill(tmp_path, GRID.replace(old, new))
    assert out.read_bytes() == finished.read_bytes()


def test_rows_of_another_version_are_refused(finished: Path, tmp_path: Path) -> None:
    text = finished.read_text()
    version = read_text(finished).version[0]
    (tmp_path / "results.csv").write_text(text.replace(f",{version},", ",0.0.7,"))
    with pytest.raises(ValueError, match=r"holds rows with version 0\.0\.7"):
        fill(tmp_path)


def test_more_methods_and_seeds_go_into_the_same_file(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    out.write_bytes(finished.read_bytes())
    more = GRID.replace('"snip"]', '"snip", "magnitude"]').replace("[0, 1]", "[0, 1, 2]")
    assert len(fill(tmp_path, more)) == 3 + 3 * 3 * 2


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe\x00", b'"unclosed'])
def test_a_file_that_holds_no_results_is_left_alone(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "results.csv"
    out.write_bytes(content)
    with pytest.raises(ValueError, match="not a results file"):
        fill(tmp_path)
    assert out.read_bytes() == content


def test_a_full_disk_keeps_the_old_rows(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    out.write_bytes(finished.read_bytes())
    more = GRID.replace("[0, 1]", "[0, 1, 2]")
    with full_disk(finished.stat().st_size + 50), pytest.raises(OSError, match="File too large"):
        fill(tmp_path, more)
    assert out.read_bytes() == finished.read_bytes()


def test_a_folder_that_is_missing_is_said_before_training(tmp_path: Path) -> None:
    grid = read_grid(write_grid(tmp_path))
    with pytest.raises(ValueError, match=r"no folder .*none"):
        run_grid(grid, tmp_path / "none" / "results.csv", workers=1, progress=False)


# The file of settings


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("methods", "method", "Did you mean 'methods'"),
        ("seeds = [0, 1]", "", "lacks seeds"),
        ("lr = 0.05", "rate = 0.05", "setting of a recipe"),
        ("lr = 0.05", "lr = -1", "lr is -1"),
        ("lr = 0.05", "lr = ", "is not TOML"),
        ('"lenet-300-100"', '"lenet"', "lenet"),
    ],
)
def test_a_wrong_file_of_settings_says_what_is_wrong(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_grid(write_grid(tmp_path, GRID.replace(old, new)))


def test_a_recipe_goes_by_its_name_and_may_be_changed(tmp_path: Path) -> None:
    settings, table = GRID.split("[recipe]")
    named = read_grid(write_grid(tmp_path, f'{settings}\nrecipe = "mark-lenet-short"'))
    assert named.experiment.recipe == pai.RECIPES["mark-lenet-short"]
    changed = read_grid(write_grid(tmp_path, f'{settings}[recipe]\nbase = "mark-lenet"{table}'))
    assert changed.experiment.recipe == replace(pai.RECIPES["mark-lenet"], epochs=1, lr=0.05)


# The command line


def test_the_commands_fill_and_report(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    out, figure = tmp_path / "results.csv", tmp_path / "figure.png"
    text = GRID.replace("[0, 1]", "[0, 1, 2]")
    assert main(["grid", str(write_grid(tmp_path, text)), "--out", str(out), "--workers", "1"]) == 0
    assert "has 15 of the grid's 15 networks" in capsys.readouterr().out
    look = dict(plt.rcParams)
    assert main(["report", str(out), "--against", "random", "--figure", str(figure)]) == 0
    assert dict(plt.rcParams) == look
    printed = capsys.readouterr().out
    assert "above random, in pairs of one seed" in printed
    assert printed.count("snip") == 4
    assert figure.stat().st_size > 5000
    assert main(["report", str(tmp_path / "none.csv")]) == 2
    assert "no results at" in capsys.readouterr().err


# Killed at any moment, and two at a time


LARGE = GRID.replace("[0, 1]", "[0, 1, 2, 3, 4, 5]")


@pytest.fixture(scope="module")
def finished_large(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return measured(fill(tmp_path_factory.mktemp("large"), LARGE))


def fill_in_a_fork(folder: Path) -> multiprocessing.process.BaseProcess:
    """Start to fill the grid in a process that has everything imported already."""
    process = multiprocessing.get_context("fork").Process(target=fill, args=(folder, LARGE))
    process.start()
    return process


def test_killed_at_twenty_moments_it_ends_with_the_same_rows(
    finished_large: pd.DataFrame, tmp_path: Path
) -> None:
    out, generator, known = tmp_path / "results.csv", random.Random(0), set()
    killed = 0
    for _ in range(20):
        process = fill_in_a_fork(tmp_path)
        time.sleep(generator.uniform(0.0, 0.15))
        killed += process.is_alive()
        process.kill()
        process.join()
        rows = cells_in(read_text(out)) if out.exists() else set()
        assert rows >= known, "a finished row was lost"
        known = rows
    assert killed >= 10
    assert measured(fill(tmp_path, LARGE)).equals(finished_large)


def test_two_processes_write_no_row_twice(finished_large: pd.DataFrame, tmp_path: Path) -> None:
    processes = [fill_in_a_fork(tmp_path) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert measured(read_text(tmp_path / "results.csv")).equals(finished_large)


def wait_for_end_of(group: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def test_the_command_survives_a_kill_of_all_its_processes(finished: Path, tmp_path: Path) -> None:
    write_grid(tmp_path)
    command = [sys.executable, "-m", "pai_lite", "grid", "grid.toml", "--out", "results.csv"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": os.getcwd()}
    options = {"cwd": tmp_path, "env": quiet, "stdout": subprocess.DEVNULL}
    process = subprocess.Popen([*command, "--workers", "2"], start_new_session=True, **options)
    deadline = time.monotonic() + 120
    while not (tmp_path / "results.csv").exists() or len(read_text(tmp_path / "results.csv")) < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_end_of(process.pid)  # a worker holds its locks until it is gone
    assert measured(fill(tmp_path)).equals(measured(read_text(finished)))
    assert {path.name for path in tmp_path.iterdir()} == {
        "grid.toml", "results.csv", "results.csv.lock"
    }  # fmt: skip
