"""Criteria: functions from a model and data to one score per prunable weight.

Every criterion has the form ``criterion(model, batches, **options) -> Scores``.
It leaves the model as it found it: weights, gradients, buffers such as BatchNorm's statistics,
train or eval mode, and the state of every random number generator.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from pai_lite.gradients import (
    Batches,
    detached_weights,
    hessian_gradient_product,
    iterate,
    mean_gradient,
    pruned,
    scoring_mode,
)
from pai_lite.masks import Mask, prunable_parameters
from pai_lite.meta_gradients import first_order_gradient, meta_gradient
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
    return Scores({n: (w * gradients[n]).abs_() for n, w in detached_weights(model).items()})


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


def prospr(
    model: nn.Module,
    batches: Batches,
    *,
    steps: int = 3,
    mask: Mask | None = None,
    batchnorm: str = "train",
    **sgd: float,
) -> Scores:
    """Score every weight with its effect on the loss after M steps of training.

    The score is abs(w * dL(w_M)/dw_0), with w the initial weights: the derivative in a mask that
    multiplies the initial weights, of the loss after the training steps. With M = 0 it is SNIP.

    Source: Alizadeh et al. 2022, eq. 3 to 12.

    Args:
        batches: at least M + 1; each step uses the next, and the loss the one after them.
        steps: M, the number of training steps.
        mask: start from m * w and keep the removed weights at zero while training; the score is
            that of all weights.
        batchnorm: as for :func:`snip`.
        sgd: lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, with the
            meaning that they have in torch.optim.SGD.

    Raises:
        ValueError: as :func:`snip`, or M is negative, there are fewer than M + 1 batches, or a
            setting is out of range.
    """
    found = meta_gradient(model, batches, steps=steps, mask=mask, batchnorm=batchnorm, **sgd)
    return Scores({n: (w * found[n]).abs_() for n, w in detached_weights(model).items()})


def prospr_first_order(
    model: nn.Module,
    batches: Batches,
    *,
    steps: int = 3,
    mask: Mask | None = None,
    batchnorm: str = "train",
    **sgd: float,
) -> Scores:
    """Score every weight with abs(w * dL(w_M)/dw_M): ProsPr without second derivatives.

    Source: Alizadeh et al. 2022, eq. 13 to 17.

    Args:
        batches, steps, mask, batchnorm, sgd: as for :func:`prospr`.

    Raises:
        ValueError: as :func:`prospr`.
    """
    options = {"steps": steps, "mask": mask, "batchnorm": batchnorm, **sgd}
    found = first_order_gradient(model, batches, **options)
    return Scores({n: (w * found[n]).abs_() for n, w in detached_weights(model).items()})


def synflow(
    model: nn.Module,
    batches: Batches,
    *,
    mask: Mask | None = None,
    dtype: torch.dtype = torch.float64,
) -> Scores:
    """Score every weight with its share of the path norm, abs(w * dR/dw).

    R is the sum of the outputs for an input of ones of the network with abs(w) in place of w,
    without biases, and with BatchNorm as the identity. The score is the sum, over all paths from
    input to output through the weight, of the products of absolute weights.

    Source: Tanaka et al. 2020; Frankle et al. 2021, appendix D.

    Args:
        batches: only the shape of one input is used, not its values.
        mask: score m * w; a removed weight scores 0.
        dtype: the precision; R of deep networks overflows torch.float32.

    Raises:
        ValueError: there is no batch, the mask does not fit, a BatchNorm keeps no running
            statistics, or R overflows.
    """
    weights, total = sum_of_paths(model, batches, mask, dtype)
    if not total.isfinite():
        raise ValueError(
            f"SynFlow's path norm R is {total.item()} in {dtype}: a product over many layers "
            "overflows. Use dtype=torch.float64; if that is in use, scale the weights down."
        )
    gradients = torch.autograd.grad(total, list(weights.values()))
    pairs = zip(weights.items(), gradients, strict=True)
    return Scores({name: w.detach() * gradient for (name, w), gradient in pairs})


def sum_of_paths(
    model: nn.Module, batches: Batches, mask: Mask | None, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Tensor]:
    """Return abs(m * w) as leaves of a graph, and R computed with them."""
    inputs, _ = next(iterate(batches))
    ones = torch.ones_like(inputs[:1], dtype=dtype)
    with scoring_mode(model, "eval"), torch.enable_grad():
        weights = {n: w.to(dtype).abs().requires_grad_() for n, w in pruned(model, mask).items()}
        state = neutral_state(model, dtype) | weights
        return weights, functional_call(model, state, (ones,)).sum()


def neutral_state(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return all that a model holds beside its prunable weights, such that it adds nothing.

    Biases are zero, and BatchNorm in eval mode is the identity.

    Raises:
        ValueError: a BatchNorm keeps no running statistics, so that its eval mode normalises.
    """
    prunable = prunable_parameters(model)
    held = [*model.named_parameters(), *model.named_buffers()]
    state = {
        name: torch.zeros_like(tensor, dtype=dtype) if name.endswith("bias") else tensor.detach()
        for name, tensor in held
        if name not in prunable
    }
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            if module.running_var is None:
                raise ValueError(
                    f"{name} keeps no running statistics, so that it cannot be made the identity; "
                    "build it with track_running_stats=True."
                )
            # The variance takes up eps: BatchNorm divides by the root of their sum.
            neutral = {"running_mean": 0.0, "running_var": 1.0 - module.eps, "weight": 1.0}
            for key, value in neutral.items():
                if (full := f"{name}.{key}".lstrip(".")) in state:
                    state[full] = torch.full_like(state[full], value, dtype=dtype)
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
