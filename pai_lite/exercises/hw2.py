"""Checks of assignment 2, on gradient flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, or_value, returned, same

PREFIX = "hw2"


def vector(*values: float) -> Tensor:
    """Return a vector in float64."""
    return torch.tensor(values, dtype=torch.float64)


def word(name: str, reason: str) -> Mistake:
    """Return a mistake of which the probe gives only the name."""
    return Mistake(name, name, reason)


def three_tensors(parameters: list[Tensor]) -> Tensor:
    """Return a loss of the first two of three tensors, of shapes (2,), (1, 2) and (1,)."""
    a, b, _ = parameters
    return a[0] ** 2 * a[1] + b[0, 0] * a[1] ** 2 + b[0, 1] ** 3 / 3


def plain_sum(parameters: list[Tensor]) -> Tensor:
    """Return a loss that is linear in all tensors together."""
    return parameters[0].sum() - 3 * parameters[1].sum()


def stays(part: Tensor) -> list[Any]:
    """Return what an answer has to leave as it is in a tensor."""
    held = None if part.grad is None else part.grad.tolist()
    return [part.requires_grad, held, part.tolist()]


@or_value
def probe_product(answer: Any) -> Any:
    """Return the product on three tensors, or a word on what else is wrong."""
    parts = [vector(1.0, -2.0), vector(0.5, 3.0).view(1, 2).requires_grad_(), vector(4.0)]
    parts[1].grad = torch.full_like(parts[1], 0.25)
    before = [stays(part) for part in parts]
    found = returned(answer, three_tensors, parts)
    if [stays(part) for part in parts] != before:
        return "changed"
    if not same(found, RIGHT_PRODUCT):
        return found
    if any(part.requires_grad for part in found):
        return "attached"
    try:
        flat = returned(answer, plain_sum, [vector(1.0, 2.0), vector(3.0)])
    except RuntimeError:
        return "linear"
    return found if same(flat, [vector(0.0, 0.0), vector(0.0)]) else "linear"


def product_of(*values: float) -> list[Tensor]:
    """Return a product with these entries, and zero for the idle tensor."""
    return [vector(*values[:2]), vector(*values[2:]).view(1, 2), vector(0.0)]


RIGHT_PRODUCT = product_of(14.0, -25.0, 4.0, 54.0)


def cubic_loss(w: Tensor) -> Tensor:
    """Return a loss of three weights."""
    return w[0] ** 2 * w[1] + w[0] * w[2]


EXACT = vector(-7.121094, -6.0, 0.890625)
FIRST = vector(-8.5, -7.0, 0.875)


@or_value
def probe_changes(answer: Any) -> Any:
    """Return both vectors at eps = 0.25, or only the first where that is wrong."""
    w = vector(1.0, -2.0, 0.5)
    exact, first = returned(answer, cubic_loss, w, 0.25)
    if not same(w, vector(1.0, -2.0, 0.5)):
        return "changed"
    return (exact, first) if same(exact, EXACT) else exact


def paper_scores() -> list[Tensor]:
    """Return the paper's scores of seven weights in two layers, two of them equal."""
    return [vector(0.5, 1.5, 2.0), vector(0.5, -3.0, -1.0, 0.25).view(2, 2)]


@or_value
def probe_masks(answer: Any) -> Any:
    """Return the masks at density 0.55 and the change, or only what is wrong before it."""
    scores = paper_scores()
    masks, change = returned(answer, scores, 0.55)
    if not same(scores, paper_scores()):
        return "changed"
    if any(mask.dtype != torch.bool for mask in masks):
        return "floats"
    if not same(list(masks), kept(0, 4, 5, 6)):
        return list(masks)
    few, _ = returned(answer, paper_scores(), 0.3)
    return float(change) if sum(int(mask.sum()) for mask in few) == 2 else "rounded"


def kept(*indices: int) -> list[Tensor]:
    """Return masks that keep these weights."""
    flat = torch.zeros(7, dtype=torch.bool)
    flat[list(indices)] = True
    return [flat[:3], flat[3:].view(2, 2)]


def cubes(w: Tensor) -> Tensor:
    """Return the gradient of the fifth question, which is zero where w is."""
    return w**3


