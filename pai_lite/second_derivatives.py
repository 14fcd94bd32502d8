"""BatchNorm and convolution with their second derivatives worked out by hand.

A Hessian-vector product differentiates the backward pass. PyTorch takes BatchNorm's through a long
chain of elementwise operations, each of which reads and writes every activation, and that of a
convolution through rearranged copies. Together they cost about as much as a whole forward and
backward pass. Here both are a few fused calls.

BatchNorm: per channel with N values, let x^ = (x - mean) / sigma, sigma = sqrt(variance + eps), and
P(z) = z - mean(z) - x^ mean(z x^), which is symmetric. The layer is y = gamma x^ + beta, and its
backward pass takes g = dL/dy to

    dL/dx = gamma / sigma P(g),    dL/dgamma = sum(g x^),    dL/dbeta = sum(g).

Let v, s and t be the derivatives of some number in these three. With p = mean(v x^),
q = mean(g x^), a = mean(v g) - mean(v) mean(g) - p q, and d sigma / dx = x^ / N, the derivatives
of that number are

    in g        gamma / sigma P(v) + s x^ + t
    in gamma    N a / sigma
    in x        1 / sigma P(s g - gamma / sigma (q v + p g)) - gamma / sigma^2 a x^.

Convolution: y = x * w is linear in x and in w. Its backward pass takes g to dL/dx = X(g, w) and
dL/dw = W(g, x), the two adjoints of the convolution. With v and s the derivatives in these, those
of the number are v * w + x * s in g, X(g, s) in x, and W(g, v) in w.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class AnalyticDerivatives(TorchFunctionMode):
    """Inside this context a loss can be differentiated twice at less cost.

    It concerns two-dimensional convolutions, and BatchNorm with batch statistics and a scale and
    shift, whose running statistics are not updated. All else is PyTorch's own.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Replace calls of ``F.batch_norm`` and ``F.conv2d``, and pass on all others."""
        return REPLACED.get(func, func)(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise as ``torch.nn.functional.batch_norm`` does, without touching its statistics."""
    one_value = x.numel() == x.shape[1]  # PyTorch refuses that, with a good message
    if not training or weight is None or bias is None or one_value:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return _BatchNorm.apply(x, weight, bias, eps)


class _BatchNorm(torch.autograd.Function):
    """y from x, gamma and beta."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        y, mean, inverse = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, gamma, mean, inverse)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_BatchNormBackward.apply(g, *ctx.saved_tensors, ctx.eps), None


class _BatchNormBackward(torch.autograd.Function):
    """dL/dx, dL/dgamma and dL/dbeta from g = dL/dy."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float
    ) -> tuple[Tensor, ...]:
        found = _fused(g, x, gamma, mean, inverse, eps)
        ctx.save_for_backward(g, x, gamma, mean, inverse, found[1], found[2])
        ctx.eps = eps
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor | None, ...]:
        g, x, gamma, mean, inverse, sum_gx, sum_g = ctx.saved_tensors
        n, scale = g.numel() // g.shape[1], gamma * inverse

        def spread(z: Tensor) -> Tensor:
            """Return one value a channel, in a shape that multiplies activations."""
            return z.view(1, -1, *[1] * (g.dim() - 2))

        in_g, sum_vx, sum_v = _fused(v, x, gamma, mean, inverse, ctx.eps)
        p, q = sum_vx / n, sum_gx / n
        sum_vg = _channel_products(v, g)
        a = sum_vg / n - sum_v * sum_g / n**2 - p * q
        # x^ enters as x / sigma - mean / sigma, so that it need not be formed.
        in_g.addcmul_(x, spread(s * inverse)).add_(spread(t - s * inverse * mean))
        mixed = (g * spread(s - scale * p)).addcmul_(v, spread(-scale * q))
        in_x, _, _ = _fused(mixed, x, torch.ones_like(gamma), mean, inverse, ctx.eps)
        bend = scale * inverse**2 * a
        in_x.addcmul_(x, spread(-bend)).add_(spread(bend * mean))
        return in_g, in_x, n * a * inverse, None, None, None


def _fused(
    z: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return gamma / sigma P(z), sum(z x^) and sum(z), in one call."""
    return torch.ops.aten.native_batch_norm_backward(
        z, x, gamma, None, None, mean, inverse, True, eps, [True, True, True]
    )


def _channel_products(v: Tensor, g: Tensor) -> Tensor:
    """Return sum(v g), by the same fused call: with mean 0 and sigma 1, x^ is x."""
    zeros, ones = v.new_zeros(v.shape[1]), v.new_ones(v.shape[1])
    return torch.ops.aten.native_batch_norm_backward(
        v, g, None, None, None, zeros, ones, True, 0.0, [False, True, False]
    )[1]


Pair = tuple[int, int]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolve as ``torch.nn.functional.conv2d`` does."""
    if x.dim() != 4 or isinstance(padding, str) or not x.requires_grad:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    pairs = [(n, n) if isinstance(n, int) else tuple(n) for n in (stride, padding, dilation)]
    y = _Convolution.apply(x, weight, (*pairs, False, (0, 0), groups))
    return y if bias is None else y + bias.view(1, -1, 1, 1)


class _Convolution(torch.autograd.Function):
    """y from x and w; the geometry is stride, padding, dilation, transposed, padding, groups."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, geometry: tuple) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        return torch.ops.aten.convolution(x, w, None, *geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_ConvolutionBackward.apply(g, *ctx.saved_tensors, ctx.geometry), None


class _ConvolutionBackward(torch.autograd.Function):
    """dL/dx and dL/dw from g = dL/dy."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: tuple
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(g, x, w)
        ctx.geometry = geometry
        in_x, in_w, _ = _adjoints(g, x, w, geometry, [True, True, False])
        return in_x, in_w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor, s: Tensor) -> tuple[Tensor | None, ...]:
        (g, x, w), convolve = ctx.saved_tensors, torch.ops.aten.convolution
        in_g = convolve(v, w, None, *ctx.geometry).add_(convolve(x, s, None, *ctx.geometry))
        in_x, _, _ = _adjoints(g, x, s, ctx.geometry, [True, False, False])
        _, in_w, _ = _adjoints(g, v, w, ctx.geometry, [False, True, False])
        return in_g, in_x, in_w, None


def _adjoints(g: Tensor, x: Tensor, w: Tensor, geometry: tuple, wanted: list[bool]) -> Any:
    """Return X(g, w), W(g, x) and the bias's gradient, those of them that are wanted."""
    return torch.ops.aten.convolution_backward(g, x, w, None, *geometry, wanted)


REPLACED: dict[Callable, Callable] = {F.batch_norm: batch_norm, F.conv2d: conv2d}
