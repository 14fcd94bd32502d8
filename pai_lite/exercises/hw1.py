"""Checks of the first assignment, on connection sensitivity."""

from __future__ import annotations

import torch

from pai_lite.exercises.engine import Exercise, Mistake, called_on

PREFIX = "hw1"

POINT = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def cubic(w: torch.Tensor) -> torch.Tensor:
    """Return a loss whose gradient is easy by hand: 3 w squared."""
    return (w**3).sum()


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=torch.tensor([0.375, 3.0, 24.0]),
        praise="On the sum of cubes the score is 3 |w|^3.",
        hint="For the loss sum of w^3, at w = (0.5, -1, 2), compute the score by hand first.",
        probe=called_on(lambda: cubic, POINT.clone),
        mistakes=(
            Mistake(
                "sign",
                torch.tensor([0.375, -3.0, 24.0]),
                "Your scores keep a sign.",
            ),
        ),
    ),
}
