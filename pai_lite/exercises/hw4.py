"""Checks of assignment 4, on meta-gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, called_on

PREFIX = "hw4"

Loss = Callable[[Tensor], Tensor]

WEIGHTS = torch.tensor([0.8, -0.5, 1.2], dtype=torch.float64)
POINTS = torch.tensor([[1.0, 0.5, -0.4], [-0.6, 1.1, 0.3], [0.2, -0.7, 0.9]], dtype=torch.float64)
ALPHAS = [0.5, 0.2]
MU, LAM = 0.6, 0.4
# What training on the three losses with these settings makes of the weights.
PATH = [
    WEIGHTS,
    torch.tensor([-0.25877550, -0.58688775, 1.06351020], dtype=torch.float64),
    torch.tensor([-0.35530321, -0.63554460, 0.86740638], dtype=torch.float64),
]

MATRIX = torch.tensor([[0.6, -0.9], [1.1, 0.4]], dtype=torch.float64)
BIAS = torch.tensor([0.3, -0.7], dtype=torch.float64)


def losses() -> list[Loss]:
    """Return three losses of a vector of three weights, none of them quadratic."""
    return [lambda w, x=x: (w @ x).sin() + (w * x).square().sum() / 2 for x in POINTS]


def network_losses() -> list[Callable[[list[Tensor]], Tensor]]:
    """Return three losses of a matrix and a bias."""
    inputs = POINTS[:, :2]
    return [lambda v, x=x: (v[0] @ x + v[1]).tanh().square().sum() + v[0].prod() for x in inputs]


def numbers(*values: float) -> Tensor:
    """Return a vector in double precision."""
    return torch.tensor(values, dtype=torch.float64)


# The derivative in the first weights, and those in the rates, on the three losses.
META = numbers(-0.0206544, -0.228293, 0.633389)
SLOPES = numbers(-0.299567, -0.933317)

EXERCISES: dict[int, Exercise] = {
    2: Exercise(
        right=numbers(-0.0663575, 0.177214, 0.408153),
        praise="The transposed Jacobian multiplies by the rates first and by the Hessian then.",
        hint="Test it with differences and train, which take a vector of rates too. The Hessian "
        "is taken at w on the inner loss, the last gradient at w_1 on the outer one.",
        probe=called_on(lambda: losses()[0], lambda: losses()[1], WEIGHTS.clone, POINTS[0].abs),
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
        ),
    ),
    3: Exercise(
        right=[numbers(1.33224, 1.37009, 1.73003, 0.864444).view(2, 2)],
        praise="Biases are trained and change the scores of the matrices, but have none.",
        hint="Keep the tensors you start from as leaves, build each list of weights from the one "
        "before with create_graph=True, and differentiate the last loss in the leaves.",
        probe=called_on(network_losses, lambda: [MATRIX.clone(), BIAS.clone()], lambda: 0.5),
        mistakes=(
            Mistake(
                "first order",
                [numbers(0.503758, 0.0734608, 0.945293, 0.111975).view(2, 2)],
                "Without create_graph=True the inner gradients are constants to autograd, and "
                "this is the first-order form.",
            ),
            Mistake(
                "biases not trained",
                [numbers(0.947448, 1.28036, 1.56781, 0.721431).view(2, 2)],
                "You trained the matrices only. The biases take part in every step.",
            ),
            Mistake(
                "biases scored",
                [
                    numbers(1.33224, 1.37009, 1.73003, 0.864444).view(2, 2),
                    numbers(0.288794, 0.181863),
                ],
                "There is a score too many: tensors of one dimension get none.",
            ),
            Mistake(
                "one batch",
                [numbers(0.966949, 1.11622, 0.343191, 0.598193).view(2, 2)],
                "All your steps use the first loss. Step t has a loss of its own.",
            ),
            Mistake(
                "keeps the sign",
                [-numbers(1.33224, 1.37009, 1.73003, 0.864444).view(2, 2)],
                "Your scores keep a sign. A score is an absolute value.",
            ),
            Mistake(
                "weights after training",
                [numbers(1.38926, 1.76266, 1.21967, 2.32326).view(2, 2)],
                "You multiplied by the weights after training. The coefficients stand before the "
                "initial ones.",
            ),
            Mistake(
                "a step on the last loss too",
                [numbers(6.94347, 9.34734, 8.81565, 5.10377).view(2, 2)],
                "You took a step on the last loss as well. It is only measured.",
            ),
        ),
    ),
    4: Exercise(
        right=(META, SLOPES),
        praise="The weights of the path are enough for both derivatives.",
        hint="Do the example of two steps by hand, then compare each result with differences: "
        "in w_0 through train, and in the rates through train.",
        probe=called_on(
            losses, lambda: [w.clone() for w in PATH], lambda: ALPHAS, lambda: MU, lambda: LAM
        ),
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
        ),
    ),
    5: Exercise(
        right=(52, 15, 10, 7),
        praise="For M = 10, s = 4 and c = 4. The last stretch is not the one that holds most.",
        hint="This is M = 10, s = 4 and c = 4. Write down, time by time, which weights are held "
        "with a and a graph. Return four integers in a tuple.",
        probe=called_on(lambda: 10, lambda: 4, lambda: 4),
        mistakes=(
            Mistake(
                "the last stretch holds most",
                (52, 15, 9, 7),
                "You counted the last stretch only. With M = 10 and c = 4 it is short; the one "
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
                "w_0 is a checkpoint too: with M = 10 and c = 4 there are w_0, w_4 and w_8.",
            ),
            Mistake(
                "the last weights stay",
                (52, 16, 10, 7),
                "The sweep drops w_M when a exists, before the first graph is made.",
            ),
            Mistake(
                "a is not counted", (51, 14, 9, 7), "The vector a counts 1 from when it exists."
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
        ),
    ),
}
