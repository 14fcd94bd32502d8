"""BatchNorm in train mode, with its second derivatives worked out by hand.

PyTorch differentiates BatchNorm's backward pass through a long chain of elementwise operations,
each of which reads and writes every activation. In a Hessian-vector product of a residual network
that chain costs about a whole forward and backward pass. Here the chain is two fused calls.

Per channel with N values, let x^ = (x - mean) / sigma, sigma = sqrt(variance + eps), and
P(z) = z - mean(z) - x^ mean(z x^), which is symmetric. BatchNorm is y = gamma x^ + beta, and its
backward pass takes g = dL/dy to

    dL/dx = gamma / sigma P(g),    dL/dgamma = sum(g x^),    dL/dbeta = sum(g).

Let v, s and t be the derivatives of some number in these three. With p = mean(v x^),
q = mean(g x^), a = mean(v g) - mean(v) mean(g) - p q, and d sigma / dx = x^ / N, the derivatives
of that number are

    in g        gamma / sigma P(v) + s x^ + t
    in gamma    N a / sigma
    in x        1 / sigma P(s g - gamma / sigma (q v + p g)) - gamma / sigma^2 a x^.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class AnalyticBatchNorm(TorchFunctionMode):
    """Inside this context a loss can be differentiated twice at less cost.

    It concerns BatchNorm with batch statistics and a scale and shift; running statistics are not
    updated. All else, and BatchNorm in eval mode, is PyTorch's own.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Replace calls of ``torch.nn.functional.batch_norm``, and pass on all others."""
        return (batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


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
    return _Forward.apply(x, weight, bias, eps)


class _Forward(torch.autograd.Function):
    """y from x, gamma and beta."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
        y, mean, inverse = torch.native_batch_norm(x, gamma, beta, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, gamma, mean, inverse)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_Backward.apply(g, *ctx.saved_tensors, ctx.eps), None


class _Backward(torch.autograd.Function):
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
        sum_vg = torch.einsum("nc...,nc...->c", v, g)
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
