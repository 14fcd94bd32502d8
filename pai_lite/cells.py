"""Cells: the networks of a grid, and which of them share work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pai_lite.lookup import look_up
from pai_lite.methods import METHODS
from pai_lite.recipes import Recipe
from pai_lite.scores import check_sparsity

DENSE = "dense"
ABLATIONS = ("none", "shuffle", "reinitialize", "invert")
END = "end"


@dataclass(frozen=True)
class Cell:
    """One network: how it is pruned, and from which seed.

    Attributes:
        prune_at: the step of training at which it is pruned, as text; "end" is after the last.
    """

    method: str
    sparsity: float
    seed: int
    ablation: str = "none"
    prune_at: str = "0"


@dataclass(frozen=True)
class Experiment:
    """What all cells have in common.

    Attributes:
        model: a name that :func:`pai_lite.build_model` knows.
        per_class: images of each class in a batch that is scored.
        options: by method, those of its criterion and of :func:`pai_lite.prune_steps`.
        precision: of the training, as in :func:`pai_lite.fit`.
    """

    model: str
    recipe: Recipe
    per_class: int = 10
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    precision: str = "float32"


def make_cells(
    methods: Sequence[str],
    sparsities: Sequence[float],
    seeds: Sequence[int],
    *,
    ablations: Sequence[str] = ("none",),
    prune_at: Sequence[int] = (0,),
) -> list[Cell]:
    """Return the cells of a grid: dense once a seed, and every method at every sparsity.

    Methods that prune after training do so whatever ``prune_at`` says.

    Raises:
        ValueError: a method or an ablation is unknown, a sparsity is outside [0, 1), or a step is
            negative.
    """
    for sparsity in sparsities:
        check_sparsity(sparsity)
    for name in ablations:
        look_up(dict.fromkeys(ABLATIONS), name, "ablation")
    if any(step < 0 for step in prune_at):
        raise ValueError(f"prune_at is {list(prune_at)}; steps of training are not negative.")
    cells = []
    for seed in seeds:
        for method in methods:
            if method == DENSE:
                cells.append(Cell(DENSE, 0.0, seed, prune_at=END))
                continue
            at_init = look_up(METHODS, method, "method").prune_at == 0
            steps = [str(step) for step in prune_at] if at_init else [END]
            cells += [
                Cell(method, sparsity, seed, ablation, step)
                for step in steps
                for sparsity in sparsities
                for ablation in ablations
            ]
    return list(dict.fromkeys(cells))


def plan(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells in tasks: together what shares a dense training, or scores."""
    tasks: dict[str, list[Cell]] = {}
    for cell in cells:
        tasks.setdefault(task_name(cell), []).append(cell)
    return list(tasks.values())


def task_name(cell: Cell) -> str:
    """Return the name of the task to which a cell belongs.

    Cells pruned at step 0 share the scores of one method and seed; others also the training of
    the dense network up to their step.
    """
    return f"{cell.seed}.{cell.prune_at}.{cell.method if cell.prune_at == '0' else 'all'}"
