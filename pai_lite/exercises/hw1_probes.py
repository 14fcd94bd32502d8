"""What the checks of the first assignment call a student's functions on.

A probe returns the values that are compared, or says in words what is wrong with them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pai_lite.exercises.engine import or_value, returned, same

POINT = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
SCORES = (
    torch.tensor([[0.5, 0.1, 0.5], [0.0, 0.3, 0.5]], dtype=torch.float64),
    torch.tensor([0.5, 0.9, 0.1, -0.7], dtype=torch.float64),
)
DENSITIES = (0.36, 0.25)  # of 10 weights: 3.6, and 2.5, which goes to the even number
KEPT = [[[0, 2, 5], [1]], [[0], [1]]]
CLOSE = (torch.tensor([float("inf")]), torch.tensor([1.0, 1.0 + 1e-9], dtype=torch.float64))
CHAIN = (
    torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64),
    torch.tensor([[2.0, 1.0], [-1.0, 1.0]], dtype=torch.float64),
)
WIDTHS = ((4, 2), (1, 4), (3, 1))  # of the matrices of a longer chain


def cubic(w: Tensor) -> Tensor:
    """Return the mean loss of the first batch, whose gradient is 3 w squared."""
    return (w**3).sum()


def falling(w: Tensor) -> Tensor:
    """Return the mean loss of the second batch, whose gradient is -2 w."""
    return -(w**2).sum()


def powers(W: list[Tensor]) -> Tensor:
    """Return a loss whose gradients are 2 W[0], 3 W[1] squared and so on."""
    return torch.stack([(matrix**power).sum() for power, matrix in enumerate(W, 2)]).sum()


def weights(values: Tensor, needs: bool) -> Tensor:
    """Return a copy of values that already has a gradient, and may require more."""
    w = values.clone().requires_grad_(needs)
    w.grad = values.clone()
    return w


def touched(w: Tensor, values: Tensor, needs: bool) -> bool:
    """Say whether weights are no longer as they were made."""
    here = [w] if w.grad is None else [w, w.grad]
    return w.requires_grad != needs or sum(torch.equal(t, values) for t in here) < 2


def tensors(value: Any, shapes: list[torch.Size]) -> bool:
    """Say whether a value is a list of tensors of these shapes."""
    listed = isinstance(value, list | tuple) and all(isinstance(t, Tensor) for t in value)
    return listed and [t.shape for t in value] == shapes


@or_value
def probe_score(answer: Any) -> Any:
    """Call an answer on batches of one and of three examples; say in words if it changes w."""
    for needs in (False, True):
        w = weights(POINT, needs)
        scores = returned(answer, [cubic, falling], [1, 3], w)
        if touched(w, POINT, needs):
            return "w has changed"
        if not tensors([scores], [w.shape]) or scores.dtype != w.dtype:
            return "another kind"
    return "scores require gradients" if scores.requires_grad else scores


@or_value
def probe_masks(answer: Any) -> Any:
    """Return the flat indices kept in each layer for two densities, or say what is wrong."""
    layers = [z.clone() for z in SCORES]
    kept = [returned(answer, layers, density) for density in DENSITIES]
    if not all(tensors(masks, [z.shape for z in SCORES]) for masks in kept):
        return "another kind"
    if any(mask.dtype != torch.bool for masks in kept for mask in masks):
        return "not boolean"
    if any(not torch.equal(a, b) for a, b in zip(layers, SCORES, strict=True)):
        return "scores have changed"
    places = [[mask.flatten().nonzero().flatten().tolist() for mask in masks] for masks in kept]
    best = [selected(masks, SCORES) for masks in kept]
    if places != KEPT and best == [[0.5, 0.5, 0.5, 0.9], [0.5, 0.9]]:
        return "other equals"
    return places if places != KEPT else probe_edges(answer)


def selected(masks: list[Tensor], scores: tuple[Tensor, ...]) -> list[float]:
    """Return the scores that masks keep, in order."""
    return sorted(x for mask, z in zip(masks, scores, strict=True) for x in z[mask].tolist())


def probe_edges(answer: Any) -> Any:
    """Say in words if scores that are close mislead, or one that is infinite, or NaN."""
    best = selected(answer([z.clone() for z in CLOSE], 0.7), CLOSE)
    if best != [1.0 + 1e-9, float("inf")]:
        return "close scores taken for equal"
    try:
        answer([CLOSE[0].clone(), CLOSE[1] * float("nan")], 0.7)
    except ValueError:
        return KEPT
    return "NaN passes"


@or_value
def probe_collapse(answer: Any) -> Any:
    """Return k and the layer for one, two and five weights a layer."""
    found = [returned(answer, [z.clone() for z in SCORES], least) for least in (1, 2, 5)]
    if any(not isinstance(pair, tuple) or [type(x) for x in pair] != [int, int] for pair in found):
        return "another kind"
    return [list(pair) for pair in found]


@or_value
def probe_units(answer: Any) -> Any:
    """Return the sums for the chain of two layers, or say in words what is wrong."""
    W = [weights(matrix, True) for matrix in CHAIN]
    found = returned(answer, powers, W)
    if any(touched(w, matrix, True) for w, matrix in zip(W, CHAIN, strict=True)):
        return "W has changed"
    if not tensors(found, [CHAIN[0].shape]):
        return "another kind"
    if found[0].requires_grad:
        return "sums require gradients"
    return probe_depths(answer) if same(found, SUMS) else found


def probe_depths(answer: Any) -> Any:
    """Return the right sums if chains of three layers and of one are right too, else words."""
    for depth in (3, 1):
        W = [weights(torch.ones(shape), False) for shape in WIDTHS[:depth]]
        found = answer(powers, W)
        if any(touched(w, torch.ones(w.shape), False) for w in W):
            return "W has changed"
        if not tensors(found, [torch.Size((2, len(w))) for w in W[:-1]]):
            return "another length"
    return SUMS


def doubles(*numbers: float) -> Tensor:
    """Return numbers as a tensor of dtype float64."""
    return torch.tensor(numbers, dtype=torch.float64)


def sums(into: tuple[float, float], out: tuple[float, float]) -> list[Tensor]:
    """Return sums into and out of two units, as the fourth question wants them."""
    return [torch.stack([doubles(*into), doubles(*out)])]


SUMS = sums((10.0, 20.0), (21.0, 6.0))
