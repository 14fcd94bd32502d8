"""The trials of the leaderboard: networks that a criterion prunes, and what training makes of them.

Each mask is trained three times: on the weights that it was chosen for, shuffled within layers, and
on weights drawn again (chapter 9 of the book).
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pai_lite.ablations import reinitialize, shuffle
from pai_lite.course.criterion import Start, score
from pai_lite.data import Data, Split, load_data
from pai_lite.ensemble import fit_many
from pai_lite.masks import LayerCollapseWarning, Mask, copy_model
from pai_lite.methods import METHODS
from pai_lite.models import build_model, find_builder
from pai_lite.pruning import prune
from pai_lite.recipes import Recipe
from pai_lite.scores import check_sparsity, keep_top
from pai_lite.training import Run
from pai_lite.workers import one_thread

CONTROLS = ("none", "shuffle", "reinitialize")


@dataclass(frozen=True)
class Settings:
    """What is evaluated, and how.

    Attributes:
        data: names or .npz files, as for :func:`pai_lite.load_data`.
        seeds: how many.
        seconds: limit of one call of a criterion.
    """

    data: tuple[str, ...] = ("digits",)
    model: str = "small-conv"
    sparsities: tuple[float, ...] = (0.9, 0.98)
    seeds: int = 3
    epochs: int = 12
    seconds: float = 60.0

    def __post_init__(self) -> None:
        """Check what would otherwise fail late.

        Raises:
            ValueError: the model is unknown, a number is out of range, or something is twice.
        """
        find_builder(self.model)
        Recipe(epochs=self.epochs)
        for sparsity in self.sparsities:
            check_sparsity(sparsity)
        if self.seeds < 1 or not self.seconds > 0:
            raise ValueError(f"seeds={self.seeds} and seconds={self.seconds:g} must be above 0.")
        for values in ([Path(name).stem for name in self.data], self.sparsities):
            if len(set(values)) < len(values):
                raise ValueError(f"One of {', '.join(map(str, values))} is given twice.")


@dataclass(frozen=True, eq=False)
class Pruned:
    """A network before it is trained: its mask, and the seconds that the pruning took."""

    start: Start
    sparsity: float
    mask: Mask
    seconds: float


@dataclass(frozen=True, eq=False)
class Trial:
    """A network that is trained: weights and mask of a control."""

    pruned: Pruned
    control: str
    model: nn.Module
    mask: Mask


def make_starts(settings: Settings, base: int, device: str) -> list[Start]:
    """Return the networks that every criterion scores, one for each data set and seed.

    A seed fixes what it fixes in :func:`pai_lite.sweep`; the seeds begin at ``base``.
    """
    starts = []
    for name in settings.data:
        data = load_data(name, device=device)
        data = split_anew(data, base) if name == "digits" else data
        for number in range(settings.seeds):
            seed = base + number
            inputs, targets = data.batch(seed=seed)
            model = build_model(settings.model, data, seed=seed).cpu()
            starts.append(Start(data, number, seed, model, (inputs.cpu(), targets.cpu())))
    return starts


def split_anew(data: Data, seed: int) -> Data:
    """Return data with splits of the same sizes, drawn again from all of its images."""
    splits = (data.train, data.validation, data.test)
    images = torch.cat([split.images for split in splits])
    labels = torch.cat([split.labels for split in splits])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    parts = order.to(labels.device).split([len(split) for split in splits])
    train, validation, test = (Split(images[part], labels[part]) for part in parts)
    pixels = train.images.double() / 255
    mean, std = pixels.mean((0, 2, 3)).float(), pixels.std((0, 2, 3), correction=0).float()
    return replace(data, train=train, validation=validation, test=test, mean=mean, std=std)


def prune_submission(path: Path, starts: Sequence[Start], settings: Settings) -> list[Pruned]:
    """Return the masks of a student's criterion; its scores serve all sparsities.

    Raises:
        CriterionError: as :func:`pai_lite.course.criterion.score`.
    """
    scored = score(path, settings.model, starts, settings.seconds)
    with allowing_collapse():
        return [
            Pruned(start, sparsity, keep_top(one.scores, sparsity), one.seconds)
            for start, one in zip(starts, scored, strict=True)
            for sparsity in settings.sparsities
        ]


def prune_baseline(name: str, starts: Sequence[Start], settings: Settings) -> list[Pruned]:
    """Return the masks of a method of the package, made on one thread as a student's are."""
    with allowing_collapse(), one_thread():
        return [
            _prune_baseline(name, start, sparsity)
            for start in starts
            for sparsity in settings.sparsities
        ]


