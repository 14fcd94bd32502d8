"""Exercises of the chapter "Beyond initialization"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake

PREFIX = "beyond"

Move = Callable[[Tensor, Tensor, Tensor, int], Tensor]

WEIGHTS = torch.tensor([0.9, -0.1, 0.0, 0.3, 0.0, 0.0, -2.0, 0.0], dtype=torch.float64)
KEPT = torch.tensor([1, 1, 0, 1, 0, 0, 1, 0], dtype=torch.bool)
GRADIENT = torch.tensor([0.1, 9.0, 0.2, 0.1, -3.0, 1.0, 0.1, 0.4], dtype=torch.float64)
INTERACTIONS = ((0.0, 5), (0.3, 2), (0.5, 4), (0.9, 20))


def drop_and_grow(w: Tensor, kept: Tensor, g: Tensor, r: int) -> Tensor:
    """Drop the smallest of the kept weights, and grow where the gradient is largest."""
    drop = w.abs().masked_fill(~kept, math.inf).topk(r, largest=False).indices
    grow = g.abs().masked_fill(kept, -math.inf).topk(r).indices
    new = kept.clone()
    new[drop], new[grow] = False, True
    return new


def grow_after_drop(w: Tensor, kept: Tensor, g: Tensor, r: int) -> Tensor:
    """Let what has just been dropped be grown, a mistake."""
    new = kept.clone()
    new[w.abs().masked_fill(~kept, math.inf).topk(r, largest=False).indices] = False
    new[g.abs().masked_fill(new, -math.inf).topk(r).indices] = True
    return new


def signed_gradient(w: Tensor, kept: Tensor, g: Tensor, r: int) -> Tensor:
    """Grow by the gradient with its sign, a mistake."""
    return drop_and_grow(w, kept, g.clamp_min(0) + 1e-9, r)


def drop_among_all(w: Tensor, kept: Tensor, g: Tensor, r: int) -> Tensor:
    """Drop the smallest of all weights, removed ones too, a mistake."""
    new = kept.clone()
    new[w.abs().topk(r, largest=False).indices] = False
    new[g.abs().masked_fill(kept, -math.inf).topk(r).indices] = True
    return new


def drop_only(w: Tensor, kept: Tensor, _g: Tensor, r: int) -> Tensor:
    """Drop and grow nothing, a mistake."""
    new = kept.clone()
    new[w.abs().masked_fill(~kept, math.inf).topk(r, largest=False).indices] = False
    return new


def probe_move(answer: Move) -> list[list[int]]:
    """Call an answer with one and with two weights to move."""
    found = [answer(WEIGHTS.clone(), KEPT.clone(), GRADIENT.clone(), r) for r in (1, 2)]
    return [mask.int().tolist() for mask in found]


def saving(rho: float, n: int) -> float:
    """Return the cost without adjustment over the cost with it."""
    return 1 / (1 - (n - 1) * rho**2 / (1 + (n - 2) * rho))


def probe_ratio(answer: Callable[[float, int], float]) -> list[float]:
    """Call an answer with several strengths of interaction and numbers of weights."""
    return [float(answer(rho, n)) for rho, n in INTERACTIONS]


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=2,
        praise="Neither the smallest weight nor the flattest direction, but the smallest product.",
        hint="Compute half the curvature times the squared weight for each of the three.",
        mistakes=(
            Mistake(
                "magnitude",
                1,
                "That weight is the smallest, but the loss is steep around it: the cost is 0.08.",
            ),
            Mistake(
                "curvature",
                0,
                "That direction is the flattest, but the weight has far to go: the cost is 0.05.",
            ),
            Mistake("counted from one", 3, "Counted from 0 the last of three weights is 2."),
        ),
    ),
    2: Exercise(
        right=(2.5, 0.75),
        praise="The second weight takes over half of the first, and a quarter is saved.",
        hint="Invert the matrix, then put i = 1 into both formulas.",
        mistakes=(
            Mistake(
                "no adjustment",
                (2.0, 1.0),
                "That is optimal brain damage: the second weight stays, and the cost is 1.",
            ),
            Mistake(
                "wrong direction",
                (1.5, 0.75),
                "The cost is right. The second weight moves the other way: the off-diagonal entry "
                "of the inverse is negative.",
            ),
            Mistake(
                "diagonal of H",
                (2.5, 1.0),
                "The weight is right. The cost has the diagonal of the inverse in it, not that "
                "of H.",
            ),
            Mistake(
                "without the half",
                (2.5, 1.5),
                "The weight is right. The cost is half of what you give.",
            ),
        ),
    ),
    3: Exercise(
        right=saving,
        praise="Nothing is saved without interaction, and the more the closer the weights are.",
        hint="Give the others a common step, and choose it so that the loss grows least.",
        probe=probe_ratio,
        mistakes=(
            Mistake(
                "upside down",
                lambda rho, n: 1 / saving(rho, n),
                "That is the cost with adjustment over the prediction without; turn it over.",
            ),
            Mistake(
                "two weights",
                lambda rho, _n: 1 / (1 - rho**2),
                "That is right for two weights. With more, all the others adjust.",
            ),
            Mistake(
                "others do not interact",
                lambda rho, n: 1 / (1 - (n - 1) * rho**2),
                "The others interact with each other too: the square of their common step "
                "comes with 1 + (n - 2) rho.",
            ),
            Mistake(
                "limit",
                lambda rho, _n: 1 / (1 - rho),
                "That is the limit of many weights; a finite number saves less.",
            ),
        ),
    ),
    4: Exercise(
        right=18,
        praise="Eighteen trainings for one mask.",
        hint="Solve 0.8^R = 0.02, and round up.",
        mistakes=(
            Mistake("rounded down", 17, "After 17 rounds 2.25% are left; one more is needed."),
            Mistake(
                "linear",
                5,
                "Each round removes 20% of what is left, not of what was there at first.",
            ),
            Mistake(
                "95%", 14, "Fourteen rounds remove 95.6%, as the chapter counts; 98% takes longer."
            ),
        ),
    ),
    5: Exercise(
        right=drop_and_grow,
        praise="The count stays, and what was dropped does not come straight back.",
        hint="Look for the smallest among the kept, and for the largest gradient among the others.",
        probe=probe_move,
        mistakes=(
            Mistake(
                "grow after the drop",
                grow_after_drop,
                "You grow among all that are off after the drop, so that a weight that was just "
                "dropped may come straight back. Choose among those that were off before.",
            ),
            Mistake(
                "signed gradient",
                signed_gradient,
                "You grow where the gradient is most positive. A step moves against the gradient, "
                "whichever sign it has; take its magnitude.",
            ),
            Mistake(
                "drop among all",
                drop_among_all,
                "The smallest magnitudes of all are the removed weights, which are zero: nothing "
                "is dropped, and the mask grows.",
            ),
            Mistake("drop only", drop_only, "Weights are dropped, but none is grown."),
        ),
    ),
    6: Exercise(
        right=41,
        praise="At a density of 5% half of the network has been tried after 41 rounds.",
        hint="The share that is never tried is (n - k) / n times (1 - r / (n - k)) to the R.",
        mistakes=(
            Mistake(
                "no repetition",
                30,
                "You counted 150 new weights a round; some of those that are grown were tried "
                "before.",
            ),
            Mistake(
                "share of all",
                43,
                "You took r over n for the chance of being grown; only n - k weights are off.",
            ),
            Mistake(
                "without the start",
                44,
                "The 500 weights of the start count as tried.",
            ),
        ),
    ),
}
