"""Checks of assignment 4, on meta-gradients.

The answers are values on small inputs: the check of a graded question holds no solution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, or_value, returned, same
from pai_lite.exercises.hw4_probes import ALPHAS, NETWORK, PATH, POINTS, WEIGHTS, trial

PREFIX = "hw4"

ENTRIES = ("first", "second", "third", "fourth")
HELD = {(10, 4, 4): (52, 15, 10, 7), (12, 2, 3): (38, 15, 9, 8), (3, 2, 5): (11, 6, 6, 2)}


@or_value
def probe_step(answer: Any) -> Any:
    """Call an answer on two losses, weights and a rate for each."""
    given = [WEIGHTS, POINTS[0].abs()]
    return trial(lambda made, v: returned(answer, *made[:2], *v), STEP, given, ())


@or_value
def probe_scores(answer: Any) -> Any:
    """Call an answer on three losses of a network."""
    return trial(lambda made, v: returned(answer, made, v, 0.5), SCORES, NETWORK, (0, 1, 2))


@or_value
def probe_sweep(answer: Any) -> Any:
    """Call an answer on a path; say in words which part is right, if it is no known mistake."""
    right, order = (META, SLOPES), (2, 1, 0)
    found = trial(lambda made, v: returned(answer, made, v, ALPHAS, 0.6, 0.4), right, PATH, order)
    known = [right, *(mistake.answer for mistake in EXERCISES[4].mistakes)]
    if not isinstance(found, list | tuple) or any(same(found, other) for other in known):
        return found
    agree = tuple(map(same, found, right))
    return {(True, False): "only w_0", (False, True): "only rates"}.get(agree, found)


@or_value
def probe_held(answer: Any) -> Any:
    """Return the numbers for the first case if they are a known mistake, else the first wrong."""
    found = [tuple(returned(answer, *case)) for case in HELD]
    if any(same(found[0], mistake.answer) for mistake in EXERCISES[5].mistakes):
        return found[0]
    for (case, right), row in zip(HELD.items(), found, strict=True):
        if len(row) != 4:
            return found
        for entry, value, wanted in zip(ENTRIES, row, right, strict=True):
            if not same(value, wanted):
                return (case, entry)
    return found if all(type(x) is int for row in found for x in row) else "not int"


def numbers(*values: float) -> Tensor:
    """Return a vector in double precision."""
    return torch.tensor(values, dtype=torch.float64)


def scores(matrix: tuple[float, ...], kernel: tuple[float, ...]) -> list[Tensor]:
    """Return scores of the matrix and of the kernel of the network."""
    return [numbers(*matrix).view(2, 2), numbers(*kernel).view(1, 1, 1, 2)]


def broken(*words: str) -> tuple[Mistake, ...]:
    """Return what is said of right numbers with a broken promise."""
    return tuple(
        Mistake(word, word, f"The numbers are right, but {BROKEN[word]}") for word in words
    )


BROKEN = {
    "changed": "what was handed in has changed, or requires a gradient: work on detached copies.",
    "attached": "the result still requires gradients, and holds on to the graph: detach it.",
    "calls": "the losses are not called once each and in the order that the docstring says.",
    "dtype": "not all of them have the dtype of the weights.",
    "not int": "not all of them are of type int.",
}
# What is right: of question 2, of question 3, and the two results of question 4.
STEP = numbers(-0.0663575, 0.177214, 0.408153)
SCORES = scores((1.46078, 1.27066, 1.90903, 0.897064), (0.17976, 0.203251))
META = numbers(-0.0206544, -0.228293, 0.633389)
SLOPES = numbers(-0.299567, -0.933317)

EXERCISES: dict[int, Exercise] = {
    2: Exercise(
        right=STEP,
        praise="The transposed Jacobian multiplies by the rates first and by the Hessian then.",
        hint="Test it with differences and train, which take a vector of rates too. The Hessian "
        "is taken at w on the inner loss, the last gradient at w_1 on the outer one.",
        probe=probe_step,
        mistakes=(
            Mistake(
                "not transposed",
                numbers(-0.0689969, 0.193144, 0.392649),
                "You multiplied by the Jacobian of the step. The chain rule wants its transpose, "
                "and with different rates the two are not the same.",
            ),
            Mistake(
                "first order",
                numbers(-0.943618, 0.240449, 0.407703),
                "That is the gradient after the step, the first-order form. How w_1 moves with w "
                "is missing: keep the graph of the inner gradient.",
            ),
            Mistake(
                "plus",
                numbers(-1.82088, 0.303684, 0.407253),
                "The step goes against the gradient, so the product with the Hessian is "
                "subtracted.",
            ),
            Mistake(
                "outer gradient before the step",
                numbers(-0.0120928, 0.219007, 0.326022),
                "You took the gradient of the outer loss at w. It belongs to the weights after "
                "the step.",
            ),
            Mistake(
                "times the weights",
                numbers(-0.053086, -0.088607, 0.489783),
                "You multiplied by the weights. Here the derivative is wanted, not the score.",
            ),
            *broken("changed", "attached"),
        ),
    ),
    3: Exercise(
        right=SCORES,
        praise="Biases are trained and change the scores of the matrices, but have none.",
        hint="Keep the tensors you start from as leaves, build each list of weights from the one "
        "before with create_graph=True, and differentiate the last loss in the leaves.",
        probe=probe_scores,
        mistakes=(
            Mistake(
                "first order",
                scores((0.509131, 0.0733556, 0.916177, 0.180773), (0.0900034, 0.180007)),
                "Without create_graph=True the inner gradients are constants to autograd, and "
                "this is the first-order form.",
            ),
            Mistake(
                "biases not trained",
                scores((0.947448, 1.28036, 1.56781, 0.721431), (0.0412155, 0.0940316)),
                "You trained the matrices only. The biases take part in every step.",
            ),
            Mistake(
                "biases scored",
                [SCORES[0], numbers(0.408362, 0.320091), SCORES[1]],
                "There is a score too many: tensors of one dimension get none.",
            ),
            Mistake(
                "one batch",
                scores((2.29351, 2.86429, 2.87093, 1.68971), (0.375365, 0.412598)),
                "All your steps use the first loss. Step t has a loss of its own.",
            ),
            Mistake(
                "keeps the sign",
                [-SCORES[0], SCORES[1]],
                "Your scores keep a sign. A score is an absolute value.",
            ),
            Mistake(
                "weights after training",
                scores((1.63518, 1.75369, 1.50675, 2.02979), (0.023759, 0.0548197)),
                "You multiplied by the weights after training. The coefficients stand before the "
                "initial ones.",
            ),
            Mistake(
                "a step on the last loss too",
                scores((7.36452, 10.0786, 9.80745, 5.77438), (0.0194972, 0.0432977)),
                "You took a step on the last loss as well. It is only measured.",
            ),
            Mistake(
                "matrices only",
                SCORES[:1],
                "A score is missing: a kernel of four dimensions is pruned like a matrix.",
            ),
            *broken("changed", "attached", "calls"),
        ),
    ),
    4: Exercise(
        right=(META, SLOPES),
        praise="The weights of the path are enough for both derivatives.",
        hint="Wanted is a pair, and neither part is right. Do the example of two steps by hand, "
        "then compare the derivative in w_0 with differences through train; the rates come after.",
        probe=probe_sweep,
        mistakes=(
            Mistake(
                "forwards",
                (numbers(-0.033683, 0.0365266, 0.552146), numbers(-0.329006, -0.660109)),
                "You began with step 0. The last gradient belongs to the end of training, so the "
                "last step comes first.",
            ),
            Mistake(
                "old velocity",
                (numbers(0.0499498, -0.550877, 0.997083), numbers(-0.329006, -0.933317)),
                "You multiplied the Hessian by the derivative in the velocity from before it "
                "took up this step's -alpha_t a. The velocity acts on the weights at once.",
            ),
            Mistake(
                "no momentum",
                (numbers(-0.00393867, -0.271905, 0.702854), SLOPES),
                "The derivative in the velocity must be carried from step to step, with mu for "
                "each.",
            ),
            Mistake(
                "no decay",
                (numbers(-0.00684965, -0.377171, 0.956987), numbers(-0.325887, -0.933317)),
                "Weight decay is missing: the velocity depends on the weights through lambda "
                "too, not only through the gradient.",
            ),
            Mistake(
                "gradient for velocity",
                (META, numbers(0.257493, -0.14954)),
                "The derivative in w_0 is right. In the step a rate multiplies the whole "
                "velocity, not the gradient alone.",
            ),
            Mistake(
                "slopes after the update",
                (META, numbers(-0.0894936, -0.875981)),
                "The derivative in w_0 is right. For the rate of step t you used the derivative "
                "of the last loss in w_t; the rate acts on w_{t+1}.",
            ),
            Mistake(
                "slopes not divided",
                (META, numbers(-0.149783, -0.186663)),
                "The derivative in w_0 is right. What two neighbours of the path differ by is "
                "the velocity times the rate.",
            ),
            Mistake(
                "slopes of the other sign",
                (META, -SLOPES),
                "The derivative in w_0 is right, and those in the rates have the wrong sign: the "
                "velocity is subtracted.",
            ),
            Mistake(
                "order of the sweep",
                (META, SLOPES.flip(0)),
                "The derivative in w_0 is right, and those in the rates are in the order of the "
                "sweep: that of alpha_0 comes first.",
            ),
            Mistake(
                "only w_0",
                "only w_0",
                "The derivative in w_0 is right, those in the rates are not. Do the example by "
                "hand: which derivative do you hold when the sweep comes to step t?",
            ),
            Mistake(
                "only rates",
                "only rates",
                "The derivatives in the rates are right, that in w_0 is not. Look at what b "
                "brings along from the step before, and at lambda.",
            ),
            *broken("changed", "attached", "calls", "dtype"),
        ),
    ),
    5: Exercise(
        right=list(HELD.values()),
        praise="It is not always the last stretch that holds most.",
        hint="Return four integers in a tuple.",
        probe=probe_held,
        mistakes=(
            Mistake(
                "the last stretch holds most",
                (52, 15, 9, 7),
                "You counted the last stretch only. With M = 10 and D = 4 it is short; the one "
                "before it is full, and only one checkpoint fewer is held then.",
            ),
            Mistake(
                "all checkpoints beside a full stretch",
                (52, 15, 11, 7),
                "You counted all checkpoints beside a full stretch. When the sweep comes to the "
                "full stretch the last checkpoint has been dropped.",
            ),
            Mistake(
                "checkpoints rounded down",
                (52, 15, 10, 8),
                "w_0 is a checkpoint too: with M = 10 and D = 4 there are w_0, w_4 and w_8.",
            ),
            Mistake(
                "the last weights stay",
                (52, 16, 10, 7),
                "The sweep drops w_M when a exists, before the first graph is made.",
            ),
            Mistake(
                "a graph for each of the stretch",
                (52, 15, 22, 7),
                "The third way computes weights again without a graph, and then sweeps: one "
                "graph at a time.",
            ),
            Mistake(
                "all computed twice",
                (52, 15, 10, 10),
                "Checkpoints are held, so they are not computed a second time.",
            ),
            *broken("not int"),
            *(
                Mistake(
                    f"{entry} of {case}",
                    (case, entry),
                    "With M = {}, G = {} and D = {} ".format(*case)
                    + f"the {entry} number is wrong. "
                    "Write down, time by time, which weights are held with a and a graph.",
                )
                for case in HELD
                for entry in ENTRIES
            ),
        ),
    ),
}
