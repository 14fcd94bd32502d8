"""Exercises of the chapter on connection sensitivity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, chosen_of

PREFIX = "snip"

# Gradients of three batches for four weights; the third weight's gradient changes its sign.
WEIGHTS = torch.tensor([0.5, -2.0, 1.5, 0.1], dtype=torch.float64)
GRADIENTS = torch.tensor(
    [[0.2, 0.1, 0.9, 2.0], [0.4, 0.3, -1.0, 1.0], [0.0, -0.1, 0.4, 3.0]], dtype=torch.float64
)
LAYERS = (
    (torch.tensor([5.0, 3.0, 0.5]), torch.tensor([2.0, 1.0])),
    (torch.tensor([0.1, 0.2]), torch.tensor([0.9, 0.8, 0.3, 0.05])),
    (torch.tensor([1.0, 4.0]), torch.tensor([3.0, 0.5, 2.0])),
)


def batch_score(w: Tensor, g: Tensor) -> Tensor:
    """Return the connection sensitivity of weights (n,) from gradients (batches, n)."""
    return (w * g.mean(0)).abs()


def last_empty(a: Tensor, b: Tensor) -> int:
    """Return the largest k at which a global top-k leaves one of two layers empty."""
    winner, loser = (a, b) if a.max() > b.max() else (b, a)
    return int((winner > loser.max()).sum())


def above_smallest(a: Tensor, b: Tensor) -> int:
    """Compare with the other layer's smallest score, a mistake."""
    winner, loser = (a, b) if a.max() > b.max() else (b, a)
    return int((winner > loser.min()).sum())


def always_first(a: Tensor, b: Tensor) -> int:
    """Take the first layer for the one that survives, a mistake."""
    return int((a > b.max()).sum())


