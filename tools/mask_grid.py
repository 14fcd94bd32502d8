"""Grids of masks: which masks of a network are to be measured, from a TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pai_lite.grid import check_keys, read_settings
from pai_lite.lookup import look_up
from pai_lite.methods import METHODS, Method
from pai_lite.models import find_builder
from pai_lite.schedules import SCHEDULES
from pai_lite.scores import check_sparsity

NEEDED = ("data", "model", "seeds", "sparsities", "masks")
ABLATIONS = ("none", "shuffle")


@dataclass(frozen=True)
class MaskCell:
    """One mask: how it is chosen, and from which seed.

    Attributes:
        steps: how often the network is scored, as text; nothing for one-shot pruning.
        schedule: of the numbers kept; nothing for one-shot pruning.
    """

    method: str
    sparsity: float
    seed: int
    ablation: str = "none"
    steps: str = ""
    schedule: str = ""


@dataclass(frozen=True)
class MaskGrid:
    """Masks of one network.

    Attributes:
        data: the name of the data; the rows show it.
        model: a name that :func:`pai_lite.build_model` knows.
        per_class: images of each class in a batch.
        cells: one for each mask.
    """

    data: str
    model: str
    per_class: int
    cells: tuple[MaskCell, ...]


def read_mask_grid(path: str | Path) -> MaskGrid:
    """Read a grid of masks.

    The keys are data, model, seeds, sparsities, per_class (10 where it is left out), and tables
    ``[[masks]]`` with methods and, where they are wanted, sparsities, seeds, steps, schedule and
    ablations of their own. A table stands for the product of its lists::

        data = "digits"
        model = "small-conv"
        seeds = [0, 1]
        sparsities = [0.9, 0.99]

        [[masks]]
        methods = ["random", "snip"]

        [[masks]]
        methods = ["force"]
        steps = [2, 20]
        schedule = ["exponential", "linear"]

    Raises:
        ValueError: the file is not TOML, a key is unknown or missing, or a value is not possible.
        OSError: the file cannot be read.
    """
    settings = read_settings(path, NEEDED, ("per_class",))
    find_builder(settings["model"])
    cells = dict.fromkeys(cell for table in settings["masks"] for cell in cells_of(table, settings))
    # Seed by seed, so that the masks of one network are measured one after the other.
    ordered = sorted(cells, key=lambda cell: cell.seed)
    return MaskGrid(
        settings["data"], settings["model"], settings.get("per_class", 10), tuple(ordered)
    )


def cells_of(table: Mapping[str, Any], settings: Mapping[str, Any]) -> list[MaskCell]:
    """Return the cells of one table ``[[masks]]``: the product of its lists."""
    optional = ("sparsities", "seeds", "steps", "schedule", "ablations")
    check_keys(table, ("methods",), optional, "a table [[masks]]")
    lists = {"steps": [None], "schedule": [None], "ablations": ["none"], **settings, **table}
    for sparsity in lists["sparsities"]:
        check_sparsity(sparsity)
    for ablation in lists["ablations"]:
        look_up(dict.fromkeys(ABLATIONS), ablation, "ablation")
    names = ("methods", "seeds", "steps", "schedule", "sparsities", "ablations")
    return [
        MaskCell(method, sparsity, seed, ablation, *step_settings(method, steps, schedule))
        for method, seed, steps, schedule, sparsity, ablation in product(*(lists[n] for n in names))
    ]


def step_settings(method: str, steps: int | None, schedule: str | None) -> tuple[str, str]:
    """Return the steps and the schedule asked for, or those of the preset, as the file has them.

    Raises:
        ValueError: the method or the schedule is unknown, the method prunes a trained network, or
            steps or a schedule are asked of a method with one step.
    """
    preset: Method = look_up(METHODS, method, "method")
    if preset.prune_at != 0:
        raise ValueError(f"{method!r} prunes a trained network; name a method that trains nothing.")
    if preset.steps in (None, 1):
        if steps is not None or schedule is not None:
            raise ValueError(f"{method!r} scores the network once; leave steps and schedule out.")
        return "", ""
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; iterative pruning needs at least 1.")
    if schedule is not None:
        look_up(SCHEDULES, schedule, "schedule")
    return str(steps or preset.steps), schedule or preset.schedule
