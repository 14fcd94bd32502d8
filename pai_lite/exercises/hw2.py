"""Checks of assignment 2, on gradient flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, called_on, returned

PREFIX = "hw2"


def vector(*values: float) -> Tensor:
    """Return a vector in float64."""
    return torch.tensor(values, dtype=torch.float64)


def three_tensors(parameters: list[Tensor]) -> Tensor:
    """Return a loss of the first two of three tensors, of shapes (2,), (1, 2) and (1,)."""
    a, b, _ = parameters
    return a[0] ** 2 * a[1] + b[0, 0] * a[1] ** 2 + b[0, 1] ** 3 / 3


def probe_product(answer: Any) -> Any:
    """Return the product on three tensors, and how many of them the answer has changed."""
    if not callable(answer):
        return answer
    parameters = [vector(1.0, -2.0), vector(0.5, 3.0).view(1, 2), vector(4.0)]
    found = list(returned(answer, three_tensors, parameters))
    changed = sum(part.grad is not None or part.requires_grad for part in parameters)
    return {"product": found, "tensors changed": changed}


def product_of(*values: float, last: Any = 0.0, changed: int = 0) -> Any:
    """Return what the probe of the first question says of an answer with these entries."""
    third = vector(last) if isinstance(last, float) else last
    parts = [vector(*values[:2]), vector(*values[2:]).view(1, 2), third]
    return {"product": parts, "tensors changed": changed}


RIGHT_PRODUCT = (14.0, -25.0, 4.0, 54.0)


def cubic_loss(w: Tensor) -> Tensor:
    """Return a loss of three weights."""
    return w[0] ** 2 * w[1] + w[0] * w[2]


EXACT = vector(-11.6875, -10.0, 1.8125)
FIRST = vector(-17.0, -14.0, 1.75)


def paper_scores() -> list[Tensor]:
    """Return the paper's scores of seven weights in two layers, two of them equal."""
    return [vector(0.5, 1.5, 2.0), vector(0.5, -3.0, -1.0, 0.25).view(2, 2)]


def probe_masks(answer: Any) -> Any:
    """Return the masks at density 0.55, their types, and the predicted change."""
    if not callable(answer):
        return answer
    masks, change = returned(answer, paper_scores(), 0.55)
    types = [str(mask.dtype) for mask in masks]
    return {"masks": list(masks), "types": types, "change": float(change)}


def kept(*indices: int, change: float, kind: str = "torch.bool") -> Any:
    """Return what the probe of the fourth question says of masks that keep these weights."""
    flat = torch.zeros(7, dtype=torch.bool)
    flat[list(indices)] = True
    return {"masks": [flat[:3], flat[3:].view(2, 2)], "types": [kind, kind], "change": change}


def probe_difference(answer: Any) -> Any:
    """Return the estimate with step 0.5, and the step that the answer chooses by itself."""
    if not callable(answer):
        return answer
    w, asked = vector(2.0, 0.0, -1.0), []

    def cubes(v: Tensor) -> Tensor:
        asked.append(float((v - w).norm()))
        return v**3

    estimate = returned(answer, cubes, w.clone(), 0.5)
    few, asked[:] = len(asked) <= 3, []
    returned(answer, cubes, w.clone())
    unit = torch.finfo(torch.float64).eps ** (1 / 3)
    return {
        "estimate": estimate,
        "at most three calls": few,
        "step": max(asked, default=0.0) / unit,
    }


def estimated(*values: float, step: float = 5**0.5, few: bool = True) -> Any:
    """Return what the probe of the fifth question says; the step in units of u^(1/3)."""
    return {"estimate": vector(*values), "at most three calls": few, "step": step}


