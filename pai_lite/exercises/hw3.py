"""Checks of the third assignment, on schedules and revival."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, called_on, returned

PREFIX = "hw3"

# A network with two inputs, two hidden units and one output, on three points.
POINTS = torch.tensor([[1.0, -0.5], [0.5, 2.0], [-1.0, 1.0]], dtype=torch.float64)
TARGETS = torch.tensor([1.0, -1.0, 0.5], dtype=torch.float64)
WEIGHTS = torch.tensor([0.3, -1.3, 0.5, 0.4, -0.6, -0.7], dtype=torch.float64)

# One with two inputs, two layers of two hidden units and one output; on the first two points.
DEEP = torch.tensor([0.8, -0.2, -0.7, -0.4, 0.3, -0.6, -1.2, -1.3, -0.1, -0.8], dtype=torch.float64)

# Three steps of six weights: 0 and 2 return, and 0 is there at the end.
HISTORY = torch.tensor([[1] * 6, [1, 1, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0], [1, 1, 0, 1, 0, 0]]).bool()


def shallow_loss(v: Tensor) -> Tensor:
    """Return half the mean squared error of the network with one hidden layer."""
    hidden = torch.tanh(POINTS @ v[:4].view(2, 2).T)
    return 0.5 * ((hidden @ v[4:] - TARGETS) ** 2).mean()


def deep_loss(v: Tensor) -> Tensor:
    """Return half the mean squared error of the network with two hidden layers."""
    first = torch.tanh(POINTS[:2] @ v[:4].view(2, 2).T)
    second = torch.tanh(first @ v[4:8].view(2, 2).T)
    return 0.5 * ((second @ v[8:] - TARGETS[:2]) ** 2).mean()


def probe_schedules(answer: Any) -> Any:
    """Call an answer for both schedules, from 45 weights to a tenth in five steps."""
    if not callable(answer):
        return answer
    return [returned(answer, 45, 0.1, 5, name) for name in ("linear", "exponential")]


def probe_masks(answer: Any) -> Any:
    """Return the kept weights by step, without and with regrow, and what else was done."""
    if not callable(answer):
        return answer
    calls, kept, given = [0], [], [WEIGHTS.clone(), WEIGHTS.clone()]

    def counted(v: Tensor) -> Tensor:
        calls[0] += 1
        return shallow_loss(v)

    for regrow, w in zip((False, True), given, strict=True):
        rows = returned(answer, counted, w, [4, 3, 2], regrow)
        kept.append([torch.as_tensor(row).nonzero().flatten().tolist() for row in rows])
    changed = not all(torch.equal(w, WEIGHTS) for w in given)
    return [*kept, "changed" if changed else "calls" if calls[0] != 6 else ""]


def first_violation(w: Tensor, y: float) -> int:
    """Return the number of the first statement of the question that is not true, or 0."""
    a, b, c, d = torch.as_tensor(w).tolist()
    both, first, second = abs(a + b - y), abs(c * (c - y)), abs(d * (d - y))
    alone, back = abs(a * (a - y)), abs(b * (a - y))
    statements = (
        abs(b) * both < min(abs(a) * both, first, second),
        min(alone, back) > second > first,
        both**2 + y**2 < (a - y) ** 2 + (d - y) ** 2,
    )
    return next((number for number, true in enumerate(statements, 1) if not true), 0)


def probe_revival(answer: Any) -> Any:
    """Return the first false statement at two targets, 0 where all are true."""
    if not callable(answer):
        return answer
    return [first_violation(returned(answer, y), y) for y in (1.0, 2.5)]


def probe_grasp(answer: Any) -> Any:
    """Return the records of signed and of absolute scores."""
    if not callable(answer):
        return answer
    arguments = (deep_loss, DEEP.clone(), [4, 4, 2], [8, 6, 4])
    return [returned(answer, *arguments, signed) for signed in (True, False)]


def masks(*rows: str) -> list[list[int]]:
    """Return rows of kept weights from strings of their digits, after the row of all six."""
    return [[int(digit) for digit in row] for row in ("012345", *rows)]


def steps(counts: list[int], shares: list[float]) -> list[tuple[int, float]]:
    """Return pairs of a count and a share."""
    return list(zip(counts, shares, strict=True))


LINEAR = steps([37, 29, 20, 12, 4], [0.1778, 0.2162, 0.3103, 0.4, 0.6667])
EXPONENTIAL = steps([28, 17, 11, 6, 4], [0.3778, 0.3929, 0.3529, 0.4545, 0.3333])
SIGNED = [([3, 3, 2], 0.3898), ([1, 3, 2], 0.193), ([0, 3, 1], 0.0)]
ABSOLUTE = [([4, 2, 2], 0.3108), ([3, 2, 1], 0.2798), ([1, 2, 1], 0.0502)]

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=[LINEAR, EXPONENTIAL],
        praise="Equal differences and equal ratios, up to rounding, and both end at k. "
        "The errors that the question asks for are not tested here.",
        hint="From 45 weights to density 0.1 in five steps, with k = round(4.5) = 4, the linear "
        "schedule leaves 37 after the first step and the exponential one 28. A list of five pairs "
        "(count, share) is wanted.",
        probe=probe_schedules,
        mistakes=(
            Mistake(
                "sparsity",
                [steps([44, 43, 42, 41, 40], [0.0222, 0.0227, 0.0233, 0.0238, 0.0244])] * 2,
                "You end at 40 of 45 weights. The density is the fraction that is kept.",
            ),
            Mistake(
                "end not rounded",
                [
                    steps([37, 29, 21, 13, 4], [0.1778, 0.2162, 0.2759, 0.381, 0.6923]),
                    steps([28, 18, 11, 7, 4], [0.3778, 0.3571, 0.3889, 0.3636, 0.4286]),
                ],
                "Your schedule heads for 4.5 weights and jumps to 4 at the end. Round the end "
                "point first, and put the integer into the formula.",
            ),
            Mistake(
                "rounded twice",
                [LINEAR, steps([28, 17, 10, 6, 4], [0.3778, 0.3929, 0.4118, 0.4, 0.3333])],
                "Your exponential counts are computed from the rounded ones before them, so the "
                "errors of rounding add up. Start each from n.",
            ),
            Mistake(
                "cut off",
                [
                    steps([36, 28, 20, 12, 4], [0.2, 0.2222, 0.2857, 0.4, 0.6667]),
                    steps([27, 17, 10, 6, 4], [0.4, 0.3704, 0.4118, 0.4, 0.3333]),
                ],
                "Your counts are cut off after the point; 36.8 is rounded to 37.",
            ),
            Mistake(
                "half up",
                [
                    steps([37, 29, 21, 13, 5], [0.1778, 0.2162, 0.2759, 0.381, 0.6154]),
                    steps([29, 19, 12, 8, 5], [0.3556, 0.3448, 0.3684, 0.3333, 0.375]),
                ],
                "You end at 5 weights. Python's round takes 4.5 to 4, the even neighbour.",
            ),
            Mistake(
                "share of all",
                [
                    steps([37, 29, 20, 12, 4], [0.1778, 0.1778, 0.2, 0.1778, 0.1778]),
                    steps([28, 17, 11, 6, 4], [0.3778, 0.2444, 0.1333, 0.1111, 0.0444]),
                ],
                "Your counts are right. The shares are to be those of the weights that are present "
                "before the step, not of all n.",
            ),
            Mistake(
                "share kept",
                [
                    steps([37, 29, 20, 12, 4], [0.8222, 0.7838, 0.6897, 0.6, 0.3333]),
                    steps([28, 17, 11, 6, 4], [0.6222, 0.6071, 0.6471, 0.5455, 0.6667]),
                ],
                "Your counts are right. The shares are what a step keeps; wanted is what it "
                "removes.",
            ),
        ),
    ),
    2: Exercise(
        right=[masks("1234", "124", "14"), masks("1234", "145", "34"), ""],
        praise="With regrow, weights 5 and 3 come back; without it none does.",
        hint="On a network of six weights, pruned to 4, 3 and 2, these are not the right masks. "
        "The first row keeps all, and the first step is SNIP's. Compute its scores by themselves: "
        "weights 1 to 4 should be kept.",
        probe=probe_masks,
        mistakes=(
            Mistake(
                "dense network",
                [masks("1234", "234", "24"), masks("1234", "234", "24"), ""],
                "Your scores are the same in every step: they are those of the dense network. "
                "The gradient is wanted at the pruned weights.",
            ),
            Mistake(
                "pruned factor",
                [masks("1234", "124", "14"), masks("1234", "014", "14"), ""],
                "Without regrow you are right. With it, your removed weights all score zero: the "
                "factor is the initial weight, and the gradient is not masked.",
            ),
            Mistake(
                "sign",
                [masks("0124", "014", "14"), masks("0124", "145", "14"), ""],
                "Your scores keep their sign; a weight matters whichever sign its slope has.",
            ),
            Mistake(
                "zero is not the lowest",
                [masks("1234", "014", "14"), masks("1234", "145", "34"), ""],
                "Without regrow a removed weight has come back: its score of zero ties with that "
                "of kept weights. It needs a value below every possible score.",
            ),
            Mistake(
                "swapped",
                [masks("1234", "145", "34"), masks("1234", "124", "14"), ""],
                "You have the two cases the wrong way round: with regrow removed weights compete.",
            ),
            Mistake(
                "always",
                [masks("1234", "145", "34")] * 2 + [""],
                "With regrow you are right. Without it, removed weights must stay out.",
            ),
            Mistake(
                "never",
                [masks("1234", "124", "14")] * 2 + [""],
                "Without regrow you are right. With it, removed weights may compete.",
            ),
            Mistake(
                "first row",
                [masks("1234", "124", "14")[1:], masks("1234", "145", "34")[1:], ""],
                "The masks are right; the row that keeps everything is missing before them.",
            ),
            Mistake(
                "changed",
                [masks("1234", "124", "14"), masks("1234", "145", "34"), "changed"],
                "The masks are right, but the weights that were handed in have changed. Work on a "
                "copy.",
            ),
            Mistake(
                "calls",
                [masks("1234", "124", "14"), masks("1234", "145", "34"), "calls"],
                "The masks are right, but the loss is not called exactly once in every step.",
            ),
        ),
    ),
    3: Exercise(
        right=([0, 1, 1], [2, 2, 1], 1),
        praise="Weights 2 and 0 return, in this order, and only weight 0 is there at the end.",
        hint="For the rows 111111, 110101, 011100, 110100: in the second step weight 2 returns, "
        "and 0 and 5 leave. Two lists of three integers and one integer are wanted.",
        probe=called_on(HISTORY.clone),
        mistakes=(
            Mistake(
                "net",
                ([0, 0, 0], [2, 1, 0], 1),
                "You have the differences of the counts. In the second step one weight returns "
                "and two leave.",
            ),
            Mistake(
                "against the first",
                ([0, 0, 0], [2, 3, 3], 1),
                "You compare each row with the first. Compare it with the one just before it.",
            ),
            Mistake(
                "swapped",
                ([2, 2, 1], [0, 1, 1], 1),
                "Your returns are departures, and the other way round.",
            ),
            Mistake(
                "all that returned",
                ([0, 1, 1], [2, 2, 1], 2),
                "Both lists are right. Weight 2 has returned but is missing in the last row, so it "
                "does not count there.",
            ),
            Mistake(
                "missing at the end",
                ([0, 1, 1], [2, 2, 1], 3),
                "Both lists are right. The last number is to count weights that the last row "
                "keeps.",
            ),
        ),
    ),
    4: Exercise(
        right=[0, 0],
        praise="Without weight 1 the other cannot reach the target alone, so both slopes grow.",
        hint="At one of the targets 1 and 2.5, a statement is not true. How do all four scores "
        "change when y and all weights are multiplied by the same number?",
        probe=probe_revival,
        mistakes=(
            Mistake(
                "step 1",
                [1, 1],
                "Statement 1 is not true: the first step does not remove weight 1. Weights 0 and "
                "1 have the same slope in the dense network; which of them scores less, and how "
                "do both score less than the other two?",
            ),
            Mistake(
                "step 2",
                [2, 2],
                "Statement 1 is true, and statement 2 is not. Write down the four scores without "
                "weight 1, and put them in the order that FORCE and Iter-SNIP need.",
            ),
            Mistake(
                "loss",
                [3, 3],
                "Statements 1 and 2 are true. The loss of what FORCE keeps is not the smaller one: "
                "compare the residuals of both networks.",
            ),
            *(
                Mistake(
                    f"scale {number}",
                    [0, number],
                    f"Right at the target 1. At the target 2.5 statement {number} is not true.",
                )
                for number in (1, 2, 3)
            ),
        ),
    ),
    5: Exercise(
        right=[SIGNED, ABSOLUTE],
        praise="With its sign the score empties the first layer, and the gradient is gone.",
        hint="For three layers of 4, 4 and 2 weights, pruned to 8, 6 and 4, the records are wrong. "
        "The absolute scores keep 4, 2 and 2 in the first step. Try the example by hand first.",
        probe=probe_grasp,
        mistakes=(
            Mistake(
                "gradient of removed weights",
                [
                    [([3, 3, 2], 0.3938), ([2, 2, 2], 0.3251), ([1, 2, 1], 1.7944)],
                    [([4, 2, 2], 0.3116), ([3, 2, 1], 0.4713), ([2, 1, 1], 1.0249)],
                ],
                "Your gradient has entries for removed weights. They count neither in G nor in "
                "the product with the Hessian.",
            ),
            Mistake(
                "gradient of removed weights in the product",
                [
                    [([3, 3, 2], 0.3898), ([2, 2, 2], 0.193), ([1, 2, 1], 0.0)],
                    [([4, 2, 2], 0.3108), ([3, 2, 1], 0.2798), ([2, 1, 1], 0.0502)],
                ],
                "Your G is that of the kept weights. The gradient that is multiplied by the "
                "Hessian must lose its entries for removed weights too.",
            ),
            Mistake(
                "norm over all",
                [
                    [([3, 3, 2], 0.3938), ([1, 3, 2], 0.3216), ([0, 3, 1], 0.0073)],
                    [([4, 2, 2], 0.3116), ([3, 2, 1], 0.4713), ([1, 2, 1], 2.4125)],
                ],
                "The counts are right. G is to be summed over the kept weights only.",
            ),
            Mistake(
                "norm before",
                [
                    [([3, 3, 2], 0.3489), ([1, 3, 2], 0.3898), ([0, 3, 1], 0.193)],
                    [([4, 2, 2], 0.3489), ([3, 2, 1], 0.3108), ([1, 2, 1], 0.2798)],
                ],
                "The counts are right. Your G is that of the mask before each step; wanted is the "
                "one after it.",
            ),
            Mistake(
                "root",
                [
                    [([3, 3, 2], 0.6243), ([1, 3, 2], 0.4394), ([0, 3, 1], 0.0)],
                    [([4, 2, 2], 0.5575), ([3, 2, 1], 0.529), ([1, 2, 1], 0.2241)],
                ],
                "The counts are right. G is the squared norm, without the root.",
            ),
            Mistake(
                "zero is not the lowest",
                [[*SIGNED[:2], ([3, 1, 0], 0.0)], ABSOLUTE],
                "With signed scores, removed weights have come back: a score of zero stands above "
                "every negative one.",
            ),
            Mistake(
                "wrong end",
                [[([3, 3, 2], 0.9424), ([3, 2, 1], 0.0231), ([2, 1, 1], 0.014)], ABSOLUTE],
                "With signed scores you keep the smallest. Larger means keep.",
            ),
            Mistake(
                "dense network",
                [
                    [([3, 3, 2], 0.3898), ([1, 3, 2], 0.2409), ([1, 1, 2], 0.1744)],
                    [([4, 2, 2], 0.3108), ([3, 2, 1], 0.2798), ([2, 2, 0], 0.0)],
                ],
                "The first step is right. Later ones score the dense network again; score the "
                "pruned one.",
            ),
            Mistake("sign", [ABSOLUTE, ABSOLUTE], "You take absolute values in both cases."),
            Mistake("no absolute value", [SIGNED, SIGNED], "Your scores keep their sign always."),
        ),
    ),
}
