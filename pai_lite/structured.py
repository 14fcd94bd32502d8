"""Structured pruning: whole channels are removed, and the network really becomes smaller.

A gate c_u multiplies the signal of a unit where it enters the layers that read it, that is, all
input columns of the unit. At c_u = 1 the loss has the derivative

    dL/dc_u = sum of w_i g_i over the columns' weights i

whatever activation or BatchNorm stands in between. The same sum over the unit's output rows will
not do: before BatchNorm it is zero, for the loss does not change with the scale of a row.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pai_lite.gradients import (
    Batch,
    Batches,
    check_inputs,
    detached_weights,
    hessian_gradient_product,
    iterate,
    mean_gradient,
)
from pai_lite.lookup import look_up
from pai_lite.masks import LayerCollapseWarning, Mask, NamedTensors
from pai_lite.meta_gradients import first_order_gradient, meta_gradient
from pai_lite.scores import Scores, check_sparsity, count_kept, top_k
from pai_lite.units import Units, find_units

TRACED_INPUTS = 8  # enough that hardly a channel is silent for all of them


class ChannelMask(NamedTensors):
    """A boolean vector for each group of tied layers, one entry a unit; True = keep.

    A group goes by the name of its first layer's weight.
    """

    def __init__(self, tensors: Mapping[str, Tensor], units: Units) -> None:
        """Hold the given vectors.

        Args:
            units: of the model, as :func:`find_units` returns them.

        Raises:
            ValueError: names, lengths or dtypes are not those of a mask of these units.
        """
        super().__init__(tensors)
        found = {name: tuple(vector.shape) for name, vector in self.items()}
        wanted = {name: (size,) for name, size in units.groups.items()}
        if found != wanted or any(vector.dtype != torch.bool for vector in self.values()):
            raise ValueError(
                f"The vectors have shapes {found}; these units need boolean vectors {wanted}, "
                "in this order."
            )
        self.units = units

    def __repr__(self) -> str:
        return (
            f"ChannelMask({len(self)} groups, {self.kept:,} of {self.size:,} units kept, "
            f"sparsity {self.sparsity:.2%})"
        )

    @property
    def size(self) -> int:
        """The number of units."""
        return self.units.size

    @property
    def kept(self) -> int:
        """The number of units kept."""
        return int(self.flat().sum())

    @property
    def density(self) -> float:
        """The fraction of units kept."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """The fraction of units removed."""
        return 1.0 - self.density

    def flat(self) -> Tensor:
        """Return all entries as one vector, group after group."""
        return torch.cat(list(self.values()))

    def keeps(self, units: Tensor) -> Tensor:
        """Return for each entry, the number of a unit or -1, whether it stays."""
        flat = self.flat()
        # The appended entry is that of -1: what belongs to no unit stays.
        return torch.cat([flat, flat.new_ones(1)])[units.to(flat.device)]

    def channel_counts(self) -> pd.Series:
        """Return how many output channels each layer keeps, indexed by parameter name."""
        counts = {name: int(self.keeps(rows).sum()) for name, rows in self.units.rows.items()}
        return pd.Series(counts, name="channels")

    def weights(self) -> Mask:
        """Return the mask of the single weights: without the units' rows and columns.

        Nothing of a removed unit reaches another layer: its BatchNorm shift or bias meets only
        columns of zeros.
        """
        masks = {}
        for name, shape in self.units.shapes.items():
            rows = self.keeps(self.units.rows[name])
            columns = self.keeps(self.units.columns[name])
            kept = rows[:, None] & columns
            masks[name] = kept.view(*kept.shape, *[1] * (len(shape) - 2)).expand(shape).clone()
        return Mask(masks)

    def empty_groups(self) -> list[str]:
        """Return the groups that keep no unit."""
        return [name for name, vector in self.items() if not vector.any()]

    def warn_if_collapsed(self) -> None:
        """Emit a :class:`LayerCollapseWarning` that names the groups without any unit."""
        if empty := self.empty_groups():
            warnings.warn(
                f"All channels were removed from {', '.join(empty)}.",
                LayerCollapseWarning,
                stacklevel=3,
            )


def prune_channels(
    model: nn.Module,
    method: str,
    batches: Batches,
    *,
    sparsity: float,
    compute_aware: bool = False,
    **options: Any,
) -> ChannelMask:
    """Return the mask of the channels that a method chooses; the model stays as it is.

    Exactly k = round((1 - sparsity) * n) of the n units are kept, over all groups together; ties
    go to the first. The scores are those of :func:`score_units`.

    Source: Alizadeh et al. 2022, section 4.3; van Amersfoort et al. 2020.

    Args:
        batches: one pair (inputs, targets) or an iterable of pairs. "random" and "magnitude" need
            a batch as well: the ties between layers are found by following its inputs.
        sparsity: the fraction of units to remove, in [0, 1).
        method, compute_aware, options: as for :func:`score_units`.

    Warns:
        LayerCollapseWarning: a group of layers keeps no channel.

    Raises:
        ValueError: as :func:`score_units`, the sparsity is outside [0, 1), or the model's
            channels cannot be matched; the message names the layer and the operations.
    """
    check_sparsity(sparsity)
    batches = list(iterate(batches))
    units = find_model_units(model, batches[0])
    scores = score_units(model, units, method, batches, compute_aware=compute_aware, **options)
    keep = top_k(scores.flat(), count_kept(units.size, sparsity))
    mask = ChannelMask(split(keep, units), units)
    mask.warn_if_collapsed()
    return mask


def score_units(
    model: nn.Module,
    units: Units,
    method: str,
    batches: Batches,
    *,
    compute_aware: bool = False,
    **options: Any,
) -> Scores:
    """Score every unit; larger = keep. The scores have one vector a group of tied layers.

    With sums over the columns of a unit, the methods are

    * "random": uniform noise;
    * "magnitude": the sum of absolute weights of a row, averaged over the unit's rows, so that
      a unit of many tied layers has no advantage;
    * "snip": abs(sum of w * g);
    * "grasp": sum of w * (H g). This is half the derivative of the gradient's squared norm in a
      gate that scales the weights at which the gradient is taken;
    * "prospr": abs(sum of w * dL(w_M)/dw_0). The gate scales the initial weights;
    * "prospr-first-order": abs(sum of w * dL(w_M)/dw_M).

    Source: Li et al. 2017 for magnitude; van Amersfoort et al. 2020 for snip and grasp; Alizadeh
    et al. 2022, section 4.3, for prospr.

    Args:
        units: of the model, as :func:`find_units` returns them.
        batches: one pair (inputs, targets) or an iterable of pairs.
        compute_aware: divide each score by the multiply-adds that removing the unit alone from
            the dense network saves, of its rows and its columns at their layers' output size, so
            that what counts is the sensitivity per multiply-add (van Amersfoort et al. 2020).
        options: of the method: ``seed`` of "random", ``temperature`` of "grasp", ``steps`` and
            ``lr`` of "prospr" and so on, as for the criterion of single weights.

    Raises:
        ValueError: the method is not one of these, the data does not fit the model, a score is
            not finite, or an option is out of range.
    """
    criterion = look_up(CHANNEL_METHODS, method, "method for channels")
    scores = criterion(model, batches, units, **options)
    if compute_aware:
        scores = scores / units.multiply_adds().to(scores)
    return Scores(split(scores, units))


def find_model_units(model: nn.Module, batch: Batch) -> Units:
    """Return the units of a model, by following the first inputs of a batch.

    Raises:
        ValueError: as :func:`find_units`, the batch does not fit, or there is no unit.
    """
    inputs, targets = batch
    check_inputs(model, inputs, targets)
    units = find_units(model, inputs[:TRACED_INPUTS])
    if not units.groups:
        raise ValueError(
            f"{type(model).__name__} has no channel that can be removed: the outputs of its last "
            "layer are the classes. It needs at least two layers in sequence."
        )
    return units


def split(vector: Tensor, units: Units) -> dict[str, Tensor]:
    """Return a vector with one entry a unit as one vector a group."""
    parts = vector.split(list(units.groups.values()))
    return dict(zip(units.groups, parts, strict=True))


def score_random(model: nn.Module, _batches: Batches, units: Units, *, seed: int = 0) -> Tensor:
    """Return uniform noise, one score a unit."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(units.size, generator=generator, dtype=torch.float64)
    return noise.to(next(model.parameters()).device)


