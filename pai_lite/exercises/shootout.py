"""Exercises of the chapter "The shoot-out"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake

PREFIX = "shootout"

P_VALUES = ([0.01, 0.04, 0.03, 0.5], [0.2, 0.001, 0.02, 0.02, 0.9], [0.6, 0.7])
ACCURACY = torch.tensor(
    [[0.9, 0.8, 0.8, 0.3], [0.2, 0.7, 0.1, 0.4], [0.5, 0.9, 0.6, 0.6]], dtype=torch.float64
)
COMPARISONS = ((1, 1), (10, 5), (3, 7), (15, 6))


def holm(p: list[float]) -> list[float]:
    """Return Holm's adjusted p-values in the order of the input."""
    adjusted, largest = [0.0] * len(p), 0.0
    for j, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - j) * p[i]))
        adjusted[i] = largest
    return adjusted


def without_maximum(p: list[float]) -> list[float]:
    """Forget that an adjusted value must not fall below the one before it, a mistake."""
    adjusted = [0.0] * len(p)
    for j, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        adjusted[i] = min(1.0, (len(p) - j) * p[i])
    return adjusted


def mean_ranks(accuracy: Tensor) -> Tensor:
    """Return the mean rank of each method, 1 for the best, ties sharing their ranks."""
    a, b = accuracy[:, :, None], accuracy[:, None, :]
    better, equal = (b > a).sum(-1), (b == a).sum(-1) - 1
    return (1 + better + equal / 2).double().mean(0)


def from_the_worst(accuracy: Tensor) -> Tensor:
    """Give rank 1 to the worst, a mistake."""
    return mean_ranks(-accuracy)


def ties_by_place(accuracy: Tensor) -> Tensor:
    """Break ties by the order of the columns, a mistake."""
    order = (-accuracy).argsort(dim=1, stable=True)
    return (order.argsort(dim=1) + 1).double().mean(0)


def fewest_seeds(q: int, r: int) -> int:
    """Return the fewest seeds with which one of q r comparisons can count by its signs."""
    return math.ceil(1 + math.log2(q * r / 0.05))


def probe_holm(answer: Callable[[list[float]], list[float]]) -> list[list[float]]:
    """Call an answer on three lists of p-values."""
    return [[float(value) for value in answer(list(p))] for p in P_VALUES]


def probe_ranks(answer: Callable[[Tensor], Tensor]) -> Tensor:
    """Call an answer on a table with ties."""
    return answer(ACCURACY.clone())


