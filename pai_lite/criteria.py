"""Criteria: functions from a model and data to one score per prunable weight.

Every criterion has the form ``criterion(model, batches, **options) -> Scores``.
It leaves the model as it found it: weights, gradients, buffers such as BatchNorm's statistics,
train or eval mode, and the state of every random number generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pai_lite.masks import preserved_modes, prunable_parameters
from pai_lite.scores import Scores

Batch = tuple[Tensor, Tensor]
Batches = Batch | Iterable[Batch]

BATCHNORM_MODES = ("train", "eval")


def random(model: nn.Module, _batches: Batches | None = None, *, seed: int = 0) -> Scores:
    """Score every weight with uniform noise: the baseline that any proposal should surpass.

    Like every criterion it may be called with batches, which it does not look at.

    Args:
        seed: of the noise; the global generators are not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    return Scores(
        {
            name: torch.rand(weight.shape, generator=generator, dtype=torch.float64).to(weight)
            for name, weight in prunable_parameters(model).items()
        }
    )


def magnitude(model: nn.Module, _batches: Batches | None = None) -> Scores:
    """Score every weight with its absolute value, abs(w).

    Like every criterion it may be called with batches, which it does not look at.
    """
    return Scores({name: w.detach().abs() for name, w in prunable_parameters(model).items()})


def snip(model: nn.Module, batches: Batches, *, batchnorm: str = "train") -> Scores:
    """Score every weight with its connection sensitivity, abs(w * g).

    g is the gradient of the mean cross-entropy, averaged over the batches before the absolute
    value is taken.

    Source: Lee et al. 2019, section 4; Frankle et al. 2021, appendix B.2;
    de Jorge et al. 2021, eq. 2.

    Args:
        batches: one pair (inputs, targets) or an iterable of pairs.
        batchnorm: "train" normalises with the statistics of each batch, "eval" with the running
            statistics. Dropout is off in both.

    Raises:
        ValueError: a batch does not fit the model, there is no batch, or a score is not finite.
    """
    weights = prunable_parameters(model)
    gradients = mean_gradient(model, batches, batchnorm=batchnorm)
    return Scores({name: (w.detach() * gradients[name]).abs() for name, w in weights.items()})


def mean_gradient(
    model: nn.Module, batches: Batches, *, batchnorm: str = "train"
) -> dict[str, Tensor]:
    """Return the gradient of the cross-entropy in the prunable weights, averaged over batches.

    Each batch counts the same, whatever its size.

    Raises:
        ValueError: as :func:`snip`.
    """
    weights = {n: w.detach().requires_grad_() for n, w in prunable_parameters(model).items()}
    # The forward pass updates BatchNorm's statistics: let it update a copy.
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    used = 0
    with scoring_mode(model, batchnorm), torch.enable_grad():
        for inputs, targets in iterate(batches):
            check_inputs(model, inputs, targets)
            outputs = functional_call(model, {**weights, **buffers}, (inputs,))
            check_targets(outputs, targets)
            loss = F.cross_entropy(outputs, targets)
            gradients = torch.autograd.grad(loss, list(weights.values()))
            for name, gradient in zip(weights, gradients, strict=True):
                total[name] += gradient
            used += 1
    if used == 0:
        raise ValueError("No batch was given; this criterion needs at least one.")
    return {name: gradient / used for name, gradient in total.items()}


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
    for item in batches:
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise ValueError(
                f"A batch is a pair (inputs, targets); an item of type {type(item).__name__} "
                "was given."
            )
        yield tuple(item)


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
