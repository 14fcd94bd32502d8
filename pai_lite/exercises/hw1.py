"""Checks of the first assignment, on connection sensitivity.

The answers are values on small inputs: the check of a graded question holds no solution.
"""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise, Mistake
from pai_lite.exercises.hw1_probes import (
    KEPT,
    SUMS,
    doubles,
    probe_collapse,
    probe_masks,
    probe_score,
    probe_units,
    sums,
)

PREFIX = "hw1"

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=doubles(0.28125, 2.25, 0.0),
        praise="Three examples count three times as much as one, and what cancels scores zero.",
        hint="The batches have 1 and 3 examples and the losses sum of w^3 and minus sum of w^2, "
        "at w = (0.5, -1, 2). Compute the gradient over all four examples by hand, then the "
        "score.",
        probe=probe_score,
        mistakes=(
            Mistake(
                "plain mean",
                doubles(0.0625, 2.5, 8.0),
                "You gave both batches the same weight. The second one has three of the four "
                "examples, and the mean over all examples says so.",
            ),
            Mistake(
                "absolute value first",
                doubles(0.46875, 2.25, 12.0),
                "You took absolute values before averaging. On the third weight the two batches "
                "pull in opposite directions and cancel; your score counts them as importance.",
            ),
            Mistake(
                "sum",
                doubles(1.125, 9.0, 0.0),
                "You summed over the examples. The order is right, but the loss is a mean: "
                "the scores must not grow with the number of examples.",
            ),
            Mistake(
                "sign",
                doubles(-0.28125, -2.25, 0.0),
                "Your scores keep a sign. A weight whose removal would lower the loss and one "
                "whose removal would raise it both matter: take the absolute value.",
            ),
            Mistake(
                "gradient only",
                doubles(0.5625, 2.25, 0.0),
                "This is the gradient in the weight. The score is the derivative in a "
                "coefficient in front of the weight, which has one more factor.",
            ),
            Mistake(
                "changed",
                "w has changed",
                "Your function leaves a trace in w: a gradient, or a change of its values or "
                "of requires_grad. Work on a copy that is detached.",
            ),
            Mistake(
                "graph",
                "scores require gradients",
                "Your scores still require gradients: they hold on to the whole graph. "
                "Detach them.",
            ),
            Mistake(
                "kind",
                "another kind",
                "The scores must be one tensor, of the shape and dtype of w.",
            ),
        ),
    ),
    2: Exercise(
        right=KEPT,
        praise="Exactly k weights, and equals in the order of their places.",
        hint="The layers are [[0.5, 0.1, 0.5], [0, 0.3, 0.5]] and [0.5, 0.9, 0.1, -0.7], the "
        "densities 0.36 and 0.25, so k is 4 and 2. Write down the queue of all ten weights.",
        probe=probe_masks,
        mistakes=(
            Mistake(
                "threshold",
                [[[0, 2, 5], [0, 1]], [[0, 2, 5], [0, 1]]],
                "You keep every score that is at least the k-th largest. Four weights share the "
                "score 0.5, so a threshold keeps all of them: five weights where 4 and 2 are "
                "wanted.",
            ),
            Mistake(
                "strict threshold",
                [[[], [1]], [[], [1]]],
                "You keep the scores above the k-th largest. Four weights share the score 0.5, "
                "so a threshold keeps none of them: one weight where 4 and 2 are wanted.",
            ),
            Mistake(
                "by layer",
                [[[0, 2], [1]], [[0, 2], [1]]],
                "You kept a share of each layer. The k largest are meant over all layers "
                "together, whatever that leaves in a layer.",
            ),
            Mistake(
                "other equals",
                "other equals",
                "Among equal scores you keep others than those that come first: the first layer, "
                "then the lower flat index. topk promises no order among equals, and reversing "
                "an ascending order turns it around.",
            ),
            Mistake(
                "signs",
                [[[0, 2], [1, 3]], [[], [1, 3]]],
                "You kept the weight of score -0.7: you ranked absolute values. Larger means "
                "keep, with its sign.",
            ),
            Mistake(
                "rounded down", [[[0, 2], [1]], [[0], [1]]], "You cut k off: 3.6 is rounded to 4."
            ),
            Mistake(
                "rounded up",
                [[[0, 2, 5], [1]], [[0, 2], [1]]],
                "You round 2.5 up. round(2.5) is 2 in Python: a half goes to the even number.",
            ),
            Mistake(
                "not boolean",
                "not boolean",
                "The masks must have dtype torch.bool; numbers would multiply, but not select.",
            ),
            Mistake(
                "kind",
                "another kind",
                "Return a list with one mask for each layer, a tensor of the shape of its scores.",
            ),
            Mistake(
                "changed",
                "scores have changed",
                "Your function writes into the scores. Work on a copy.",
            ),
            Mistake(
                "precision",
                "close scores taken for equal",
                "Right on this example, but between the scores 1 and 1 + 1e-9, in float64, you do "
                "not keep the larger: to float32 they are equal.",
            ),
            Mistake(
                "NaN",
                "NaN passes",
                "Right on this example, but a score that is NaN raises no ValueError.",
            ),
        ),
    ),
    3: Exercise(
        right=[[2, 0], [5, 1], [10, 1]],
        praise="The place of a weight in the queue says when it comes; the rest is a maximum.",
        hint="The layers are those of the check of question 2, and r is 1, 2 and 5. Number the "
        "ten weights by their places in the queue, from 1. Equal scores have an order "
        "too. Which place has the r-th weight of each layer?",
        probe=probe_collapse,
        mistakes=(
            Mistake(
                "one too few",
                [[1, 0], [4, 1], [9, 1]],
                "Your k is one too small: with it, some layer still keeps too few weights.",
            ),
            Mistake(
                "all equals first",
                [[5, 0], [5, 0], [10, 1]],
                "You counted all weights with a score of at least that of the weight that the "
                "layer waits for. Of its equals only those before it in the queue come first.",
            ),
            Mistake(
                "no equal first",
                [[2, 0], [2, 0], [10, 1]],
                "You counted only larger scores. Equal scores that come before it in the queue "
                "are kept first.",
            ),
            Mistake(
                "no equal of another layer",
                [[2, 0], [3, 0], [10, 1]],
                "Of the other layer you counted only larger scores. Equal scores that come before "
                "in the queue are kept first.",
            ),
            Mistake(
                "always one",
                [[2, 0], [2, 0], [2, 0]],
                "Your answer does not depend on r: it is that for one weight in every layer.",
            ),
            Mistake(
                "from one",
                [[2, 1], [5, 2], [10, 2]],
                "The numbers k are right. Layers are counted from 0.",
            ),
            Mistake(
                "swapped",
                [[0, 2], [1, 5], [1, 10]],
                "Both numbers are right, in the wrong order: k comes first, then the layer.",
            ),
            Mistake(
                "first to be safe",
                [[2, 1], [5, 0], [10, 0]],
                "The numbers k are right. Your layer is not the one that falls short when one "
                "weight less is kept.",
            ),
            Mistake(
                "kind",
                "another kind",
                "Return a tuple of k and the layer, both of type int; int(...) makes one of a "
                "tensor with a single entry.",
            ),
        ),
    ),
    4: Exercise(
        right=SUMS,
        praise="Rows lead into a unit and columns out of it. For this loss the two sums differ; "
        "with ReLU they will not.",
        hint="The loss is the sum of W_1 squared plus the sum of W_2 cubed, W_1 = [[1, 2], "
        "[3, -1]] and W_2 = [[2, 1], [-1, 1]]. Write down both matrices of products w g, 2 w^2 "
        "and 3 w^3, and sum one along rows and the other along columns.",
        probe=probe_units,
        mistakes=(
            Mistake(
                "rows and columns",
                sums((20.0, 10.0), (27.0, 0.0)),
                "You summed columns of W_1 and rows of W_2. Row v of W_1 leads into unit v, "
                "column v of W_2 leads out of it.",
            ),
            Mistake(
                "rows only",
                sums((10.0, 20.0), (27.0, 0.0)),
                "The sums into the units are right. Out of unit v leads column v of W_2, not "
                "row v.",
            ),
            Mistake(
                "absolute values",
                sums((10.0, 20.0), (27.0, 6.0)),
                "You summed absolute values, the scores. The law is one of the products with "
                "their signs, in which terms can cancel.",
            ),
            Mistake(
                "gradients",
                sums((6.0, 4.0), (15.0, 6.0)),
                "You summed gradients; every term is a weight times its gradient.",
            ),
            Mistake(
                "swapped",
                sums((21.0, 6.0), (10.0, 20.0)),
                "The sums are right; those into the units come first.",
            ),
            Mistake(
                "kind",
                "another kind",
                "Return a list with one tensor of shape (2, units) for each pair of layers in a "
                "row, here a single one: two vectors on top of each other, not side by side.",
            ),
            Mistake(
                "graph",
                "sums require gradients",
                "Your sums still require gradients. Detach them.",
            ),
            Mistake(
                "length",
                "another length",
                "Right for two layers. For three, the list holds two tensors of shape (2, units), "
                "and for one it is empty.",
            ),
            Mistake(
                "changed",
                "W has changed",
                "Your function leaves a trace in W: a gradient, or a change of its values or "
                "of requires_grad. Work on copies that are detached.",
            ),
        ),
    ),
}
