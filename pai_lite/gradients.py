"""Gradients and Hessian-gradient products of the loss in the prunable weights.

Nothing here touches the model: weights and buffers are handed to the forward pass as copies, and
the train or eval mode of every module is restored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pai_lite.distributed import mean_over_ranks, ranks
from pai_lite.masks import Mask, check_fit, preserved_modes, prunable_parameters
from pai_lite.second_derivatives import AnalyticDerivatives

Batch = tuple[Tensor, Tensor]
Batches = Batch | Iterable[Batch]

BATCHNORM_MODES = ("train", "eval")


def detached_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the prunable weights, detached: they share memory and are not to be written to."""
    return {name: weight.detach() for name, weight in prunable_parameters(model).items()}


def mean_gradient(
    model: nn.Module,
    batches: Batches,
    *,
    mask: Mask | None = None,
    batchnorm: str = "train",
    temperature: float = 1.0,
) -> dict[str, Tensor]:
    """Return the gradient of the cross-entropy in the prunable weights, averaged over batches.

    Each batch counts the same, whatever its size. Where several processes act as one, the average
    is over the batches of all of them, of which each passes its own.

    Args:
        mask: take it at the pruned network m * w, at removed weights too.
        batchnorm: as for :func:`snip`.
        temperature: divides the logits.

    Raises:
        ValueError: as :func:`snip`.
    """
    with scoring_mode(model, batchnorm), torch.enable_grad():
        weights, total = leaves(model, mask), []
        for used, batch in enumerate(iterate(batches), start=1):  # noqa: B007, there is one
            loss = batch_loss(model, weights, batch, temperature)
            found = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
            total = added(total, found)
    return mean_over_ranks(dict(zip(weights, total, strict=True)), used)


def hessian_gradient_product(
    model: nn.Module,
    batches: Batches,
    *,
    temperature: float = 1.0,
    mask: Mask | None = None,
    batchnorm: str = "train",
) -> dict[str, Tensor]:
    """Return H g without forming H, by differentiating g once more along a held copy of itself.

    With one batch the gradient is read off the graph that is differentiated again; with several
    the averaged gradient comes from a pass of its own.

    Source: Pearlmutter 1994; Wang et al. 2020, eq. 8.

    Args:
        temperature, mask, batchnorm: as for :func:`grasp`.

    Raises:
        ValueError: as :func:`grasp`.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be positive, for example 200.")
    batches = repeatable(batches)
    options = {"mask": mask, "batchnorm": batchnorm, "temperature": temperature}
    alone = len(list(islice(iterate(batches), 2))) == 1 and ranks() == 1
    average = None if alone else mean_gradient(model, batches, **options)
    with scoring_mode(model, batchnorm), torch.enable_grad():
        weights, total = leaves(model, mask), []
        for used, batch in enumerate(iterate(batches), start=1):  # noqa: B007, there is one
            with AnalyticDerivatives():
                loss = batch_loss(model, weights, batch, temperature)
            inputs = list(weights.values())
            g = torch.autograd.grad(loss, inputs, create_graph=True, materialize_grads=True)
            held = [x.detach() for x in g] if average is None else list(average.values())
            total = added(total, torch.autograd.grad(g, inputs, held, materialize_grads=True))
    return mean_over_ranks(dict(zip(weights, total, strict=True)), used)


def added(total: list[Tensor], found: Sequence[Tensor]) -> list[Tensor]:
    """Return the sum of two lists of tensors, or the second where the first is empty."""
    return [a + b for a, b in zip(total, found, strict=True)] if total else list(found)


def pruned(model: nn.Module, mask: Mask | None) -> dict[str, Tensor]:
    """Return m * w, detached; without a mask the weights themselves, not to be written to."""
    weights = detached_weights(model)
    if mask is None:
        return weights
    check_fit(mask, model, "mask")
    return {n: w.masked_fill(~mask[n].to(w.device), 0.0) for n, w in weights.items()}


def leaves(model: nn.Module, mask: Mask | None) -> dict[str, Tensor]:
    """Return the weights at which a gradient is taken, m * w, as new leaves of a graph."""
    return {n: weight.detach().requires_grad_() for n, weight in pruned(model, mask).items()}


def batch_loss(
    model: nn.Module, weights: dict[str, Tensor], batch: Batch, temperature: float = 1.0
) -> Tensor:
    """Return the mean cross-entropy of a batch, computed with the given weights."""
    inputs, targets = batch
    check_inputs(model, inputs, targets)
    # The forward pass updates BatchNorm's statistics: let it update a copy.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    outputs = functional_call(model, {**weights, **buffers}, (inputs,))
    check_targets(outputs, targets)
    return F.cross_entropy(outputs / temperature, targets)


def iterate(batches: Batches) -> Iterator[Batch]:
    """Yield pairs (inputs, targets) from one pair or from an iterable of pairs.

    Raises:
        ValueError: there is no data, or an item is not a pair.
    """
    if batches is None:
        raise ValueError("This criterion needs data; pass batches, for example data.batch().")
    is_pair = isinstance(batches, tuple | list) and len(batches) == 2
    if is_pair and isinstance(batches[0], Tensor):
        yield tuple(batches)
        return
    item = None
    for item in batches:
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise ValueError(
                f"A batch is a pair (inputs, targets); an item of type {type(item).__name__} "
                "was given."
            )
        yield tuple(item)
    if item is None:
        raise ValueError("No batch was given; this criterion needs at least one.")


def repeatable(batches: Batches) -> Batches:
    """Return batches that can be iterated over again; an iterator's are held in a list."""
    return list(iterate(batches)) if isinstance(batches, Iterator) else batches


