"""Gradients through the first training steps, for ProsPr.

M steps of SGD lead from w_0 to w_M. The meta-gradient is the derivative of the loss at w_M in the
weights w_0. One step, on its own batch, is

    d_t     = m (g_t + lambda w_t)                    the direction, of the weights that are kept
    u_{t+1} = mu u_t + s_t d_t                        the velocity; s_0 = 1, then 1 - dampening
    w_{t+1} = w_t - alpha u_{t+1}                     or, Nesterov's, w_t - alpha (d_t + mu u_{t+1})

with learning rate alpha, momentum mu, weight decay lambda and mask m, as torch.optim.SGD does it.
Read backwards, with a = dL/dw and b = dL/du, and H_t the Hessian at w_t on the batch of step t,
from a = dL/dw_M and b = 0:

    b <- b - alpha a                                  or, Nesterov's, b - alpha mu a
    v  = m s_t b                                      or, Nesterov's, m (s_t b - alpha a)
    a <- a + H_t v + lambda v
    b <- mu b

so that only the weights w_0 to w_M have to be kept, and one Hessian-vector product a step is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from pai_lite.distributed import mean_over_ranks
from pai_lite.gradients import (
    Batch,
    Batches,
    batch_loss,
    iterate,
    pruned,
    scoring_mode,
)
from pai_lite.masks import Mask, prunable_parameters
from pai_lite.second_derivatives import AnalyticDerivatives

Named = dict[str, Tensor]


@dataclass(frozen=True)
class SGD:
    """The settings of the inner steps; the names and their meaning are those of torch.optim.SGD.

    Raises:
        ValueError: a number is negative, or Nesterov's momentum is asked for without momentum or
            with dampening.
    """

    lr: float = 0.1
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError(
                f"nesterov=True with momentum {self.momentum} and dampening {self.dampening}: "
                "Nesterov's momentum needs a positive momentum and no dampening."
            )

    def share(self, t: int) -> float:
        """Return s_t, the share of the direction of step t that enters the velocity."""
        return 1.0 if t == 0 or self.momentum == 0 else 1.0 - self.dampening

    def step(
        self, t: int, weights: Named, velocity: Named, gradients: Named, mask: Mask | None
    ) -> tuple[Named, Named]:
        """Return the weights and the velocity after step t."""
        moved, faster = {}, {}
        for name, w in weights.items():
            g = gradients[name]
            d = masked(g.add(w, alpha=self.weight_decay) if self.weight_decay else g, name, mask)
            u = d
            if t > 0 and self.momentum:
                u = (self.share(t) * d).add(velocity[name], alpha=self.momentum)
            move = d.add(u, alpha=self.momentum) if self.nesterov else u
            moved[name], faster[name] = w.add(move, alpha=-self.lr), u
        return moved, faster

    def step_back(self, t: int, a: Named, b: Named, mask: Mask | None) -> tuple[Named, Named]:
        """Return v and the derivative in the velocity, from a and b, back through step t + 1.

        Without dampening, Nesterov's momentum and a mask the two are the same tensors.
        """
        vector, velocity = {}, {}
        ahead = self.momentum if self.nesterov else 1.0
        for name in a:
            back = b[name].add(a[name], alpha=-self.lr * ahead)
            v = self.share(t) * back if self.share(t) != 1.0 else back
            v = v.add(a[name], alpha=-self.lr) if self.nesterov else v
            vector[name] = masked(v, name, mask)
            velocity[name] = back
        return vector, velocity


def masked(tensor: Tensor, name: str, mask: Mask | None) -> Tensor:
    """Return the tensor with zeros at removed weights; parameters without a mask stay."""
    if mask is None or name not in mask:
        return tensor
    return tensor.masked_fill(~mask[name].to(tensor.device), 0.0)


def meta_gradient(
    model: nn.Module,
    batches: Batches,
    *,
    steps: int = 3,
    mask: Mask | None = None,
    batchnorm: str = "train",
    **sgd: float,
) -> dict[str, Tensor]:
    """Return dL(w_M)/dw_0 in the prunable weights, by the reverse sweep.

    All parameters are trained in the inner steps, biases and BatchNorm's too.
    Memory does not grow with M but for one copy of the weights a step.

    Source: Alizadeh et al. 2022, eq. 6 to 10.

    Args:
        steps, mask, batchnorm, sgd: as for :func:`prospr`.

    Raises:
        ValueError: as :func:`prospr`.
    """
    settings, batches = SGD(**sgd), take(batches, steps)
    with scoring_mode(model, batchnorm), torch.enable_grad():
        weights, path = descend(model, batches[:steps], settings, mask)
        a = gradient(model, weights, batches[steps])
        b = {name: torch.zeros_like(tensor) for name, tensor in a.items()}
        for t in reversed(range(steps)):
            weights, graph = path.pop()
            graph = GradientGraph(model, weights, batches[t]) if graph is None else graph
            a, b = sweep_back(t, a, b, graph, settings, mask)
    return {name: a[name] for name in prunable_parameters(model)}


def unrolled_meta_gradient(
    model: nn.Module,
    batches: Batches,
    *,
    steps: int = 3,
    mask: Mask | None = None,
    batchnorm: str = "train",
    **sgd: float,
) -> dict[str, Tensor]:
    """Return what :func:`meta_gradient` does, by differentiating the unrolled training steps.

    Shorter, and meant for teaching: the graph of every step is held until the end.

    Args:
        steps, mask, batchnorm, sgd: as for :func:`prospr`.

    Raises:
        ValueError: as :func:`prospr`.
    """
    settings, batches = SGD(**sgd), take(batches, steps)
    with scoring_mode(model, batchnorm), torch.enable_grad():
        start = {n: w.detach().requires_grad_() for n, w in initial_parameters(model, mask).items()}
        weights, velocity = start, {}
        for t, batch in enumerate(batches[:steps]):
            loss = batch_loss(model, weights, batch)
            g = torch.autograd.grad(
                loss, list(weights.values()), create_graph=True, materialize_grads=True
            )
            gradients = dict(zip(weights, g, strict=True))
            weights, velocity = settings.step(t, weights, velocity, gradients, mask)
        names = list(prunable_parameters(model))
        loss = batch_loss(model, weights, batches[steps])
        found = torch.autograd.grad(loss, [start[n] for n in names], materialize_grads=True)
    return dict(zip(names, found, strict=True))


def first_order_gradient(
    model: nn.Module,
    batches: Batches,
    *,
    steps: int = 3,
    mask: Mask | None = None,
    batchnorm: str = "train",
    **sgd: float,
) -> dict[str, Tensor]:
    """Return dL(w_M)/dw_M in the prunable weights: the meta-gradient with every Hessian at zero.

    Source: Alizadeh et al. 2022, eq. 16 and 17.

    Args:
        steps, mask, batchnorm, sgd: as for :func:`prospr`.

    Raises:
        ValueError: as :func:`prospr`.
    """
    settings, batches = SGD(**sgd), take(batches, steps)
    with scoring_mode(model, batchnorm), torch.enable_grad():
        weights, velocity = initial_parameters(model, mask), {}
        for t, batch in enumerate(batches[:steps]):
            g = gradient(model, weights, batch)
            weights, velocity = settings.step(t, weights, velocity, g, mask)
        last = gradient(model, weights, batches[steps])
    return {name: last[name] for name in prunable_parameters(model)}


def descend(
    model: nn.Module, batches: list[Batch], sgd: SGD, mask: Mask | None
) -> tuple[Named, list[tuple[Named, GradientGraph | None]]]:
    """Return the weights after the steps, and those before each of them.

    The sweep begins where the steps end: the graph of the last step's gradient is kept for it.
    """
    weights, velocity, path = initial_parameters(model, mask), {}, []
    for t, batch in enumerate(batches):
        graph = GradientGraph(model, weights, batch) if t == len(batches) - 1 else None
        g = gradient(model, weights, batch) if graph is None else graph.value()
        path.append((weights, graph))
        weights, velocity = sgd.step(t, weights, velocity, g, mask)
    return weights, path


def sweep_back(
    t: int, a: Named, b: Named, graph: GradientGraph, sgd: SGD, mask: Mask | None
) -> tuple[Named, Named]:
    """Return the derivatives a and b before step t + 1 from those after it."""
    v, back = sgd.step_back(t, a, b, mask)
    curved = graph.product(v)
    a = {name: a[name] + curved.pop(name) for name in list(a)}
    if sgd.weight_decay:
        a = {name: tensor.add_(v[name], alpha=sgd.weight_decay) for name, tensor in a.items()}
    # Only now, in place: one copy of the weights less while the product is formed.
    return a, {name: tensor.mul_(sgd.momentum) for name, tensor in back.items()}


def initial_parameters(model: nn.Module, mask: Mask | None) -> Named:
    """Return all parameters of the pruned network by name, detached."""
    everything = {name: tensor.detach() for name, tensor in model.named_parameters()}
    return everything | pruned(model, mask)


def gradient(model: nn.Module, weights: Named, batch: Batch) -> Named:
    """Return the gradient of the loss of one batch, or of one a rank, at the given parameters."""
    point = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
    loss = batch_loss(model, point, batch)
    found = torch.autograd.grad(loss, list(point.values()), materialize_grads=True)
    return mean_over_ranks(dict(zip(point, found, strict=True)))


class GradientGraph:
    """The gradient of one batch's loss, or of one batch a rank, with the graph that made it."""

    def __init__(self, model: nn.Module, weights: Named, batch: Batch) -> None:
        self.point = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
        with AnalyticDerivatives():
            loss = batch_loss(model, self.point, batch)
        self.gradients = torch.autograd.grad(
            loss, list(self.point.values()), create_graph=True, materialize_grads=True
        )

    def value(self) -> Named:
        """Return the gradient by name."""
        held = [g.detach() for g in self.gradients]
        return mean_over_ranks(dict(zip(self.point, held, strict=True)))

    def product(self, vector: Named) -> Named:
        """Return H v, the derivative of the gradient along v (Pearlmutter 1994); ends the graph."""
        found = torch.autograd.grad(
            self.gradients, list(self.point.values()), list(vector.values()), materialize_grads=True
        )
        return mean_over_ranks(dict(zip(self.point, found, strict=True)))


def take(batches: Batches, steps: int) -> list[Batch]:
    """Return the first M + 1 batches.

    Raises:
        ValueError: M is negative, or there are fewer batches.
    """
    if steps < 0:
        raise ValueError(f"steps is {steps}; choose 0 (this is SNIP) or more.")
    taken = list(islice(iterate(batches), steps + 1))
    if len(taken) < steps + 1:
        raise ValueError(
            f"steps={steps} needs {steps + 1} batches, one a step and one for the loss after "
            f"them; {len(taken)} given. Pass more, for example "
            f"[data.batch(seed=i) for i in range({steps + 1})], or fewer steps."
        )
    return taken
