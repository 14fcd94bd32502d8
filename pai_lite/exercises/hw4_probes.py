"""What the checks of the fourth assignment call a student's functions on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pai_lite.exercises.engine import same

Loss = Callable[[Any], Tensor]

WEIGHTS = torch.tensor([0.8, -0.5, 1.2], dtype=torch.float64)
POINTS = torch.tensor([[1.0, 0.5, -0.4], [-0.6, 1.1, 0.3], [0.2, -0.7, 0.9]], dtype=torch.float64)
ALPHAS = [0.5, 0.2]
# What training on the three losses with momentum 0.6 and weight decay 0.4 makes of the weights.
PATH = [
    WEIGHTS,
    torch.tensor([-0.25877550, -0.58688775, 1.06351020], dtype=torch.float64),
    torch.tensor([-0.35530321, -0.63554460, 0.86740638], dtype=torch.float64),
]
NETWORK = [
    torch.tensor([[0.6, -0.9], [1.1, 0.4]], dtype=torch.float64),
    torch.tensor([0.3, -0.7], dtype=torch.float64),
    torch.tensor([[[[0.7, -0.4]]]], dtype=torch.float64),
]


def losses() -> list[Loss]:
    """Return three losses of a vector of three weights, none of them quadratic."""
    return [lambda w, x=x: (w @ x).sin() + (w * x).square().sum() / 2 for x in POINTS]


def network_losses() -> list[Loss]:
    """Return three losses of a matrix, a bias and a kernel of four dimensions."""

    def loss(v: list[Tensor], x: Tensor) -> Tensor:
        dense = (v[0] @ x + v[1]).tanh().square().sum() + v[0].prod()
        return dense + (v[2].flatten() @ x + v[1].sum()).sin()

    return [lambda v, x=x: loss(v, x) for x in POINTS[:, :2]]


def trial(call: Callable, right: Any, given: list[Tensor], order: tuple[int, ...]) -> Any:
    """Return what is found on tensors, or if it is right, in a word the promise that is broken.

    Args:
        call: takes three losses, of vectors or of networks, and copies of the tensors.
        order: in which the losses must be called; empty if it does not matter.
    """
    called: list[int] = []

    def watched(number: int, loss: Loss) -> Loss:
        return lambda w: (called.append(number), loss(w))[1]

    made, held = network_losses() if given is NETWORK else losses(), [v.clone() for v in given]
    found = call([watched(number, loss) for number, loss in enumerate(made)], held)
    if not same(found, right):
        return found
    results = found if isinstance(found, list | tuple) else [found]
    kept = len(held) == len(given) and all(map(torch.equal, held, given))
    if not kept or any(v.requires_grad for v in held):
        return "changed"
    if any(z.requires_grad for z in results):
        return "attached"
    if order and tuple(called) != order:
        return "calls"
    return found if all(z.dtype == torch.float64 for z in results) else "dtype"
