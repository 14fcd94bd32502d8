"""Pruning later: any method at any step of training, and the lottery ticket's rewinding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pai_lite.data import Data
from pai_lite.lookup import look_up
from pai_lite.masks import Mask, copy_model
from pai_lite.methods import METHODS, Method
from pai_lite.pruning import StepBatches, prune
from pai_lite.recipes import Recipe
from pai_lite.training import fit


@dataclass(frozen=True)
class Ticket:
    """A pruned network before it is trained further.

    Attributes:
        model: holds the weights to train from, those that the mask removes too.
        mask: the weights that stay.
    """

    model: nn.Module
    mask: Mask


def prune_later(
    model: nn.Module,
    method: str | Method,
    data: Data,
    recipe: Recipe,
    *,
    sparsity: float,
    batches: StepBatches | None = None,
    prune_at: int | None = None,
    rewind_to: int | None = None,
    training_seed: int = 0,
    trained: nn.Module | None = None,
    precision: str = "float32",
    progress: bool = True,
    **options: Any,
) -> Ticket:
    """Train the dense network, prune it, and return the weights and the mask to go on with.

    The papers then train for the whole recipe once more:
    ``pai.fit(ticket.model, data, recipe, mask=ticket.mask)``.
    The model passed in stays as it is. Momentum is not carried over.

    Source: Frankle et al. 2021, sections 3 and 6; Renda et al. 2020; Frankle and Carbin 2019.

    Args:
        method: a name in :data:`~pai_lite.methods.METHODS`: "magnitude-after" and
            "lottery-ticket" prune after the last step, the others before the first.
        batches: for the methods that look at data.
        prune_at: prune after so many steps of the recipe instead.
        rewind_to: train on from the weights of this step instead of those that were pruned;
            "lottery-ticket" goes back to 0.
        training_seed: of the dense training, the seed of :func:`fit`.
        trained: the network after those steps, where it is at hand, so that it is not trained.
        precision: of the training, as in :func:`fit`.
        options: as for :func:`prune`.

    Raises:
        ValueError: as :func:`prune` and :func:`fit`, or the step to rewind to is negative.
    """
    preset = method if isinstance(method, Method) else look_up(METHODS, method, "method")
    last = preset.prune_at if prune_at is None else prune_at
    first = preset.rewind_to if rewind_to is None else rewind_to

    def weights_at(step: int | None) -> nn.Module:
        if step == 0:
            return copy_model(model)
        settings = {"seed": training_seed, "stop_at": step, "precision": precision}
        return fit(model, data, recipe, progress=progress, **settings).model

    trained = weights_at(last) if trained is None else trained
    at_once = replace(preset, prune_at=0)
    mask = prune(trained, at_once, batches, sparsity=sparsity, progress=progress, **options)
    return Ticket(trained if first is None else weights_at(first), mask)
