"""Methods x sparsities x seeds: one row for each network that is pruned and trained.

Cells that need the same dense training, or the same scores, are planned into one task, so that
either is done once.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pai_lite.ablations import reinitialize, shuffle
from pai_lite.cells import DENSE, END, Cell, Experiment, make_cells, plan
from pai_lite.data import Data
from pai_lite.distributed import share
from pai_lite.gradients import Batch
from pai_lite.later import Ticket, prune_later
from pai_lite.masks import Mask
from pai_lite.methods import METHODS, Criterion
from pai_lite.models import build_model, find_builder
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe
from pai_lite.scores import Scores
from pai_lite.training import Run, fit


def run_task(cells: Sequence[Cell], experiment: Experiment, data: Data) -> Iterator[dict]:
    """Prune and train the networks of one task, and yield a row for each when it is done."""
    if not cells:
        return
    seed, step = cells[0].seed, cells[0].prune_at
    initial = build_model(experiment.model, data, seed=seed)
    trained = None
    if step != "0":
        stop = None if step == END else int(step)
        trained = fit(initial, data, experiment.recipe, seed=seed, stop_at=stop, progress=False)
    for method, group in groupby(cells, key=lambda cell: cell.method):
        if method == DENSE:
            mask = Mask.dense(initial)
            yield from (make_row(cell, experiment, data, mask, trained, 0.0) for cell in group)
            continue
        start = initial if trained is None else trained.model
        criterion = Remembered(METHODS[method].criterion)
        for cell in group:
            yield run_cell(cell, experiment, data, initial, start, criterion)


class Remembered:
    """A criterion that scores the unpruned network once, for all sparsities."""

    def __init__(self, criterion: Criterion) -> None:
        self.criterion, self.scores, self.seconds = criterion, None, 0.0

    def __call__(self, model: nn.Module, batches: Any, **options: Any) -> Scores:
        """Return the scores; those without a mask are remembered."""
        if "mask" in options:
            return self.criterion(model, batches, **options)
        if self.scores is None:
            begin = time.perf_counter()
            self.scores = self.criterion(model, batches, **options)
            self.seconds = time.perf_counter() - begin
        return self.scores


def run_cell(
    cell: Cell,
    experiment: Experiment,
    data: Data,
    initial: nn.Module,
    trained: nn.Module,
    criterion: Remembered,
) -> dict[str, Any]:
    """Prune and train one network, and return its row; what went wrong is in its note."""
    begin, known = time.perf_counter(), criterion.scores is not None
    try:
        ticket = make_ticket(cell, experiment, data, initial, trained, criterion)
    except ValueError as error:
        return make_row(cell, experiment, data, None, None, math.nan, f"failed: {error}")
    # The time of scores that were remembered counts for every network that uses them.
    seconds = time.perf_counter() - begin + (criterion.seconds if known else 0.0)
    run = fit(
        ticket.model, data, experiment.recipe, mask=ticket.mask, seed=cell.seed, progress=False
    )
    return make_row(cell, experiment, data, ticket.mask, run, seconds)


def make_ticket(
    cell: Cell,
    experiment: Experiment,
    data: Data,
    initial: nn.Module,
    trained: nn.Module,
    criterion: Remembered,
) -> Ticket:
    """Return the pruned network of a cell before it is trained, with its ablation."""
    options = {"seed": cell.seed} if cell.method.startswith("random") else {}
    options |= experiment.options.get(cell.method, {})
    ticket = prune_later(
        initial,
        replace(METHODS[cell.method], criterion=criterion),
        data,
        experiment.recipe,
        sparsity=cell.sparsity,
        batches=scored_batches(data, cell.method, experiment.per_class, cell.seed),
        trained=trained,
        training_seed=cell.seed,
        invert=cell.ablation == "invert",
        progress=False,
        **options,
    )
    if cell.ablation == "shuffle":
        return replace(ticket, mask=shuffle(ticket.mask, seed=cell.seed))
    if cell.ablation == "reinitialize":
        # Far from the seeds of other cells, so that no other network starts from these weights.
        return replace(ticket, model=reinitialize(ticket.model, seed=cell.seed + 10_000))
    return ticket


def scored_batches(data: Data, method: str, per_class: int, seed: int) -> list[Batch] | None:
    """Return as many class-balanced batches as a method needs, the first of them the seed's."""
    count = METHODS[method].batches
    seeds = [seed + 1000 * i for i in range(count)]
    batches = [data.batch(per_class=per_class, seed=s) for s in seeds]
    return [(share(inputs), share(targets)) for inputs, targets in batches] or None


def make_row(
    cell: Cell,
    experiment: Experiment,
    data: Data,
    mask: Mask | None,
    run: Run | None,
    prune_seconds: float,
    note: str = "",
) -> dict[str, Any]:
    """Return what was asked for and what came of it."""
    if run is not None and not math.isfinite(run.history["train_loss"].iloc[-1]):
        note = "diverged: the training loss is not finite"
    return {
        **asdict(cell),
        "reached": math.nan if mask is None else mask.sparsity,
        "options": json.dumps(dict(experiment.options.get(cell.method, {})), sort_keys=True),
        "model": experiment.model,
        "data": data.name,
        "recipe": json.dumps(asdict(experiment.recipe), sort_keys=True),
        "per_class": experiment.per_class,
        "epochs": experiment.recipe.epochs,
        "test_accuracy": math.nan if run is None else run.test_accuracy,
        "best_test_accuracy": best_accuracy(run),
        "prune_seconds": prune_seconds,
        "train_seconds": math.nan if run is None else run.seconds,
        "note": note,
        "hardware": hardware(data.device),
        "version": version("pai-lite"),
        "commit": commit(),
    }


def best_accuracy(run: Run | None) -> float:
    """Return the test accuracy at the best validation, or NaN where there is none."""
    if run is None or run.history["validation_accuracy"].isna().all():
        return math.nan
    return run.best_test_accuracy


def hardware(device: torch.device) -> str:
    """Return the name of the device that the runs were measured on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


@cache
def commit() -> str:
    """Return the commit of the checkout that the package runs from, or nothing."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def sweep(
    data: Data,
    model: str,
    methods: Sequence[str],
    sparsities: Sequence[float],
    *,
    seeds: Sequence[int],
    recipe: Recipe,
    per_class: int = 10,
    progress: bool = True,
) -> pd.DataFrame:
    """Prune and train one network per method, sparsity and seed, and return one row for each.

    A seed fixes the initial weights, the batch that is scored, the noise of "random" and the
    order of training, so that rows of one seed can be compared in pairs.

    Args:
        model: a name that :func:`pai_lite.build_model` knows.
        methods: names in ``METHODS``, or "dense" for the network that is not pruned.
        sparsities: fractions removed; "dense" runs once a seed, at 0.
        per_class: images of each class in a batch that is scored; a method that needs several
            batches gets others of the same size.

    Raises:
        ValueError: as :func:`pai_lite.prune` and :func:`pai_lite.fit`.
    """
    find_builder(model)
    cells = make_cells(methods, sparsities, seeds)
    experiment, rows = Experiment(model, recipe, per_class), []
    # Closing the bar ends its line, so that an error does not stand behind it.
    with progress_bar(progress, total=len(cells), unit="run") as bar:
        for task in plan(cells):
            for row in run_task(task, experiment, data):
                rows.append(row)
                bar.update()
                raise_failure(row)
    return pd.DataFrame(rows)


def raise_failure(row: dict[str, Any]) -> None:
    """Raise a ``ValueError`` for a network that could not be pruned."""
    if row["note"].startswith("failed: "):
        raise ValueError(row["note"].removeprefix("failed: "))
