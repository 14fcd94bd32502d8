"""What the checks of the third assignment call a student's functions on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pai_lite.exercises.engine import or_value, returned

# A network with two inputs, two hidden units and one output, on three points.
POINTS = torch.tensor([[1.0, -0.5], [0.5, 2.0], [-1.0, 1.0]], dtype=torch.float64)
TARGETS = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([0.3, -1.3, 0.5, 0.4, -0.6, -0.7], dtype=torch.float64)

# One with two inputs, two layers of two hidden units and one output; on the first two points.
DEEP = torch.tensor([0.8, -0.2, -0.7, -0.4, 0.3, -0.6, -1.2, -1.3, -0.1, -0.8], dtype=torch.float64)

# Four steps of six weights: 2, 0 and 5 return, and 0 and 5 are there at the end.
ROWS = ("111111", "110101", "011100", "110100", "110001")
HISTORY = torch.tensor([[int(digit) for digit in row] for row in ROWS]).bool()


def shallow_loss(v: Tensor) -> Tensor:
    """Return half the mean squared error of the network with one hidden layer."""
    hidden = torch.tanh(POINTS @ v[:4].view(2, 2).T)
    return 0.5 * ((hidden @ v[4:] - TARGETS) ** 2).mean()


def deep_loss(v: Tensor) -> Tensor:
    """Return twenty times the mean squared error of the network with two hidden layers.

    The factor makes the scores large: no fixed value such as -1 lies below them all.
    """
    first = torch.tanh(POINTS[:2] @ v[:4].view(2, 2).T)
    second = torch.tanh(first @ v[4:8].view(2, 2).T)
    return 20 * ((second @ v[8:] - TARGETS[:2]) ** 2).mean()


@or_value
def probe_schedules(answer: Any) -> Any:
    """Call an answer for 45 weights, linear, and for 48, exponential: to a tenth in five steps."""
    cases = ((45, "linear"), (48, "exponential"))
    return [returned(answer, size, 0.1, 5, name) for size, name in cases]


@or_value
def probe_masks(answer: Any) -> Any:
    """Return the kept weights by step, without and with regrow, or what else is wrong."""
    calls, kept = [0], []

    def counted(v: Tensor) -> Tensor:
        calls[0] += 1
        return shallow_loss(v)

    for regrow in (False, True):
        w = WEIGHTS.clone().requires_grad_(regrow)
        rows = returned(answer, counted, w, [4, 3, 2], regrow)
        if has_changed(w, WEIGHTS):
            return "changed"
        if not isinstance(rows, Tensor) or rows.dtype != torch.bool:
            return "type"
        kept.append([row.nonzero().flatten().tolist() for row in rows])
    return kept if calls[0] == 6 else "calls"


def has_changed(w: Tensor, before: Tensor) -> bool:
    """Say whether a tensor that was handed in has other values, or a gradient."""
    return w.grad is not None or not torch.equal(w, before)


def first_violation(w: Tensor, y: float, margin: float) -> int:
    """Return the number of the first statement of the question that is not true, or 0."""
    a, b, c, d = w.tolist()
    both, first, second = abs(a + b - y), abs(c * (c - y)), abs(d * (d - y))
    alone, back = abs(a * (a - y)), abs(b * (a - y))
    force, iter_snip = both**2 + 2 * y**2, (a - y) ** 2 + y**2 + (d - y) ** 2
    statements = (
        margin * abs(b) * both < min(abs(a) * both, first, second),
        min(alone, back) > margin * second and second > margin * first,
        margin * force < iter_snip,
    )
    return next((number for number, true in enumerate(statements, 1) if not true), 0)


@or_value
def probe_record(answer: Any) -> Any:
    """Return what an answer finds in a history of masks."""
    return returned(answer, HISTORY.clone())


@or_value
def probe_revival(answer: Any) -> Any:
    """Return the first statement that is false at the target 1; 4 if one is only just true."""
    pairs = [(returned(answer, y), y) for y in (1.0, 2.5)]
    if any(not isinstance(w, Tensor) or w.dtype != torch.float64 or len(w) != 4 for w, _ in pairs):
        return "type"
    one, other = (first_violation(w, y, 1.0) for w, y in pairs)
    if other and not one:
        return "scale"
    return one or 4 * any(first_violation(w, y, 1.01) for w, y in pairs)


@or_value
def probe_grasp(answer: Any) -> Any:
    """Return the records of signed and of absolute scores, or what else is wrong."""
    records = []
    for signed in (True, False):
        w = DEEP.clone().requires_grad_(signed)
        try:
            records.append(returned(answer, deep_loss, w, [4, 4, 2], [8, 6, 4, 3], signed))
        except RuntimeError as error:
            if "does not require grad" in str(error):
                return "graph"
            raise
        if has_changed(w, DEEP):
            return "changed"
    return records