def _prune_baseline(name: str, start: Start, sparsity: float) -> Pruned:
    batches = start.batch if METHODS[name].batches else None
    options = {"seed": start.seed} if name == "random" else {}
    begin = time.perf_counter()
    mask = prune(start.model, name, batches, sparsity=sparsity, progress=False, **options)
    return Pruned(start, sparsity, mask, time.perf_counter() - begin)


@contextmanager
def allowing_collapse() -> Iterator[None]:
    """Say nothing of a layer that loses all its weights: the row does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LayerCollapseWarning)
        yield


def train_all(
    pruned: Sequence[Pruned], settings: Settings, workers: int | None
) -> list[dict[str, Any]]:
    """Train every network with its controls, and return a row for each."""
    recipe, rows = Recipe(epochs=settings.epochs), []
    with allowing_collapse():
        trials = [trial for one in pruned for trial in make_trials(one)]
    for data in dict.fromkeys(one.start.data for one in pruned):
        own = [trial for trial in trials if trial.pruned.start.data is data]
        runs = fit_many(
            [trial.model.to(data.device) for trial in own],
            data,
            recipe,
            masks=[trial.mask for trial in own],
            seeds=[trial.pruned.start.seed for trial in own],
            workers=workers,
            progress=False,
        )
        rows += [trained_row(trial, run, settings) for trial, run in zip(own, runs, strict=True)]
    return rows


def make_trials(pruned: Pruned) -> Iterator[Trial]:
    """Yield a pruned network, then with its mask shuffled, then with other initial weights."""
    start, mask = pruned.start, pruned.mask
    yield Trial(pruned, "none", copy_model(start.model), mask)
    yield Trial(pruned, "shuffle", copy_model(start.model), shuffle(mask, seed=start.seed))
    # Far from the seeds of other networks, as in a sweep, so that none starts from these weights.
    yield Trial(pruned, "reinitialize", reinitialize(start.model, seed=start.seed + 10_000), mask)


def trained_row(trial: Trial, run: Run, settings: Settings) -> dict[str, Any]:
    """Return the row of a network that was trained."""
    notes = []
    if 0 in trial.mask.layer_counts().values():
        notes.append("A layer lost all its weights.")
    if not math.isfinite(run.history["train_loss"].iloc[-1]):
        notes.append("Its training diverged.")
    return make_row(trial.pruned.start, trial.pruned.sparsity, trial.control, settings) | {
        "reached": trial.mask.sparsity,
        "test_accuracy": run.test_accuracy,
        "prune_seconds": trial.pruned.seconds,
        "note": " ".join(notes),
    }


def failed_rows(note: str, starts: Sequence[Start], settings: Settings) -> list[dict[str, Any]]:
    """Return the rows of a criterion that failed: they have a note and no accuracy."""
    return [
        make_row(start, sparsity, control, settings) | {"note": note}
        for start in starts
        for sparsity in settings.sparsities
        for control in CONTROLS
    ]


def make_row(start: Start, sparsity: float, control: str, settings: Settings) -> dict[str, Any]:
    """Return what was asked for, and NaN for what came of it."""
    asked = {"data": start.data.name, "model": settings.model, "sparsity": sparsity}
    asked |= {"control": control, "seed": start.number}
    return asked | dict.fromkeys(("reached", "test_accuracy", "prune_seconds"), math.nan)