def probe_seeds(answer: Callable[[int, int], int]) -> list[int]:
    """Call an answer on several numbers of methods and sparsities."""
    return [answer(q, r) for q, r in COMPARISONS]


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=2**0.5,
        praise="A high correlation takes three quarters of the variance away.",
        hint="Put both variances and twice the covariance into the formula; take the root last.",
        mistakes=(
            Mistake("variance", 2.0, "That is the variance; the root is still to be taken."),
            Mistake(
                "unpaired",
                8**0.5,
                "That is the value without pairing: the covariance, 0.75 times 2 times 2, is left "
                "out.",
            ),
            Mistake(
                "correlation for covariance",
                6.5**0.5,
                "You subtracted twice the correlation. The covariance is the correlation times "
                "both standard deviations.",
            ),
            Mistake("sum", 14**0.5, "The covariance is subtracted in a difference, not added."),
        ),
    ),
    2: Exercise(
        right=12,
        praise="Twelve, where 1.96 for every N would say nine.",
        hint="Compute the half-width for N = 2, 3, ... with the t quantile of N - 1 degrees.",
        mistakes=(
            Mistake(
                "1.96",
                9,
                "With 1.96 for every N, or with the 95% point of t, one gets 9. With few seeds the "
                "spread itself is uncertain, so use t; and two sides need its 97.5% point.",
            ),
            Mistake(
                "one standard error",
                3,
                "That makes the standard error itself one point at most; the interval is wider "
                "than one standard error.",
            ),
            Mistake("eleven", 11, "Nearly: at 11 the half-width is still a little above one."),
        ),
    ),
    3: Exercise(
        right=holm,
        praise="Sorted, multiplied, and never falling.",
        hint="Sort, multiply the i-th smallest by Q - i + 1, cap at 1, take running maxima.",
        probe=probe_holm,
        mistakes=(
            Mistake(
                "bonferroni",
                lambda p: [min(1.0, len(p) * value) for value in p],
                "That is Bonferroni's correction: every value is multiplied by Q. Holm multiplies "
                "the second smallest by Q - 1 only, and so on.",
            ),
            Mistake(
                "no running maximum",
                without_maximum,
                "An adjusted value falls below that of a smaller p-value. The procedure stops at "
                "the first that fails, so later ones cannot count: take the running maximum.",
            ),
            Mistake(
                "sorted output",
                lambda p: sorted(holm(p)),
                "The values are right, but in sorted order; give them back in that of the input.",
            ),
            Mistake(
                "unadjusted",
                lambda p: list(p),
                "These are the p-values as they came; each has to pay for the others.",
            ),
        ),
    ),
    4: Exercise(
        right=2 / math.sqrt(5) / math.sqrt(math.pi),
        praise="Half a point for nothing, and that with only two methods.",
        hint="Find the standard deviation of a mean of five first; then use the formula.",
        mistakes=(
            Mistake(
                "single runs",
                2 / math.sqrt(math.pi),
                "That holds for single runs; means of five scatter less.",
            ),
            Mistake(
                "divided by five",
                2 / 5 / math.sqrt(math.pi),
                "The variance of a mean falls with N, so its standard deviation with the root.",
            ),
            Mistake(
                "the gap",
                4 / math.sqrt(5) / math.sqrt(math.pi),
                "That is the mean gap between the two; the better lies half of it above the truth.",
            ),
            Mistake(
                "none", 0.0, "Each mean is right on average, but the larger of the two is not."
            ),
        ),
    ),
    5: Exercise(
        right=60 * 100 / (160 * 50_000),
        praise="Less than a thousandth of the training.",
        hint="Count the images that are sent through the network in both.",
        mistakes=(
            Mistake(
                "batches against epochs",
                60 / 160,
                "You compared scores with epochs; an epoch is 50,000 images, a score 100.",
            ),
            Mistake(
                "one epoch",
                60 * 100 / 50_000,
                "That is the share of one epoch; the training has 160.",
            ),
            Mistake(
                "one score",
                100 / (160 * 50_000),
                "That is a single score; FORCE takes 60 of them.",
            ),
        ),
    ),
    6: Exercise(
        right=mean_ranks,
        praise="Ties share, and the best comes first.",
        hint="For every method count those that are better in the block, and half of the equal.",
        probe=probe_ranks,
        mistakes=(
            Mistake(
                "from the worst",
                from_the_worst,
                "Your best method has the largest rank; rank 1 belongs to the highest accuracy.",
            ),
            Mistake(
                "ties by place",
                ties_by_place,
                "Equal accuracies got different ranks, by their column. They share the mean.",
            ),
            Mistake(
                "from zero",
                lambda a: mean_ranks(a) - 1,
                "Ranks begin with 1.",
            ),
            Mistake(
                "ties share the better rank",
                lambda a: (1 + (a[:, None, :] > a[:, :, None]).sum(-1)).double().mean(0),
                "Tied methods got the better of their ranks; they share the mean of them.",
            ),
        ),
    ),
    7: Exercise(
        right=fewest_seeds,
        praise="Ten methods at five sparsities need eleven seeds before any sign test can count.",
        hint="How small must the p-value be after the correction? Solve for N, and round up.",
        probe=probe_seeds,
        mistakes=(
            Mistake(
                "one-sided",
                lambda q, r: math.ceil(math.log2(q * r / 0.05)),
                "One too few. Ahead with every seed and behind with every seed are both extreme, "
                "so the two-sided value is twice 2^-N; and what is not whole is rounded up.",
            ),
            Mistake(
                "no correction",
                lambda _q, _r: math.ceil(1 + math.log2(1 / 0.05)),
                "That is enough for one comparison; the level is shared by q times r of them.",
            ),
            Mistake(
                "methods only",
                lambda q, _r: math.ceil(1 + math.log2(q / 0.05)),
                "The comparisons at every sparsity count, too.",
            ),
        ),
    ),
    8: Exercise(
        right=3 / math.sqrt(5) / math.sqrt(math.pi),
        praise="Three quarters of a point, and all methods are the same.",
        hint="How is the distance from the smallest to the largest related to those of the pairs?",
        mistakes=(
            Mistake(
                "two methods",
                2 / math.sqrt(5) / math.sqrt(math.pi),
                "That is the value for two methods; the third makes the best one luckier.",
            ),
            Mistake(
                "range",
                6 / math.sqrt(5) / math.sqrt(math.pi),
                "That is the mean range; the largest lies half of it above the truth.",
            ),
            Mistake(
                "single runs",
                3 / math.sqrt(math.pi),
                "That holds for single runs; means of five scatter less.",
            ),
            Mistake(
                "three distances",
                12 / math.sqrt(5) / math.sqrt(math.pi),
                "That is the sum of the three mean distances. It is twice the range, and the "
                "largest lies half a range above the truth.",
            ),
        ),
    ),
}
