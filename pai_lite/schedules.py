"""Schedules: how many weights are left after each step of iterative pruning."""

from __future__ import annotations

import math

from pai_lite.lookup import look_up
from pai_lite.scores import count_kept


def linear(n: int, k: int, t: int, steps: int) -> float:
    """Return a straight line from n to k (de Jorge et al. 2021, eq. 8)."""
    alpha = t / steps
    return alpha * k + (1 - alpha) * n


def exponential(n: int, k: int, t: int, steps: int) -> float:
    """Return a straight line of logarithms from n to k (de Jorge et al. 2021, eq. 9)."""
    alpha = t / steps
    return math.exp(alpha * math.log(k) + (1 - alpha) * math.log(n))


SCHEDULES = {"linear": linear, "exponential": exponential}


def schedule_counts(n: int, sparsity: float, *, steps: int, schedule: str) -> list[int]:
    """Return the numbers of weights kept after steps 1 to T; the last is exactly k.

    Args:
        n: the number of prunable weights.
        sparsity: after the last step, in [0, 1).
        steps: T, at least 1; with one step, k alone is returned.
        schedule: "linear" or "exponential".

    Raises:
        ValueError: the sparsity or the number of steps is out of range, the schedule is unknown,
            or k is 0 and there are several steps.
    """
    k = count_kept(n, sparsity)
    rule = look_up(SCHEDULES, schedule, "schedule")
    if steps < 1:
        raise ValueError(f"steps is {steps}; iterative pruning needs at least 1.")
    if k < 1 and steps > 1:
        raise ValueError(f"sparsity {sparsity} keeps none of {n} weights; choose a smaller one.")
    return [round(rule(n, k, t, steps)) for t in range(1, steps)] + [k]