def own_step(answer: Any, w: Tensor) -> float:
    """Return the step that an answer chooses at w, in units of u^(1/3)."""
    asked = []

    def watched(v: Tensor) -> Tensor:
        asked.append(float((v - w).double().norm()))
        return cubes(v)

    returned(answer, watched, w.clone())
    return max(asked, default=0.0) / torch.finfo(w.dtype).eps ** (1 / 3)


@or_value
def probe_difference(answer: Any) -> Any:
    """Return the steps that the answer chooses, or what is wrong with its estimate before it."""
    w, asked = vector(2.0, 0.0, -1.0), []
    estimate = returned(answer, lambda v: asked.append(1) or cubes(v), w, 0.5)
    if not same(w, vector(2.0, 0.0, -1.0)):
        return "changed"
    if not same(estimate, CENTRAL):
        return estimate
    if len(asked) > 3:
        return "calls"
    try:
        still = returned(answer, cubes, vector(0.0, 0.0))
    except ZeroDivisionError:
        return "still"
    if not same(still, vector(0.0, 0.0)):
        return "still"
    return [own_step(answer, v) for v in (w, w.float() / 100)]


CENTRAL = vector(97.96923, 0.0, -3.003846)

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=RIGHT_PRODUCT,
        praise="All blocks of H are there, idle tensors and a linear loss have zeros, and nothing "
        "is left behind.",
        hint="The loss here is a_0^2 a_1 + b_0 a_1^2 + b_1^3 / 3 at a = (1, -2), b = (0.5, 3), "
        "with b of shape (1, 2) and a third tensor that has no part. There g is "
        "(-4, -1, 4, 9, 0). A list of three tensors is wanted, of the shapes of these. Write down "
        "H and compare.",
        probe=probe_product,
        mistakes=(
            word("changed", "Values, requires_grad and .grad have to stay. Work on copies."),
            word("attached", "The numbers are right, but your results require gradients."),
            word("linear", "Right, but not for a loss that is linear in all: zeros are due."),
            Mistake(
                "nothing held",
                product_of(28.0, -50.0, 8.0, 108.0),
                "Twice the right product: both factors of g'g were differentiated. Hold one fixed.",
            ),
            Mistake("gradient", product_of(-4.0, -1.0, 4.0, 9.0), "This is g; multiply it by H."),
            Mistake(
                "ones",
                product_of(-2.0, -1.0, -4.0, 6.0),
                "This is H times a vector of ones: the sum of g was differentiated. The entries "
                "of g have to be weighted, each by its own fixed value.",
            ),
            Mistake(
                "blocks",
                product_of(14.0, -9.0, 0.0, 54.0),
                "Second derivatives between different tensors are missing. Sum over all tensors "
                "first, then take one gradient of the sum with respect to all of them.",
            ),
            Mistake("None", [*RIGHT_PRODUCT[:2], None], "An idle tensor gets zeros, not None."),
        ),
    ),
    2: Exercise(
        right=(EXACT, FIRST),
        praise="At a quarter of each weight two of the three estimates are off by about a sixth.",
        hint="The loss here is w_0^2 w_1 + w_0 w_2 at w = (1, -2, 0.5), with eps = 0.25. There "
        "g = (-3.5, 1, 1), so G = 14.25, and Hg = (17, -7, -3.5). Do one weight by hand.",
        probe=probe_changes,
        mistakes=(
            word("changed", "Your function changes w. Move a copy."),
            Mistake("swapped", FIRST, "The first vector holds the estimates; it is the second."),
            Mistake("sign", -EXACT, "A change is after minus before, positive where G grows."),
            Mistake("removal", vector(-14.0, -12.0, 3.75), "A weight loses only the share eps."),
            Mistake(
                "share kept",
                vector(-13.933594, -12.0, 2.765625),
                "Your weights keep the share eps. They lose it: (1 - eps) w_i is left.",
            ),
            Mistake("loss", vector(0.75, 0.5, -0.125), "This is the change of the loss, not of G."),
            Mistake(
                "norm", vector(-1.104916, -0.902636, 0.116178), "You took the norm, not its square."
            ),
            Mistake(
                "own entry",
                vector(-13.371094, -7.0, -0.109375),
                "You left the entry of weight i out of the gradient. G counts all entries.",
            ),
            Mistake(
                "slope", (EXACT, -FIRST), "The estimates' sign is wrong: the move is -eps w_i."
            ),
            Mistake("factor", (EXACT, FIRST / 2), "The derivative of a square has a factor 2."),
            Mistake("share", (EXACT, 4 * FIRST), "The estimates are those of a whole removal."),
            Mistake(
                "weight forgotten",
                (EXACT, vector(-8.5, 3.5, 1.75)),
                "The estimates lack the weights: the move is -eps w_i along e_i, not -eps.",
            ),
        ),
    ),
    4: Exercise(
        right=8.0,
        praise="The largest S went, four of seven stayed, and G should grow by 8.",
        hint="The scores are (0.5, 1.5, 2) and ((0.5, -3), (-1, 0.25)) at density 0.55, so four "
        "weights stay, of all seven. Which? Then sum up, over those that go, what each does to "
        "G. The masks are of dtype torch.bool and of the scores' shapes.",
        probe=probe_masks,
        mistakes=(
            word("changed", "Your function changes the scores. Work on copies."),
            word("floats", "The masks should be of dtype torch.bool."),
            word("rounded", "At density 0.3 two of the seven stay: 2.1 is rounded, not up."),
            Mistake(
                "other end",
                kept(0, 1, 2, 3),
                "You keep the largest S, as if S were a score in the sense of this book. S says "
                "what to remove.",
            ),
            Mistake("inverted", kept(1, 2, 3), "True means kept; yours are True where removed."),
            Mistake("later first", kept(3, 4, 5, 6), "Of equal scores the earlier is kept first."),
            Mistake("each layer", kept(0, 1, 4, 5), "Rank all layers together, not each alone."),
            Mistake(
                "three kept",
                kept(4, 5, 6),
                "You keep three weights; 0.55 times 7 is 3.85, so four stay. Either you cut the "
                "fraction off, or you took the density for the sparsity.",
            ),
            Mistake("absolute value", kept(1, 2, 4, 5), "The score keeps its sign in the ranking."),
            Mistake(
                "sign of the change",
                -8.0,
                "The masks are right, the change has the wrong sign: the weights went because "
                "their removal makes G grow.",
            ),
            Mistake("factor", 4.0, "The masks are right, the change is half: G is a square."),
            Mistake("kept", -6.5, "You sum over the kept weights; those that go count."),
        ),
    ),
    5: Exercise(
        right=[5**0.5, 1.0],
        praise="The step 0.5 gives an error of two percent; your own steps follow the rule.",
        hint="The gradient here has the entries w_i^3, at w = (2, 0, -1) and with step 0.5. "
        "Check the length of your move: w + t g / |g| is at the distance t from w. Then look at "
        "your own step; it is 1.354e-5 at this w in float64, and 4.922e-3 at w / 100 in float32.",
        probe=probe_difference,
        mistakes=(
            word("changed", "Your function changes w. Move a copy."),
            word("calls", "The numbers are right, but you call the gradient over three times."),
            word("still", "Where the gradient is zero the answer is a vector of zeros."),
            Mistake(
                "forward",
                vector(121.7839, 0.0, -3.189898),
                "This is the forward difference. The central one asks on both sides of w.",
            ),
            Mistake(
                "not of unit length",
                vector(224.0, 0.0, -3.25),
                "You move along g itself, thus by t times the norm of g. Move along the unit "
                "vector and multiply by the norm at the end.",
            ),
            Mistake("unit", vector(12.151588, 0.0, -0.372581), "The factor |g| is missing."),
            Mistake("divided by t", 2 * CENTRAL, "Twice too much: the points are 2t apart."),
            Mistake("exact", vector(96.0, 0.0, -3.0), "This is Hg; the estimate has an error."),
            Mistake(
                "square root",
                [0.00550245, 0.07015388],
                "Your own step has the square root of the machine epsilon, as for one-sided "
                "differences; a central one takes the cube root.",
            ),
            Mistake("no scale", [1.0, 1.0], "Your own step lacks the factor max(1, |w|)."),
            Mistake("no one", [5**0.5, 0.0223607], "For |w| below 1 the factor is 1."),
            Mistake(
                "always float64",
                [5**0.5, 0.00123039],
                "Your own step in float32 has the machine epsilon of float64.",
            ),
        ),
    ),
}
