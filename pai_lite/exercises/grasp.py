"""Exercises of the chapter on gradient flow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, chosen_of

PREFIX = "grasp"

Loss = Callable[[Tensor], Tensor]

POINT = torch.tensor([0.7, -1.2, 0.4, -0.5], dtype=torch.float64)
FACTORS = torch.tensor([1.0, -0.5, 2.0, 0.3], dtype=torch.float64)


def coupled(w: Tensor) -> Tensor:
    """Return a smooth loss whose weights interact."""
    return torch.tanh(w @ FACTORS).square() + (w[:-1] * w[1:]).square().sum() / 4


def double_backward(loss: Loss, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient and the Hessian-gradient product."""
    leaf = w.clone().requires_grad_()
    (g,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (product,) = torch.autograd.grad(g @ g.detach(), leaf)
    return g.detach(), product


def grasp_score(loss: Loss, w: Tensor) -> Tensor:
    """Return GraSP's scores of a vector of weights."""
    return w * double_backward(loss, w)[1]


def first_backward_only(loss: Loss, w: Tensor) -> Tensor:
    """Use the gradient in the place of the product, a mistake."""
    return w * double_backward(loss, w)[0]


def probe_loss(answer: Callable[[Loss, Tensor], Tensor]) -> Tensor:
    """Call an answer on a loss of four weights."""
    return answer(coupled, POINT.clone()).detach()


def residual(factor: float, share: float) -> float:
    """Return the part of a squared residual that three steps leave."""
    return factor**6 * share


FIRST = (8.0, residual(0.2, 1.0) + residual(0.8, 4.0))
SECOND = (12.0, residual(0.52, 5.0))

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=0,
        praise="The smallest z goes first: its removal would raise the gradient's norm most.",
        hint="Compute Hg, multiply by w with its sign, and remove the smallest product.",
        mistakes=(
            Mistake(
                "other end",
                2,
                "That weight has the largest z, so its removal would lower the norm most: it is "
                "the last to go. In the paper's sign, S = -z, the largest S goes first.",
            ),
            Mistake(
                "absolute value",
                1,
                "That z is the smallest in absolute value. This is the variant grasp-abs; GraSP "
                "keeps the sign. (Or you counted from 1: the first weight has the index 0.)",
            ),
            Mistake(
                "index from 1",
                3,
                "There is no index 3: the first weight has the index 0. And the last weight, with "
                "the largest z, is the last to go.",
            ),
        ),
    ),
    2: Exercise(
        right=0.35,
        praise="Curvature along the gradient takes back an eighth of what the slope promises.",
        hint="L(w) - L(w - alpha g) to second order: alpha g'g minus half alpha squared g'Hg.",
        mistakes=(
            Mistake("first order", 0.4, "That is alpha g'g; the curvature term is missing."),
            Mistake(
                "step uphill",
                0.45,
                "You stepped along +g, as the paper's equation 6 does. Training steps along -g, "
                "and then curvature lowers the gain.",
            ),
            Mistake("no half", 0.3, "The second-order term of a Taylor series carries 1/2."),
            Mistake(
                "quotient",
                3.5,
                "That is the gain divided by the learning rate; multiply by alpha once more.",
            ),
            Mistake("change", -0.35, "That is loss after minus loss before; the loss falls."),
        ),
    ),
    3: Exercise(
        right=grasp_score,
        praise="Two backward passes, the second through the first, and no n by n matrix.",
        hint="Take the gradient with create_graph=True, multiply it with a detached copy of "
        "itself, and take the gradient of that number.",
        probe=probe_loss,
        mistakes=(
            Mistake(
                "nothing held",
                lambda loss, w: 2 * grasp_score(loss, w),
                "Your scores are twice the right ones: both factors of g'g were differentiated. "
                "Detach one of them. (The ranking would be the same.)",
            ),
            Mistake(
                "sign",
                lambda loss, w: -grasp_score(loss, w),
                "This is the paper's S = -w * Hg. Here larger means keep, so the sign turns.",
            ),
            Mistake(
                "no weight",
                lambda loss, w: double_backward(loss, w)[1],
                "This is Hg, the direction in which the norm grows; multiply it by w.",
            ),
            Mistake(
                "absolute value",
                lambda loss, w: grasp_score(loss, w).abs(),
                "The score keeps its sign. With the absolute value it is grasp-abs.",
            ),
            Mistake(
                "one pass",
                first_backward_only,
                "This is w * g: you multiplied by the gradient where Hg belongs. It is the case "
                "H = I.",
            ),
        ),
    ),
    4: Exercise(
        right="bc",
        praise="SNIP is blind to the rescaling of (c); the norm of a gradient is not.",
        hint="What multiplies all scores by one factor, what replaces the loss, and what weighs "
        "the layers differently?",
        probe=chosen_of("abcd"),
        mistakes=(
            Mistake("scale of the loss", "abc", "(a) multiplies all scores by 100: same order."),
            Mistake(
                "temperature only",
                "b",
                "b is right. For (c) write out g' and H': the sum over j in (Hg)_i is weighted "
                "with the inverse square of each layer's factor.",
            ),
            Mistake(
                "rescaling only",
                "c",
                "c is right. For (b), the temperature is no common factor: at 200 the loss that "
                "is differentiated is nearly linear in the logits.",
            ),
            Mistake(
                "doubled images",
                "bcd",
                "b and c are right. With each image twice the mean loss is the same function of "
                "the weights, BatchNorm's statistics included.",
            ),
        ),
    ),
    5: Exercise(
        right=-1.19,
        praise="In front of a BatchNorm the scores of a channel add up to minus its squared norm.",
        hint="The three scores add up to minus the squared norm of the channel's gradient.",
        mistakes=(
            Mistake(
                "sum zero",
                0.5,
                "You let the scores add up to 0. That is SNIP's signed sum; GraSP's is minus the "
                "squared norm of the gradient.",
            ),
            Mistake(
                "sign",
                2.19,
                "The sum is minus the squared norm: shrinking the channel raises the gradient.",
            ),
            Mistake("norm", -0.8, "You used the norm, 1.3; the sum is minus its square."),
            Mistake("whole sum", -1.69, "That is the sum of all three; subtract the other two."),
        ),
    ),
    6: Exercise(
        right=(FIRST, SECOND),
        praise="The second kernel has the smaller trace and learns more: what counts is where the "
        "residual lies.",
        hint="The norm is the sum of eigenvalue times squared projection. After t steps each "
        "projection has been multiplied by (1 - alpha * eigenvalue) to the power t.",
        mistakes=(
            Mistake(
                "not squared",
                ((6.0, 0.2**3 + 0.8**3 * 2), (7.2, 0.52**3 * 3)),
                "The projections enter squared, and so do their factors: the power is 2t = 6.",
            ),
            Mistake(
                "power t",
                ((8.0, 0.2**3 + 0.8**3 * 4), (12.0, 0.52**3 * 5)),
                "The norms of the gradients are right. The squared residual has the factors to "
                "the power 2t = 6, not t = 3.",
            ),
            Mistake(
                "squared eigenvalues",
                ((20.0, FIRST[1]), (28.8, SECOND[1])),
                "The residuals are right. The kernel is J J', so the norm has its eigenvalues to "
                "the first power.",
            ),
            Mistake(
                "projections exchanged",
                ((17.0, residual(0.2, 4.0) + residual(0.8, 1.0)), SECOND),
                "The second kernel is right. In the first the projection 1 goes with the "
                "eigenvalue 4 and the projection 2 with the eigenvalue 1.",
            ),
        ),
    ),
    7: Exercise(
        right=(0.55, -0.25),
        praise="Sum of scores plus squared norm is the same for every layer: a large gradient "
        "means a low sum.",
        hint="Half the derivative of the squared norm, when layer l is multiplied by a, is the "
        "sum of its scores. The logits become a f for every l; which layers' derivatives grow?",
        mistakes=(
            Mistake(
                "same sums",
                (0.25, 0.25),
                "That is the law for SNIP's signed scores. Here the layer that is multiplied is "
                "the one whose own derivatives do not grow, and it differs from layer to layer.",
            ),
            Mistake(
                "as with BatchNorm",
                (-0.1, -0.9),
                "In front of a BatchNorm the constant is 0. Without one it is that of the first "
                "layer, 0.25 + 0.4.",
            ),
            Mistake(
                "wrong sign",
                (-0.05, 0.75),
                "You let sum minus squared norm be the constant. Multiplying a layer lets all "
                "gradients grow but its own, so its own squared norm is what is missing.",
            ),
            Mistake(
                "constant forgotten",
                (1.3, 0.5),
                "These are the squared norms of the other layers alone. The change of the "
                "gradient in the logits adds a constant, which the first layer tells.",
            ),
        ),
    ),
}
