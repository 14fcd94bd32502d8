"""Methods x sparsities x seeds: one table of training runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import pandas as pd
import torch

from pai_lite.data import Data
from pai_lite.gradients import Batch
from pai_lite.later import Ticket, prune_later
from pai_lite.lookup import look_up
from pai_lite.masks import Mask
from pai_lite.methods import METHODS
from pai_lite.models import build_model, find_builder
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe
from pai_lite.scores import check_sparsity
from pai_lite.training import fit

DENSE = "dense"


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
    for sparsity in sparsities:
        check_sparsity(sparsity)
    for method in set(methods) - {DENSE}:
        look_up(METHODS, method, "method")
    cells = [
        (method, sparsity, seed)
        for seed in seeds
        for method in methods
        for sparsity in ([0.0] if method == DENSE else sparsities)
    ]
    # Closing the bar ends its line, so that an error does not stand behind it.
    with progress_bar(progress, iterable=cells, unit="run") as bar:
        return pd.DataFrame([run_cell(data, model, *cell, recipe, per_class) for cell in bar])


def run_cell(
    data: Data,
    model_name: str,
    method: str,
    sparsity: float,
    seed: int,
    recipe: Recipe,
    per_class: int,
) -> dict[str, Any]:
    """Prune and train one network, and return what was asked for and what came of it."""
    model = build_model(model_name, data, seed=seed)
    begin = time.perf_counter()
    if method == DENSE:
        ticket = Ticket(model, Mask.dense(model))
    else:
        options = {"seed": seed} if method.startswith("random") else {}
        ticket = prune_later(
            model,
            method,
            data,
            recipe,
            sparsity=sparsity,
            batches=scored_batches(data, method, per_class, seed),
            training_seed=seed,
            progress=False,
            **options,
        )
    mask, prune_seconds = ticket.mask, time.perf_counter() - begin
    run = fit(ticket.model, data, recipe, mask=mask, seed=seed, progress=False)
    return {
        "method": method,
        "sparsity": sparsity,
        "reached": mask.sparsity,
        "model": model_name,
        "data": data.name,
        "seed": seed,
        "epochs": recipe.epochs,
        "test_accuracy": run.test_accuracy,
        "best_test_accuracy": run.best_test_accuracy,
        "prune_seconds": prune_seconds,
        "train_seconds": run.seconds,
        "hardware": hardware(data.device),
        "version": version("pai-lite"),
    }


def scored_batches(data: Data, method: str, per_class: int, seed: int) -> list[Batch] | None:
    """Return as many class-balanced batches as a method needs, the first of them the seed's."""
    count = METHODS[method].batches
    seeds = [seed + 1000 * i for i in range(count)]
    return [data.batch(per_class=per_class, seed=s) for s in seeds] or None


def hardware(device: torch.device) -> str:
    """Return the name of the device that the runs were measured on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