CENTRAL = (97.96923, 0.0, -3.003846)

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=product_of(*RIGHT_PRODUCT),
        praise="All blocks of H are there, the idle tensor has zeros, and nothing is left behind.",
        hint="The loss here is a_0^2 a_1 + b_0 a_1^2 + b_1^3 / 3 at a = (1, -2), b = (0.5, 3), "
        "with b of shape (1, 2) and a third tensor that has no part. There g is "
        "(-4, -1, 4, 9, 0). Write down H and compare; then compare shapes.",
        probe=probe_product,
        mistakes=(
            Mistake(
                "nothing held",
                product_of(*(2 * v for v in RIGHT_PRODUCT)),
                "Your product is twice the right one: both factors of g'g were differentiated. "
                "Hold one of them fixed.",
            ),
            Mistake(
                "gradient",
                product_of(-4.0, -1.0, 4.0, 9.0),
                "This is the gradient g itself. It has to be multiplied by H: differentiate once "
                "more.",
            ),
            Mistake(
                "ones",
                product_of(-2.0, -1.0, -4.0, 6.0),
                "This is H times a vector of ones: the sum of g was differentiated. The entries "
                "of g have to be weighted, each by its own fixed value.",
            ),
            Mistake(
                "blocks",
                product_of(14.0, -9.0, 0.0, 54.0),
                "Second derivatives between different tensors are missing. Take the sum over all "
                "tensors first, then one gradient of it with respect to all of them.",
            ),
            Mistake(
                "score",
                product_of(14.0, 50.0, 2.0, 162.0),
                "You multiplied by the weights; the score does that later. Here Hg is wanted.",
            ),
            Mistake(
                "None",
                product_of(*RIGHT_PRODUCT, last=None),
                "The third tensor does not influence the loss, and you return None for it. It "
                "gets zeros of its shape.",
            ),
            Mistake(
                "left behind",
                product_of(*RIGHT_PRODUCT, changed=3),
                "The numbers are right, but the tensors that were handed in now require gradients "
                "or hold one. Work on copies that you have detached.",
            ),
        ),
    ),
    2: Exercise(
        right=(EXACT, FIRST),
        praise="At half of each weight the first order is far off for two of the three.",
        hint="The loss here is w_0^2 w_1 + w_0 w_2 at w = (1, -2, 0.5), with eps = 0.5. There "
        "g = (-3.5, 1, 1), so G = 14.25, and Hg = (17, -7, -3.5). Do one weight by hand.",
        probe=called_on(lambda: cubic_loss, lambda: vector(1.0, -2.0, 0.5), lambda: 0.5),
        mistakes=(
            Mistake("swapped", (FIRST, EXACT), "The two vectors are in the other order."),
            Mistake(
                "sign",
                (-EXACT, -FIRST),
                "Both signs are turned: a change is after minus before, positive where G grows.",
            ),
            Mistake(
                "sign of the estimate",
                (EXACT, -FIRST),
                "The exact changes are right, the estimates have the wrong sign: a weight that "
                "shrinks moves by -eps w_i.",
            ),
            Mistake(
                "factor",
                (EXACT, FIRST / 2),
                "The estimates are half of what they should be: G is a square, and the derivative "
                "of a square has a factor 2.",
            ),
            Mistake(
                "share forgotten",
                (EXACT, 2 * FIRST),
                "The estimates are those of a whole removal; the weights lose only the share eps.",
            ),
            Mistake(
                "removal",
                (vector(-14.0, -12.0, 3.75), 2 * FIRST),
                "These are the changes when each weight is removed. Here it loses the share eps.",
            ),
            Mistake(
                "weight forgotten",
                (EXACT, vector(-17.0, 7.0, 3.5)),
                "The estimates lack the weights: the move is -eps w_i along e_i, not -eps.",
            ),
            Mistake(
                "loss",
                (vector(1.25, 1.0, -0.25), FIRST),
                "The first vector is the change of the loss. The change of G is wanted.",
            ),
            Mistake(
                "norm",
                (vector(-2.174136, -1.713364, 0.232888), FIRST),
                "The first vector is the change of the norm; G is the squared norm.",
            ),
            Mistake(
                "own entry",
                (vector(-13.9375, -11.0, 0.8125), FIRST),
                "You left the entry of weight i out of the gradient after the move. G counts all "
                "entries.",
            ),
        ),
    ),
    4: Exercise(
        right=kept(0, 4, 5, 6, change=8.0),
        praise="The largest S went, four of seven stayed, and G should grow by 8.",
        hint="The scores are (0.5, 1.5, 2) and ((0.5, -3), (-1, 0.25)) at density 0.55, so four "
        "weights stay, of all seven. Which? Then sum up, over those that go, what each does to "
        "G. The masks are of dtype torch.bool and of the scores' shapes.",
        probe=probe_masks,
        mistakes=(
            Mistake(
                "other end",
                kept(0, 1, 2, 3, change=-7.5),
                "You keep the largest S, as if S were a score in the sense of this book. S says "
                "what to remove. Your own prediction shows it: G would fall.",
            ),
            Mistake(
                "later first",
                kept(3, 4, 5, 6, change=8.0),
                "Two weights have the same score and one of them stays: the earlier one. Look "
                "whether your sorting is stable.",
            ),
            Mistake(
                "each layer",
                kept(0, 1, 4, 5, change=5.5),
                "You rank within each layer. All layers are ranked together.",
            ),
            Mistake(
                "three kept",
                kept(4, 5, 6, change=9.0),
                "You keep three weights; 0.55 times 7 is 3.85, so four stay. Either you cut the "
                "fraction off, or you took the density for the sparsity.",
            ),
            Mistake(
                "absolute value",
                kept(1, 2, 4, 5, change=2.5),
                "You rank by the absolute value. The score keeps its sign.",
            ),
            Mistake(
                "sign of the change",
                kept(0, 4, 5, 6, change=-8.0),
                "The masks are right, the change has the wrong sign: the weights went because "
                "their removal makes G grow.",
            ),
            Mistake(
                "factor",
                kept(0, 4, 5, 6, change=4.0),
                "The masks are right, the change is half of what it should be: G is a square.",
            ),
            Mistake(
                "sum over the kept",
                kept(0, 4, 5, 6, change=-6.5),
                "The masks are right, but the change sums over the kept weights. It is the "
                "removed ones that change G.",
            ),
            Mistake(
                "floats",
                kept(0, 4, 5, 6, change=8.0, kind="torch.float32"),
                "The right weights are kept; the masks should be of dtype torch.bool.",
            ),
        ),
    ),
    5: Exercise(
        right=estimated(*CENTRAL),
        praise="The step 0.5 gives an error of two percent; your own step gives a tiny one.",
        hint="The gradient here has the entries w_i^3, at w = (2, 0, -1) and with step 0.5. "
        "Check the length of your move: w + t g / |g| is at the distance t from w. Then look at "
        "your own step; in float64 at this w it is 1.354e-5.",
        probe=probe_difference,
        mistakes=(
            Mistake(
                "forward",
                estimated(121.7839, 0.0, -3.189898),
                "This is the forward difference, from w to one side. The central one asks on both "
                "sides of w.",
            ),
            Mistake(
                "not of unit length",
                estimated(224.0, 0.0, -3.25, step=65**0.5 * 5**0.5),
                "You move along g itself, thus by t times the norm of g. Move along the unit "
                "vector and multiply by the norm at the end.",
            ),
            Mistake(
                "norm forgotten",
                estimated(12.151588, 0.0, -0.372581),
                "This is H times the unit vector. Multiply by the norm of g.",
            ),
            Mistake(
                "divided by t",
                estimated(195.93846, 0.0, -6.007692),
                "Twice the right result: the two points are 2t apart.",
            ),
            Mistake(
                "exact",
                estimated(96.0, 0.0, -3.0, step=0.0),
                "This is Hg itself. The estimate with the step that is given is wanted, with the "
                "error that it has.",
            ),
            Mistake(
                "square root",
                estimated(*CENTRAL, step=0.00550245),
                "The estimate is right, your own step is the square root of the machine epsilon. "
                "That is the rule for one-sided differences; a central one takes the cube root.",
            ),
            Mistake(
                "no scale",
                estimated(*CENTRAL, step=1.0),
                "The estimate is right, your own step lacks the factor max(1, |w|).",
            ),
            Mistake(
                "called too often",
                estimated(*CENTRAL, few=False),
                "The numbers are right, but you call the gradient more than three times.",
            ),
        ),
    ),
}
