"""References to compare with: the shortest correct code, in the style of the public code."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

import pai_lite as pai

Batch = tuple[Tensor, Tensor]


def one_pass(model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """Return the gradient in all parameters: one forward and one backward pass."""
    loss = F.cross_entropy(model(batch[0]), batch[1])
    return torch.autograd.grad(loss, list(model.parameters()))


def grasp(model: nn.Module, batch: Batch, temperature: float = 200.0) -> dict[str, Tensor]:
    """Return w * (H g), with g from a pass of its own.

    The second pass is differentiated twice, through the inner product of its gradient with g.
    """
    named = pai.prunable_parameters(model)
    weights = list(named.values())
    loss = F.cross_entropy(model(batch[0]) / temperature, batch[1])
    held = torch.autograd.grad(loss, weights)
    loss = F.cross_entropy(model(batch[0]) / temperature, batch[1])
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    inner = sum((a * b).sum() for a, b in zip(held, gradients, strict=True))
    products = torch.autograd.grad(inner, weights)
    return {n: w.detach() * h for (n, w), h in zip(named.items(), products, strict=True)}


def synflow(
    model: nn.Module, batch: Batch, sparsity: float, steps: int = 100
) -> Iterator[dict[str, Tensor]]:
    """Yield the mask after each step of iterated SynFlow.

    Every step rescales all scores by their sum, concatenates them and sorts them.
    """
    model = path_norm_network(model)
    weights = {name: w.detach().abs() for name, w in pai.prunable_parameters(model).items()}
    size = sum(w.numel() for w in weights.values())
    mask = {name: torch.ones_like(w) for name, w in weights.items()}
    ones = torch.ones_like(batch[0][:1], dtype=torch.float64)
    for kept in pai.schedule_counts(size, sparsity, steps=steps, schedule="exponential"):
        point = {name: (w * mask[name]).requires_grad_() for name, w in weights.items()}
        norm = functional_call(model, point, (ones,)).sum()
        gradients = torch.autograd.grad(norm, list(point.values()))
        scores = [w.detach() * g for w, g in zip(point.values(), gradients, strict=True)]
        total = torch.cat([z.flatten() for z in scores]).sum()
        scores = [z / total for z in scores]
        order = torch.sort(torch.cat([z.flatten() for z in scores]), descending=True)
        threshold = order.values[kept - 1]
        mask = {n: (z >= threshold).double() for n, z in zip(mask, scores, strict=True)}
        yield mask


def path_norm_network(model: nn.Module) -> nn.Module:
    """Return a copy in float64 without biases and with BatchNorm as the identity."""
    model = pai.copy_model(model).double().eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_parameters()
            module.eps = 0.0
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    return model
