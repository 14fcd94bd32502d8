"""Criteria: functions from a model and data to one score per prunable weight.

Every criterion has the form ``criterion(model, batches, **options) -> Scores``.
It leaves the model as it found it: weights, gradients, buffers such as BatchNorm's statistics,
train or eval mode, and the state of every random number generator.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from pai_lite.gradients import (
    Batches,
    detached_weights,
    hessian_gradient_product,
    iterate,
    leaves,
    mean_gradient,
)
from pai_lite.masks import Mask, prunable_parameters
from pai_lite.scores import Scores


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
    return Scores({name: weight.abs() for name, weight in detached_weights(model).items()})


def snip(
    model: nn.Module, batches: Batches, *, mask: Mask | None = None, batchnorm: str = "train"
) -> Scores:
    """Score every weight with its connection sensitivity, abs(w * g).

    g is the gradient of the mean cross-entropy, averaged over the batches before the absolute
    value is taken.

    Source: Lee et al. 2019, section 4; Frankle et al. 2021, appendix B.2;
    de Jorge et al. 2021, eq. 2 and, with a mask, eq. 5.

    Args:
        batches: one pair (inputs, targets) or an iterable of pairs.
        mask: take the gradient at the pruned network m * w; w in the score stays unpruned.
        batchnorm: "train" normalises with the statistics of each batch, "eval" with the running
            statistics. Dropout is off in both.

    Raises:
        ValueError: a batch or the mask does not fit the model, there is no batch, or a score is
            not finite.
    """
    gradients = mean_gradient(model, batches, mask=mask, batchnorm=batchnorm)
    return Scores({n: (w * gradients[n]).abs() for n, w in detached_weights(model).items()})


def grad_norm(
    model: nn.Module, batches: Batches, *, mask: Mask | None = None, batchnorm: str = "train"
) -> Scores:
    """Score every weight with its squared gradient, g^2: what it adds to the gradient's norm.

    Iterated, this is GRASP-It.

    Source: de Jorge et al. 2021, eq. 17.

    Args:
        batches, mask, batchnorm: as for :func:`snip`.

    Raises:
        ValueError: as :func:`snip`.
    """
    gradients = mean_gradient(model, batches, mask=mask, batchnorm=batchnorm)
    return Scores({name: gradient.square() for name, gradient in gradients.items()})


def grasp(
    model: nn.Module,
    batches: Batches,
    *,
    temperature: float = 200.0,
    mask: Mask | None = None,
    batchnorm: str = "train",
) -> Scores:
    """Score every weight with w * (H g), so that removal keeps the gradient's norm.

    To first order the squared norm of the gradient changes by -2 w_i (H g)_i when weight i is
    removed. The paper removes the weights with the largest -w * (H g); larger = keep turns the
    sign. H and g are those of the mean cross-entropy of the logits over a temperature, and both
    are averaged over the batches.

    Source: Wang et al. 2020, eq. 8; Frankle et al. 2021, appendix C.

    Args:
        temperature: divides the logits; 200 in the authors' code.
        batches, mask, batchnorm: as for :func:`snip`.

    Raises:
        ValueError: as :func:`snip`, or the temperature is not positive.
    """
    products = hessian_gradient_product(
        model, batches, temperature=temperature, mask=mask, batchnorm=batchnorm
    )
    return Scores({n: w * products[n] for n, w in detached_weights(model).items()})


def grasp_abs(
    model: nn.Module,
    batches: Batches,
    *,
    temperature: float = 200.0,
    mask: Mask | None = None,
    batchnorm: str = "train",
) -> Scores:
    """Score every weight with abs(w * (H g)).

    Source: Frankle et al. 2021, appendix H.

    Args:
        temperature, batches, mask, batchnorm: as for :func:`grasp`.

    Raises:
        ValueError: as :func:`grasp`.
    """
    options = {"temperature": temperature, "mask": mask, "batchnorm": batchnorm}
    return Scores({name: z.abs() for name, z in grasp(model, batches, **options).items()})


def synflow(model: nn.Module, batches: Batches, *, mask: Mask | None = None) -> Scores:
    """Score every weight with its share of the path norm, abs(w * dR/dw).

    R is the sum of the outputs for an input of ones, in float64, of the network with abs(w) in
    place of w, without biases, and with BatchNorm as the identity. The score is the sum, over all
    paths from input to output through the weight, of the products of absolute weights.

    Source: Tanaka et al. 2020; Frankle et al. 2021, appendix D.

    Args:
        batches: only the shape of one input is used, not its values.
        mask: score m * w; a removed weight scores 0.

    Raises:
        ValueError: there is no batch, the mask does not fit, or a score is not finite.
    """
    inputs, _ = next(iterate(batches))
    with torch.enable_grad():
        linear = linearize(model)
        weights = {n: w.detach().abs().requires_grad_() for n, w in leaves(linear, mask).items()}
        ones = torch.ones_like(inputs[:1], dtype=torch.float64)
        outputs = functional_call(linear, weights, (ones,))
        gradients = torch.autograd.grad(outputs.sum(), list(weights.values()))
    pairs = zip(weights.items(), gradients, strict=True)
    return Scores({name: w.detach() * gradient for (name, w), gradient in pairs})


def linearize(model: nn.Module) -> nn.Module:
    """Return a copy in float64 and eval mode without biases, whose BatchNorm is the identity."""
    linear = copy.deepcopy(model).double().eval()
    for name, parameter in linear.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    for module in linear.modules():
        if isinstance(module, _BatchNorm):
            module.eps = 0.0
            module.reset_running_stats()
            if module.affine:
                module.weight.data.fill_(1.0)
    return linear
