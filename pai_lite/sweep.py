"""Methods x sparsities x seeds: one row for each network that is pruned and trained.

Cells that need the same dense training, or the same scores, are planned into one task, so that
either is done once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import pandas as pd
from torch import nn

from pai_lite.ablations import reinitialize, shuffle
from pai_lite.cells import DENSE, END, Cell, Experiment, make_cells, plan
from pai_lite.data import Data
from pai_lite.distributed import share
from pai_lite.ensemble import fit_each
from pai_lite.gradients import Batch
from pai_lite.later import Ticket, prune_later
from pai_lite.masks import Mask
from pai_lite.methods import METHODS, Criterion
from pai_lite.models import build_model, find_builder
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe
from pai_lite.rows import make_row
from pai_lite.scores import Scores
from pai_lite.training import Run, fit


@dataclass(frozen=True)
class Pruned:
    """A network of a cell before it is trained.

    Attributes:
        ticket: None where it could not be pruned, and then the note says why.
        seconds: that the pruning took.
    """

    cell: Cell
    ticket: Ticket | None
    seconds: float
    note: str = ""


def run_task(cells: Sequence[Cell], experiment: Experiment, data: Data) -> Iterator[dict]:
    """Prune and train the networks of one task, and yield a row for each when it is done."""
    if not cells:
        return
    seed, step = cells[0].seed, cells[0].prune_at
    initial = build_model(experiment.model, data, seed=seed)
    trained = None
    if step != "0":
        stop = None if step == END else int(step)
        options = {"seed": seed, "stop_at": stop, "precision": experiment.precision}
        trained = fit(initial, data, experiment.recipe, progress=False, **options)
    for cell in cells:
        if cell.method == DENSE:
            yield make_row(cell, experiment, data, Mask.dense(initial), trained, 0.0)
    start = initial if trained is None else trained.model
    pruned = prune_cells(cells, experiment, data, initial, start)
    # A GPU trains many small networks in little more time than one; they have to be pruned first.
    way = train_together if data.device.type == "cuda" else train_in_turn
    yield from way(pruned, experiment, data)


def prune_cells(
    cells: Sequence[Cell],
    experiment: Experiment,
    data: Data,
    initial: nn.Module,
    trained: nn.Module,
) -> Iterator[Pruned]:
    """Prune the networks of a task, and score once for all sparsities of a method."""
    for method, group in groupby(cells, key=lambda cell: cell.method):
        if method == DENSE:
            continue
        criterion = Remembered(METHODS[method].criterion)
        for cell in group:
            yield prune_cell(cell, experiment, data, initial, trained, criterion)


def train_in_turn(
    pruned: Iterable[Pruned], experiment: Experiment, data: Data
) -> Iterator[dict[str, Any]]:
    """Train each network as soon as it is pruned, and yield its row."""
    for one in pruned:
        run = None
        if one.ticket is not None:
            options = {"seed": one.cell.seed, "precision": experiment.precision}
            model, mask = one.ticket.model, one.ticket.mask
            run = fit(model, data, experiment.recipe, mask=mask, progress=False, **options)
        yield row_of(one, run, experiment, data)


def train_together(
    pruned: Iterable[Pruned], experiment: Experiment, data: Data
) -> Iterator[dict[str, Any]]:
    """Prune all networks, train them as :func:`pai_lite.fit_each` does, and yield their rows."""
    ready = []
    for one in pruned:
        if one.ticket is None:
            yield row_of(one, None, experiment, data)
        else:
            ready.append(one)
    options = {
        "masks": [one.ticket.mask for one in ready],
        "seeds": [one.cell.seed for one in ready],
        "precision": experiment.precision,
    }
    models = [one.ticket.model for one in ready]
    with closing(fit_each(models, data, experiment.recipe, **options)) as runs:
        for number, run in runs:
            yield row_of(ready[number], run, experiment, data)


def row_of(one: Pruned, run: Run | None, experiment: Experiment, data: Data) -> dict[str, Any]:
    """Return the row of a network that was pruned, and trained where it could be pruned."""
    mask = None if one.ticket is None else one.ticket.mask
    return make_row(one.cell, experiment, data, mask, run, one.seconds, one.note)


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


def prune_cell(
    cell: Cell,
    experiment: Experiment,
    data: Data,
    initial: nn.Module,
    trained: nn.Module,
    criterion: Remembered,
) -> Pruned:
    """Prune one network; what went wrong is in its note."""
    begin, known = time.perf_counter(), criterion.scores is not None
    try:
        ticket = make_ticket(cell, experiment, data, initial, trained, criterion)
    except ValueError as error:
        return Pruned(cell, None, math.nan, f"failed: {error}")
    # The time of scores that were remembered counts for every network that uses them.
    seconds = time.perf_counter() - begin + (criterion.seconds if known else 0.0)
    return Pruned(cell, ticket, seconds)


def make_ticket(
    cell: Cell,
    experiment: Experiment,
    data: Data,
    initial: nn.Module,
    trained: nn.Module,
    criterion: Remembered,
) -> Ticket:
    """Return the pruned network of a cell before it is trained, with its ablation."""
    asked = experiment.options.get(cell.method, {})
    options = {"seed": cell.seed, **asked} if cell.method.startswith("random") else asked
    preset = METHODS[cell.method]
    ticket = prune_later(
        initial,
        replace(preset, criterion=criterion),
        data,
        experiment.recipe,
        sparsity=cell.sparsity,
        batches=scored_batches(data, preset.batches_with(asked), experiment.per_class, cell.seed),
        trained=trained,
        training_seed=cell.seed,
        invert=cell.ablation == "invert",
        precision=experiment.precision,
        progress=False,
        **options,
    )
    if cell.ablation == "shuffle":
        return replace(ticket, mask=shuffle(ticket.mask, seed=cell.seed))
    if cell.ablation == "reinitialize":
        # Far from the seeds of other cells, so that no other network starts from these weights.
        return replace(ticket, model=reinitialize(ticket.model, seed=cell.seed + 10_000))
    return ticket


def scored_batches(data: Data, count: int, per_class: int, seed: int) -> list[Batch] | None:
    """Return class-balanced batches, the first of them the seed's, or None for no batch."""
    seeds = [seed + 1000 * i for i in range(count)]
    batches = [data.batch(per_class=per_class, seed=s) for s in seeds]
    return [(share(inputs), share(targets)) for inputs, targets in batches] or None


def sweep(
    data: Data,
    model: str,
    methods: Sequence[str],
    sparsities: Sequence[float],
    *,
    seeds: Sequence[int],
    recipe: Recipe,
    per_class: int = 10,
    precision: str = "float32",
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
        precision: of the training, as in :func:`pai_lite.fit`.

    Raises:
        ValueError: as :func:`pai_lite.prune` and :func:`pai_lite.fit`.
    """
    find_builder(model)
    cells = make_cells(methods, sparsities, seeds)
    experiment, rows = Experiment(model, recipe, per_class, precision=precision), []
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
