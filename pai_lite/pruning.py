"""Pruning by name: the methods of the papers as presets, and the ablation that shuffles a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pai_lite import criteria
from pai_lite.gradients import Batch, Batches, iterate
from pai_lite.lookup import look_up
from pai_lite.masks import Mask
from pai_lite.schedules import schedule_counts
from pai_lite.scores import (
    Scores,
    check_sparsity,
    erk_counts,
    keep_count,
    keep_top,
    keep_top_per_layer,
    uniform_counts,
)


@dataclass(frozen=True)
class Method:
    """A method of the literature: what scores a weight, when to prune, how many to keep where.

    Attributes:
        criterion: function ``(model, batches, **options) -> Scores``.
        source: where the method was proposed or is described.
        needs_data: whether the criterion looks at batches.
        allocation: function ``(scores, sparsity) -> counts`` that fixes how many weights each
            layer keeps; None lets all layers compete for the same k places.
        steps: how often the network is scored; 1 is one-shot pruning.
        schedule: of the numbers kept, where there are several steps.
        regrow: whether removed weights are scored again, with their initial value, and may return.
    """

    criterion: Callable[..., Scores]
    source: str
    needs_data: bool = True
    allocation: Callable[[Mapping[str, Any], float], dict[str, int]] | None = None
    steps: int = 1
    schedule: str = "exponential"
    regrow: bool = False


FORCE = "de Jorge et al. 2021"
#: The methods of the papers by name.
METHODS: dict[str, Method] = {
    "random": Method(criteria.random, "Frankle et al. 2021, section 3", needs_data=False),
    "random-uniform": Method(
        criteria.random,
        "Evci et al. 2020, section 3, but the first layer is pruned like the others",
        needs_data=False,
        allocation=uniform_counts,
    ),
    "random-erk": Method(
        criteria.random, "Evci et al. 2020, section 3", needs_data=False, allocation=erk_counts
    ),
    "magnitude": Method(criteria.magnitude, "Frankle et al. 2021, section 3", needs_data=False),
    "snip": Method(criteria.snip, "Lee et al. 2019"),
    "iter-snip": Method(criteria.snip, f"{FORCE}, eq. 7", steps=60),
    "force": Method(criteria.snip, f"{FORCE}, eq. 5 and 6", steps=60, regrow=True),
    "grasp": Method(criteria.grasp, "Wang et al. 2020"),
    "grasp-abs": Method(criteria.grasp_abs, "Frankle et al. 2021, appendix H"),
    "grasp-it": Method(criteria.grad_norm, f"{FORCE}, appendix E.1", steps=60),
    "synflow": Method(criteria.synflow, "Tanaka et al. 2020", steps=100),
}


def prune(
    model: nn.Module,
    method: str,
    batches: Batches | None = None,
    *,
    sparsity: float,
    steps: int | None = None,
    schedule: str | None = None,
    regrow: bool | None = None,
    **options: Any,
) -> Mask:
    """Return the mask that a method chooses; the model stays as it is.

    Args:
        method: a name in :data:`~pai_lite.pruning.METHODS`.
        batches: one pair (inputs, targets) or an iterable of pairs; may be left out where the
            method looks at no data. All of them are used in every step.
        sparsity: the fraction of prunable weights to remove, in [0, 1).
        steps, schedule, regrow: other than the method's own.
        options: of the method's criterion, for example ``seed=1`` for "random".

    Raises:
        ValueError: the method is unknown, the sparsity is outside [0, 1), the data is missing or
            does not fit the model, a score is not finite, or several steps are asked of a method
            that they cannot change.
    """
    preset = look_up(METHODS, method, "method")
    check_sparsity(sparsity)
    if preset.needs_data and batches is None:
        raise ValueError(f"{method!r} needs data; pass batches, for example data.batch().")
    given = {"steps": steps, "schedule": schedule, "regrow": regrow}
    preset = replace(preset, **{name: value for name, value in given.items() if value is not None})
    if preset.steps > 1 and not preset.needs_data:
        raise ValueError(
            f"{method!r} scores a weight whatever else is removed, so steps={preset.steps} would "
            "choose the same weights as one step; leave steps out."
        )
    if preset.steps > 1:
        return prune_in_steps(model, preset, list(iterate(batches)), sparsity, **options)
    scores = preset.criterion(model, batches, **options)
    if preset.allocation is None:
        return keep_top(scores, sparsity)
    return keep_top_per_layer(scores, preset.allocation(scores, sparsity))


def prune_in_steps(
    model: nn.Module, method: Method, batches: list[Batch], sparsity: float, **options: Any
) -> Mask:
    """Score at the pruned network, keep a little less, and repeat along the schedule.

    Source: de Jorge et al. 2021, algorithm 1.
    """
    mask = Mask.dense(model)
    counts = schedule_counts(mask.size, sparsity, steps=method.steps, schedule=method.schedule)
    for count in counts:
        scores = method.criterion(model, batches, mask=mask, **options)
        mask = keep_count(scores, count, among=None if method.regrow else mask)
    mask.warn_if_collapsed()
    return mask


def shuffle(mask: Mask, *, seed: int = 0) -> Mask:
    """Return a mask with the same number of weights in each layer, at random places.

    Source: Frankle et al. 2021, section 5.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.rand(t.shape, generator=generator) for name, t in mask.items()}
    placed = keep_top_per_layer(Scores(noise), mask.layer_counts())
    return Mask({name: tensor.to(mask[name].device) for name, tensor in placed.items()})
