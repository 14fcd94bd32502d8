"""Paths: which weights still join an input to an output, and how much all paths weigh.

A path runs from an input to an output through kept weights, and through whatever lies between
the layers: additions, concatenations, pooling, strides, padding and activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from pai_lite.criteria import sum_of_paths
from pai_lite.gradients import Batches, iterate, scoring_mode
from pai_lite.masks import Mask, check_fit

#: The functions behind prunable layers.
LAYERS = {"linear", "conv1d", "conv2d", "conv3d"}

#: Functions that end no path and start none: activations, normalisation and dropout.
NEUTRAL = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu"),
    *("mish", "softplus", "softsign", "tanh", "sigmoid", "log_sigmoid", "tanhshrink", "clamp"),
    *("hardtanh", "hardswish", "hardsigmoid", "softshrink", "hardshrink", "threshold"),
    *("softmax", "log_softmax", "batch_norm", "instance_norm", "group_norm", "layer_norm"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
}

#: Functions whose gradient leaves out some of the paths, or whose paths depend on the values.
REFUSED = {
    *("max", "amax", "maximum", "fmax", "min", "amin", "minimum", "fmin", "topk"),
    *("matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"),
    *("multi_head_attention_forward", "fractional_max_pool2d", "lp_pool2d"),
}


def path_norm(model: nn.Module, batches: Batches, *, mask: Mask | None = None) -> float:
    """Return R, the sum over all paths from input to output of the product of abs(w) on them.

    R is computed as the sum of the outputs for an input of ones, in float64, of the network with
    abs(w) in place of w, without biases, and with BatchNorm as the identity. It is the sum over
    paths where the activations are ReLU and the pooling is by averages; max-pooling counts the
    heaviest place of each window only.

    Source: Tanaka et al. 2020; Frankle et al. 2021, appendix D.5.

    Args:
        batches: only the shape of one input is used, not its values.
        mask: of the pruned network m * w; all weights are kept without one.

    Raises:
        ValueError: there is no batch, the mask does not fit, or a BatchNorm keeps no running
            statistics.
    """
    return float(sum_of_paths(model, batches, mask, torch.float64)[1].detach())


def effective_mask(model: nn.Module, batches: Batches, mask: Mask) -> Mask:
    """Return the mask without the weights that lie on no path from an input to an output.

    The network runs with weights of 0 and 1 on an input of ones: a kept weight is on a path where
    signal comes in and gradient comes back. After each layer both are cut down to whether they
    are positive, so that no depth makes them overflow or vanish.

    Activations and normalisation hand every signal on; biases are no signal, and neither are
    constants such as softplus(0). A weight of a kernel that only meets padding is on no path.
    The product of two signals, as of a gate and what it gates, is reached from both.

    Source: Frankle et al. 2021, appendix M, for networks of any depth and with max-pooling.

    Args:
        batches: only the shape of one input is used, not its values.
        mask: of the pruned network.

    Raises:
        ValueError: there is no batch, the mask does not fit, or the network uses an operation
            whose paths are not followed, such as attention.
    """
    check_fit(mask, model, "mask")
    inputs, _ = next(iterate(batches))
    ones = torch.ones_like(inputs[:1], dtype=torch.float64)
    with scoring_mode(model, "eval"), torch.enable_grad():
        weights = {n: m.to(ones).requires_grad_() for n, m in mask.items()}
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        with PathFollowing():
            outputs = functional_call(model, {**weights, **buffers}, (ones,))
        gradients = torch.autograd.grad(
            outputs.sum(), list(weights.values()), materialize_grads=True
        )
    found = zip(mask.items(), gradients, strict=True)
    return Mask({name: kept & (g > 0).to(kept.device) for (name, kept), g in found})


class Positive(torch.autograd.Function):
    """Cut the signal, and on the way back the gradient, down to whether it is positive."""

    @staticmethod
    def forward(_ctx: Any, signal: Tensor) -> Tensor:
        """Return 1 where the signal is positive and 0 elsewhere."""
        return (signal > 0).to(signal)

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        """Return 1 where the gradient is positive and 0 elsewhere."""
        return (gradient > 0).to(gradient)


class PathFollowing(TorchFunctionMode):
    """Let every function called inside hand on whether signal arrives, and nothing else.

    Functions are told apart by name, which but for underscores is the same for ``torch.relu``,
    ``F.relu``, ``x.relu()`` and what works in place.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call a stand-in for layers, activations, max-pooling and products."""
        kwargs = kwargs or {}
        name = func.__name__.strip("_")
        if name in LAYERS:
            return positive_layer(func, *args, **kwargs)
        if name in NEUTRAL:
            return args[0] if args else kwargs["input"]
        if name.startswith("max_pool"):
            return mean_pool(name, *args, **kwargs)
        if name.startswith("adaptive_max_pool"):
            return getattr(F, name.replace("max", "avg"))(*args[:2])
        if name in ("mul", "imul") and all(is_signal(factor) for factor in args):
            return args[0] + args[1]
        if name in REFUSED:
            raise ValueError(
                f"The network calls {name}, through which paths are not followed. "
                "Analyse a network of layers, additions, pooling and activations."
            )
        return func(*args, **kwargs)


def positive_layer(
    func: Callable[..., Tensor],
    signal: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001, no path starts at a bias
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Return where the layer's outputs are reached."""
    return Positive.apply(func(signal, weight, None, *args, **kwargs))


def mean_pool(
    name: str,
    signal: Tensor,
    kernel_size: int | tuple[int, ...],
    stride: int | tuple[int, ...] | None = None,
    padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """Return averages in place of maxima: a maximum hands its gradient to one place of a tie."""
    dilations = dilation if isinstance(dilation, tuple) else (dilation,)
    if return_indices or any(d != 1 for d in dilations):
        raise ValueError(
            f"The network calls {name} with dilation {dilation} and return_indices "
            f"{return_indices}; paths are followed through pooling with 1 and False only."
        )
    average = getattr(F, name.replace("max", "avg"))
    return average(signal, kernel_size, stride, padding, ceil_mode)


def is_signal(value: Any) -> bool:
    """Say whether a value was computed from prunable weights, unlike a constant or parameter."""
    return isinstance(value, Tensor) and value.grad_fn is not None