def probe_batches(answer: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Call an answer on three batches."""
    return answer(WEIGHTS.clone(), GRADIENTS.clone())


def probe_layers(answer: Callable[[Tensor, Tensor], int]) -> list[int]:
    """Call an answer on three pairs of layers."""
    return [int(answer(a.clone(), b.clone())) for a, b in LAYERS]


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=1,
        praise="The product decides, and its sign does not.",
        hint="Write down the four products, take their absolute values, and count from 0.",
        mistakes=(
            Mistake("magnitude", 0, "That weight is the largest, but its gradient is small."),
            Mistake("gradient", 2, "That gradient is the largest, but its weight is small."),
            Mistake(
                "signed",
                3,
                "That product is the largest with its sign. The score is its absolute value: "
                "a connection that lowers the loss and one that raises it both matter.",
            ),
        ),
    ),
    2: Exercise(
        right=batch_score,
        praise="Noise that changes its sign between batches cancels before the score is formed.",
        hint="Average the gradients over the batches, multiply by w, then take absolute values.",
        probe=probe_batches,
        mistakes=(
            Mistake(
                "average of scores",
                lambda w, g: (w * g).abs().mean(0),
                "You took absolute values before averaging. The third weight's gradient changes "
                "its sign between batches; your score counts that noise as importance.",
            ),
            Mistake(
                "sum",
                lambda w, g: (w * g.sum(0)).abs(),
                "You summed over the batches. The ranking is right, but the score now grows with "
                "their number; the loss of all batches is a mean.",
            ),
            Mistake(
                "signed",
                lambda w, g: w * g.mean(0),
                "The absolute value is missing: the most negative products would go first.",
            ),
            Mistake(
                "gradient only",
                lambda _w, g: g.mean(0).abs(),
                "The weight is missing: this is the derivative in w, not in c.",
            ),
        ),
    ),
    3: Exercise(
        right=(0.25, 1.0),
        praise="The weight's growth and the gradient's fall cancel in the product.",
        hint="The loss is unchanged, so the derivative in a weight that is four times as large "
        "is a quarter.",
        mistakes=(
            Mistake(
                "gradient unchanged",
                (1.0, 4.0),
                "The loss stays, but it is now a function of a larger weight: the same relative "
                "change is four times the absolute one, so the gradient is a quarter.",
            ),
            Mistake(
                "gradient grows",
                (4.0, 16.0),
                "The gradient falls when the weight grows: the next layer was divided by 4.",
            ),
            Mistake(
                "inverted",
                (4.0, 1.0),
                "The score is right. The gradient falls when the weight grows, so that the "
                "product stays.",
            ),
            Mistake(
                "score falls",
                (0.25, 0.25),
                "Your gradient is right. Multiply it by the new weight, which is 4 times the old.",
            ),
        ),
    ),
    4: Exercise(
        right="c",
        praise="Only a change that differs between layers can change a global ranking.",
        hint="A global top-k depends on the order of all scores. Which change can reorder them?",
        probe=chosen_of("abcd"),
        mistakes=(
            Mistake("scale of the loss", "a", "Ten times every score is the same order."),
            Mistake("global sum", "b", "One positive factor for all scores keeps their order."),
            Mistake(
                "square",
                "d",
                "Squaring is increasing on numbers that are not negative, so the order stays.",
            ),
            Mistake("both", "bc", "c is right. b divides all scores by one number."),
        ),
    ),
    5: Exercise(
        right=(3e-4, 1.5e-3, 1499),
        praise="Both bounds fall as 1 / n: the larger the layer, the fewer of its weights pass.",
        hint="The sum of the scores lies between |C| and the product of the norms. Divide by n "
        "for the means; for the count, see how many scores above tau fit into the largest sum.",
        mistakes=(
            Mistake(
                "sums",
                (0.6, 3.0, 1499),
                "These bound the sum of the scores; the mean divides by n.",
            ),
            Mistake(
                "no lower bound",
                (0.0, 1.5e-3, 1499),
                "If every score were 0 the signed sum would be 0 too, and it is -0.6.",
            ),
            Mistake(
                "one too many",
                (3e-4, 1.5e-3, 1500),
                "With 1500 weights above tau the sum would be above 3, and it cannot be.",
            ),
            Mistake(
                "all kept",
                (3e-4, 1.5e-3, 2000),
                "2000 weights above tau would have a sum above 4; the norms allow 3.",
            ),
        ),
    ),
    6: Exercise(
        right=last_empty,
        praise="A layer is empty exactly as long as k weights elsewhere outscore its best.",
        hint="The layer with the smaller maximum is the one that can be empty. How many weights "
        "of the other one come before its best?",
        probe=probe_layers,
        mistakes=(
            Mistake(
                "against the minimum",
                above_smallest,
                "You compared with the smallest score of the emptied layer. It has a weight as "
                "soon as its largest is reached.",
            ),
            Mistake(
                "always the first layer",
                always_first,
                "You assume that the first layer survives. In the second test the other one does.",
            ),
            Mistake(
                "one too many",
                lambda a, b: last_empty(a, b) + 1,
                "At that k the best weight of the emptied layer is kept: one too many.",
            ),
        ),
    ),
    7: Exercise(
        right=-1.8,
        praise="Most of the change is of second order, which the score does not see: curvature, "
        "and above all interaction.",
        hint="Insert S = {1, 2} and epsilon = 1 in the expansion, and keep the term with H_12 "
        "twice. Report loss after minus loss before.",
        mistakes=(
            Mistake("first order", -0.1, "That is the first-order term; add half of w'Hw."),
            Mistake(
                "diagonal only",
                -0.8,
                "The terms with H_12 and H_21 are missing: the two removals interact.",
            ),
            Mistake("no half", -3.5, "The second-order term of a Taylor series carries 1/2."),
            Mistake("sign", 1.8, "That is loss before minus loss after."),
            Mistake(
                "sign of the first term", -1.6, "The first-order term enters with a minus sign."
            ),
        ),
    ),
}