def score_magnitude(model: nn.Module, _batches: Batches, units: Units) -> Tensor:
    """Return the sum of absolute weights of a row, averaged over the rows of each unit."""
    norms = {n: w.abs().flatten(1).sum(1) for n, w in detached_weights(model).items()}
    ones = {name: torch.ones_like(norm) for name, norm in norms.items()}
    return units.total_rows(norms) / units.total_rows(ones)


def score_gate(
    model: nn.Module,
    batches: Batches,
    units: Units,
    *,
    derivative: Callable[..., dict[str, Tensor]],
    signed: bool = False,
    **options: Any,
) -> Tensor:
    """Return the derivative in each unit's gate, the sum of w * derivative over its columns."""
    found = derivative(model, batches, **options)
    products = {name: w * found[name] for name, w in detached_weights(model).items()}
    sums = {name: p.transpose(0, 1).flatten(1).sum(1) for name, p in products.items()}
    scores = units.total_columns(sums)
    return scores if signed else scores.abs()


#: The functions ``(model, batches, units, **options) -> scores`` by name of the method.
CHANNEL_METHODS: dict[str, Callable[..., Tensor]] = {
    "random": score_random,
    "magnitude": score_magnitude,
    "snip": partial(score_gate, derivative=mean_gradient),
    "grasp": partial(
        score_gate, derivative=partial(hessian_gradient_product, temperature=200.0), signed=True
    ),
    "prospr": partial(score_gate, derivative=meta_gradient),
    "prospr-first-order": partial(score_gate, derivative=first_order_gradient),
}
