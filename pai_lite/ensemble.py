"""Training many networks of one architecture: each as :func:`pai_lite.fit` would train it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial

from torch import nn

from pai_lite.data import Data
from pai_lite.evaluation import check_data
from pai_lite.masks import Mask, check_fit
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe
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
    progress: bool = True,
) -> list[Run]:
    """Train copies of several networks; the runs come in the order of the models.

    Each run is that of ``fit(model, data, recipe, mask=mask, seed=seed)``. On a CPU the networks
    are shared out among processes of one thread each, and the weights are those of fit on one
    thread, bit for bit. On a GPU one network is trained after another.

    Args:
        masks: one for each network; by default none is pruned.
        seeds: one for each network; by default 0 for all, as in fit.
        workers: processes on a CPU; by default one for each core that this process may use.
        progress: show a progress bar.

    Raises:
        ValueError: there are not as many masks or seeds as models, or as :func:`pai_lite.fit`;
            a note on the error has the number of the network.
        RuntimeError: a process was killed.
    """
    options = {"masks": masks, "seeds": seeds, "workers": workers}
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
) -> Generator[tuple[int, Run], None, None]:
    """Yield the number of a network and its run when it is trained, as :func:`fit_many` does.

    Raises:
        ValueError, RuntimeError: as :func:`fit_many`; what does not fit is found at the call.
    """
    tasks = make_tasks(models, masks, seeds)
    for number, model, mask, _ in tasks:
        with numbered(number):
            check_data(model, data)
            if mask is not None:
                check_fit(mask, model, "mask")
    function = partial(train, data=data, recipe=recipe)
    count = workers if data.device.type == "cpu" else 1
    return by_number(map_unordered(function, tasks, workers=count))


def by_number(
    runs: Generator[tuple[Task, Run], None, None],
) -> Generator[tuple[int, Run], None, None]:
    """Yield the number of a task in the place of the task."""
    with closing(runs):  # and so end its processes when this generator is closed
        for (number, *_), run in runs:
            yield number, run


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


def train(task: Task, *, data: Data, recipe: Recipe) -> Run:
    """Train the network of a task."""
    _, model, mask, seed = task
    return fit(model, data, recipe, mask=mask, seed=seed, progress=False)
