"""Pruning by name: the methods of the papers as presets, and the ablation that shuffles a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pai_lite import criteria
from pai_lite.criteria import Batches
from pai_lite.lookup import look_up
from pai_lite.masks import Mask
from pai_lite.scores import (
    Scores,
    check_sparsity,
    erk_counts,
    keep_top,
    keep_top_per_layer,
    uniform_counts,
)


@dataclass(frozen=True)
class Method:
    """A method of the literature: what scores a weight, and how many each layer keeps.

    Attributes:
        criterion: function ``(model, batches, **options) -> Scores``.
        needs_data: whether the criterion looks at batches.
        source: where the method was proposed or is described.
        allocation: function ``(scores, sparsity) -> counts`` that fixes how many weights each
            layer keeps; None lets all layers compete for the same k places.
    """

    criterion: Callable[..., Scores]
    needs_data: bool
    source: str
    allocation: Callable[[Mapping[str, Any], float], dict[str, int]] | None = None


#: The methods of the papers by name.
METHODS: dict[str, Method] = {
    "random": Method(criteria.random, False, "Frankle et al. 2021, section 3"),
    "random-uniform": Method(
        criteria.random,
        False,
        "Evci et al. 2020, section 3, but the first layer is pruned like the others",
        uniform_counts,
    ),
    "random-erk": Method(criteria.random, False, "Evci et al. 2020, section 3", erk_counts),
    "magnitude": Method(criteria.magnitude, False, "Frankle et al. 2021, section 3"),
    "snip": Method(criteria.snip, True, "Lee et al. 2019"),
}


def prune(
    model: nn.Module,
    method: str,
    batches: Batches | None = None,
    *,
    sparsity: float,
    **options: Any,
) -> Mask:
    """Return the mask that a method chooses; the model stays as it is.

    Args:
        method: a name in :data:`~pai_lite.pruning.METHODS`.
        batches: one pair (inputs, targets) or an iterable of pairs; may be left out where the
            method looks at no data.
        sparsity: the fraction of prunable weights to remove, in [0, 1).
        options: of the method's criterion, for example ``seed=1`` for "random".

    Raises:
        ValueError: the method is unknown, the sparsity is outside [0, 1), the data is missing or
            does not fit the model, or a score is not finite.
    """
    preset = look_up(METHODS, method, "method")
    check_sparsity(sparsity)
    if preset.needs_data and batches is None:
        raise ValueError(f"{method!r} needs data; pass batches, for example data.batch().")
    scores = preset.criterion(model, batches, **options)
    if preset.allocation is None:
        return keep_top(scores, sparsity)
    return keep_top_per_layer(scores, preset.allocation(scores, sparsity))


def shuffle(mask: Mask, *, seed: int = 0) -> Mask:
    """Return a mask with the same number of weights in each layer, at random places.

    Source: Frankle et al. 2021, section 5.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.rand(t.shape, generator=generator) for name, t in mask.items()}
    placed = keep_top_per_layer(Scores(noise), mask.layer_counts())
    return Mask({name: tensor.to(mask[name].device) for name, tensor in placed.items()})
