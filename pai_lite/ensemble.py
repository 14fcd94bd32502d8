"""Training many networks of one architecture: each as :func:`pai_lite.fit` would train it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from torch import nn

from pai_lite.data import Data
from pai_lite.distributed import ranks
from pai_lite.evaluation import check_data
from pai_lite.groups import draws_random_numbers, fit_in_groups
from pai_lite.lookup import look_up
from pai_lite.masks import Mask, check_fit
from pai_lite.precision import PRECISIONS
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe
from pai_lite.trainer import Trainer
from pai_lite.training import Run, fit
from pai_lite.workers import map_unordered, numbered

Task = tuple[int, nn.Module, Mask | None, int]


def fit_many(
    models: Sequence[nn.Module],
    data: Data,
    recipe: Recipe,
    *,
    masks: Sequence[Mask | None] | None = None,
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
    together: int | None = None,
    precision: str = "float32",
    compile: bool = False,
    progress: bool = True,
) -> list[Run]:
    """Train copies of several networks; the runs come in the order of the models.

    Each run is that of ``fit(model, data, recipe, mask=mask, seed=seed)``. On a CPU the networks
    are shared out among processes of one thread each, and the weights are those of fit on one
    thread, bit for bit. On a GPU networks are trained in groups, all steps of which are launched
    at once, and the weights are those of fit up to rounding; where they draw random numbers, as
    dropout does, one is trained after another. The seconds of a run are its share of its group's.

    Args:
        masks: one for each network; by default none is pruned.
        seeds: one for each network; by default 0 for all, as in fit.
        workers: processes on a CPU; by default one for each core that this process may use.
        together: networks a group on a GPU; by default as many as its free memory holds. Where
            memory runs out, groups become half as large.
        precision, compile: as in :func:`pai_lite.fit`.
        progress: show a progress bar.

    Raises:
        ValueError: there are not as many masks or seeds as models, or as :func:`pai_lite.fit`;
            a note on the error has the number of the network.
        RuntimeError: a process was killed, or the memory of a GPU does not hold one network.
    """
    options = {"masks": masks, "seeds": seeds, "workers": workers, "together": together}
    options |= {"precision": precision, "compile": compile}
    runs = fit_each(models, data, recipe, **options)
    bar = progress_bar(progress, total=len(models), unit="network")
    found: dict[int, Run] = {}
    with bar, closing(runs):
        for number, run in runs:
            found[number] = run
            bar.update()
    return [found[number] for number in range(len(models))]


def fit_each(
    models: Sequence[nn.Module],
    data: Data,
    recipe: Recipe,
    *,
    masks: Sequence[Mask | None] | None = None,
    seeds: Sequence[int] | None = None,
    workers: int | None = None,
    together: int | None = None,
    precision: str = "float32",
    compile: bool = False,
) -> Generator[tuple[int, Run], None, None]:
    """Yield the number of a network and its run when it is trained, as :func:`fit_many` does.

    Raises:
        ValueError, RuntimeError: as :func:`fit_many`; what does not fit is found at the call.
    """
    tasks = make_tasks(models, masks, seeds)
    check_options(together, precision)
    for number, model, mask, _ in tasks:
        with numbered(number):
            check_data(model, data)
            if mask is not None:
                check_fit(mask, model, "mask")
    settings = {"data": data, "recipe": recipe, "precision": precision, "compile": compile}
    if tasks and go_together(models, data):
        return by_number(fit_in_groups(tasks, partial(make_trainer, **settings), together))
    count = workers if data.device.type == "cpu" else 1
    return by_number(map_unordered(partial(train, **settings), tasks, workers=count))


def go_together(models: Sequence[nn.Module], data: Data) -> bool:
    """Say whether the networks can be trained in lockstep, and gain from it.

    Ranks of ``torchrun`` share the batches of one network after another.
    """
    if data.device.type != "cuda" or ranks() > 1:
        return False
    return not any(draws_random_numbers(model, data) for model in models)


def by_number(
    runs: Generator[tuple[Task, Run], None, None],
) -> Generator[tuple[int, Run], None, None]:
    """Yield the number of a task in the place of the task."""
    with closing(runs):  # and so end its processes when this generator is closed
        for (number, *_), run in runs:
            yield number, run


def check_options(together: int | None, precision: str) -> None:
    """Raise a ``ValueError`` where a setting means nothing."""
    look_up(dict.fromkeys(PRECISIONS), precision, "precision")
    if together is not None and together < 1:
        raise ValueError(f"together is {together}, which trains nothing: use 1 or more.")


def make_tasks(
    models: Sequence[nn.Module],
    masks: Sequence[Mask | None] | None,
    seeds: Sequence[int] | None,
) -> list[Task]:
    """Return number, network, mask and seed of every network."""
    count = len(models)
    masks = [None] * count if masks is None else masks
    seeds = [0] * count if seeds is None else seeds
    for name, values in (("masks", masks), ("seeds", seeds)):
        if len(values) != count:
            raise ValueError(
                f"There are {count} models and {len(values)} {name}; give one for each model."
            )
    return list(zip(range(count), models, masks, seeds, strict=True))


def train(task: Task, **settings: Any) -> Run:
    """Train the network of a task."""
    _, model, mask, seed = task
    return fit(model, mask=mask, seed=seed, progress=False, **settings)


def make_trainer(task: Task, **settings: Any) -> Trainer:
    """Return the trainer of a task."""
    _, model, mask, seed = task
    return Trainer(model, mask=mask, seed=seed, **settings)