def check_inputs(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    """Raise a ``ValueError`` where type, device, dtype or length do not fit."""
    if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
        raise ValueError(
            f"A batch is a pair of tensors; {type(inputs).__name__} and {type(targets).__name__} "
            "were given. Convert them with torch.from_numpy or torch.tensor."
        )
    weight = next(iter(prunable_parameters(model).values()))
    if inputs.dtype != weight.dtype:
        raise ValueError(
            f"The inputs have dtype {inputs.dtype}, the model {weight.dtype}; "
            f"convert them with inputs.to({weight.dtype})."
        )
    if inputs.device != weight.device or targets.device != weight.device:
        raise ValueError(
            f"The batch is on {inputs.device} and {targets.device}, the model on "
            f"{weight.device}; move the batch with .to({str(weight.device)!r})."
        )
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise ValueError(
            f"The batch has {len(inputs)} inputs and {len(targets)} targets; "
            "it needs equally many, and at least one."
        )


def check_targets(outputs: Tensor, targets: Tensor) -> None:
    """Raise a ``ValueError`` unless every target is a class that the model has an output for."""
    classes = outputs.shape[1]
    if targets.dtype != torch.int64 or targets.dim() != 1:
        raise ValueError(
            f"The targets have dtype {targets.dtype} and shape {tuple(targets.shape)}; "
            "they must be class numbers, int64 of shape (n,)."
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"The targets run from {low} to {high}; the model has {classes} classes, "
            f"so they must lie in 0 to {classes - 1}."
        )


@contextmanager
def scoring_mode(model: nn.Module, batchnorm: str) -> Iterator[None]:
    """Switch dropout off and BatchNorm to the given mode, and restore every mode afterwards.

    Raises:
        ValueError: the mode is neither "train" nor "eval".
    """
    if batchnorm not in BATCHNORM_MODES:
        raise ValueError(f"batchnorm is {batchnorm!r}; it must be one of {BATCHNORM_MODES}.")
    with preserved_modes(model):
        for module in model.modules():
            is_batchnorm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            module.training = is_batchnorm and batchnorm == "train"
        yield
