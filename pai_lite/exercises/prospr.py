"""Exercises of the chapter "Meta-gradients: ProsPr"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, chosen_of

PREFIX = "prospr"

Loss = Callable[[Tensor], Tensor]

WEIGHTS = torch.tensor([0.6, 1.1, -0.4], dtype=torch.float64)
POINTS = torch.tensor([[1.0, 0.5, -0.3], [-0.4, 1.2, 0.8], [0.7, -0.9, 1.5]], dtype=torch.float64)
# Three symmetric matrices that do not commute, and a last gradient.
HESSIANS = torch.tensor(
    [
        [[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.6]],
        [[0.4, -0.7, 0.2], [-0.7, 1.5, 0.0], [0.2, 0.0, 3.0]],
        [[1.0, 0.3, 0.9], [0.3, -0.5, 0.4], [0.9, 0.4, 2.2]],
    ],
    dtype=torch.float64,
)
GRADIENT = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)


def losses() -> list[Loss]:
    """Return three losses of a vector of weights, none of them quadratic."""
    return [lambda w, x=x: torch.tanh(w * x).sum().square() + (w * x).sum().exp() for x in POINTS]


def unrolled(
    w: Tensor,
    losses: list[Loss],
    alpha: float,
    *,
    graph: bool = True,
    reuse: bool = False,
    inner: bool = False,
    last_weight: bool = False,
) -> Tensor:
    """Return the signed scores of ProsPr; every option but the defaults is a mistake."""
    w_0 = w.detach().requires_grad_()
    w_t = w_0
    for loss in losses[:-1]:
        (g,) = torch.autograd.grad((losses[0] if reuse else loss)(w_t), w_t, create_graph=graph)
        w_t = w_t - alpha * g
    (a,) = torch.autograd.grad(losses[-2 if inner else -1](w_t), w_0)
    return ((w_t if last_weight else w) * a).detach()


def swept(
    H: Tensor,
    g: Tensor,
    alpha: float,
    mu: float,
    lam: float,
    *,
    forwards: bool = False,
    decay: bool = True,
    carry: bool = True,
    late: bool = False,
    sign: float = -1.0,
) -> Tensor:
    """Return the meta-gradient from explicit Hessians; every option but the defaults errs."""
    a, b = g, torch.zeros_like(g)
    for H_t in H if forwards else H.flip(0):
        old, b = b, mu * b * carry + sign * alpha * a
        b_used = mu * old if late else b
        a = a + H_t @ b_used + lam * b_used * decay
    return a


def nesterov(
    H: Tensor,
    g: Tensor,
    alpha: float,
    mu: float,
    *,
    direct: bool = True,
    ahead: bool = True,
    twice: bool = False,
) -> Tensor:
    """Return the meta-gradient through Nesterov's steps; the options other than default err."""
    a, b = g, torch.zeros_like(g)
    for H_t in H.flip(0):
        b = mu * b - alpha * (mu if ahead else 1.0) * a
        v = b - alpha * a if direct else b
        a = a + H_t @ (mu * v if twice else v)
    return a


def probe_unroll(answer: Callable[[Tensor, list[Loss], float], Tensor]) -> Tensor:
    """Call an answer on three losses."""
    return answer(WEIGHTS.clone(), losses(), 0.2)


def probe_sweep(answer: Callable[..., Tensor]) -> Tensor:
    """Call an answer on three Hessians with momentum and weight decay."""
    return answer(HESSIANS.clone(), GRADIENT.clone(), 0.3, 0.8, 0.5)


def probe_nesterov(answer: Callable[..., Tensor]) -> Tensor:
    """Call an answer on three Hessians with Nesterov's momentum."""
    return answer(HESSIANS.clone(), GRADIENT.clone(), 0.3, 0.8)


GROWTH = tuple(abs(1 - 0.25 * nu) ** 6 for nu in (-0.5, 3, 10))

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=(0.43, 0.46),
        praise="Each weight's score contains the other's gradient: they interact while training.",
        hint="Form I - 0.1 H_0, multiply the gradient by it, then each entry by its weight.",
        mistakes=(
            Mistake(
                "first order", (0.5, 0.6), "That is |w g_1|: the factor I - 0.1 H_0 is missing."
            ),
            Mistake(
                "plus",
                (0.57, 0.74),
                "You added 0.1 H_0 g_1. The step goes against the gradient, so it is subtracted.",
            ),
            Mistake("signed", (0.43, -0.46), "The score is the absolute value."),
            Mistake(
                "meta-gradient",
                (0.43, 0.23),
                "That is the meta-gradient in absolute value; multiply by the initial weights.",
            ),
            Mistake(
                "diagonal",
                (0.4, 0.36),
                "You used the diagonal of H_0 only. The entries beside it are the interaction.",
            ),
        ),
    ),
    2: Exercise(
        right="abe",
        praise="It is SNIP when no step is taken in effect, or when steps change no gradient.",
        hint="Two things must hold: every factor is the identity, and the last gradient is that "
        "at the initial weights.",
        probe=chosen_of("abcde"),
        mistakes=(
            Mistake(
                "only no steps",
                "a",
                "With alpha = 0 the weights do not move either; and think of e: what is the "
                "Hessian of a linear function?",
            ),
            Mistake("no linear loss", "ab", "In e every Hessian is 0, and no gradient changes."),
            Mistake(
                "detached",
                "abce",
                "In c the Hessian is gone, but the weights have moved: it is the first-order "
                "form, with the gradient after the step.",
            ),
            Mistake(
                "first order",
                "abde",
                "In d the gradient is taken after three steps, so it is not SNIP's.",
            ),
            Mistake(
                "all",
                "abcde",
                "c and d drop the Hessians, but take the gradient after training has moved w.",
            ),
        ),
    ),
    3: Exercise(
        right=GROWTH,
        praise="The middle of the spectrum dies out and both of its ends grow.",
        hint="One step multiplies a component by 1 - alpha nu. There are six, and the absolute "
        "value is asked for.",
        mistakes=(
            Mistake(
                "one step", (1.125, 0.25, 1.5), "That is one step's factor; six are multiplied."
            ),
            Mistake(
                "first two terms",
                tuple(abs(1 - 6 * 0.25 * nu) for nu in (-0.5, 3, 10)),
                "1 - 6 alpha nu is the expansion for small alpha nu, and 2.5 is not small.",
            ),
            Mistake(
                "plus",
                tuple((1 + 0.25 * nu) ** 6 for nu in (-0.5, 3, 10)),
                "The step is downhill, so the factor is 1 - alpha nu.",
            ),
            Mistake(
                "clipped",
                (GROWTH[0], GROWTH[1], 0.0),
                "Above 2 / alpha the factor is below -1: it overshoots and grows. It does not "
                "stop at 0.",
            ),
        ),
    ),
    4: Exercise(
        right=lambda w, losses, alpha: unrolled(w, losses, alpha).abs(),
        praise="It agrees: the graph of every inner gradient was kept and walked through.",
        hint="Keep w_0 as a leaf that requires a gradient, build w_1, w_2, ... from it with "
        "create_graph=True, and differentiate the last loss in w_0.",
        probe=probe_unroll,
        mistakes=(
            Mistake(
                "first order",
                lambda w, losses, alpha: unrolled(w, losses, alpha, graph=False).abs(),
                "That is the first-order form: without create_graph=True the inner gradients are "
                "constants to autograd, and no Hessian appears.",
            ),
            Mistake("signed", unrolled, "The absolute value is missing."),
            Mistake(
                "one batch",
                lambda w, losses, alpha: unrolled(w, losses, alpha, reuse=True).abs(),
                "All your steps use the first loss. Step t has a loss of its own.",
            ),
            Mistake(
                "no outer batch",
                lambda w, losses, alpha: unrolled(w, losses, alpha, inner=True).abs(),
                "You measured the loss of the last step's batch again; the last loss is for that.",
            ),
            Mistake(
                "trained weight",
                lambda w, losses, alpha: unrolled(w, losses, alpha, last_weight=True).abs(),
                "You multiplied by the weights after training. The coefficient multiplies the "
                "initial ones.",
            ),
        ),
    ),
    5: Exercise(
        right=swept,
        praise="Five lines differentiate any number of steps with momentum and weight decay.",
        hint="Go through the Hessians from the last to the first; update b first, then use the "
        "new b for a.",
        probe=probe_sweep,
        mistakes=(
            Mistake(
                "forwards",
                lambda H, g, alpha, mu, lam: swept(H, g, alpha, mu, lam, forwards=True),
                "You took the first step's Hessian first. The sweep starts at the end, where g is.",
            ),
            Mistake(
                "no decay",
                lambda H, g, alpha, mu, lam: swept(H, g, alpha, mu, lam, decay=False),
                "Weight decay is missing: lambda w has a derivative too, lambda.",
            ),
            Mistake(
                "no momentum",
                lambda H, g, alpha, mu, lam: swept(H, g, alpha, mu, lam, carry=False),
                "b must carry over: a velocity acts on all later steps, with mu for each.",
            ),
            Mistake(
                "old b",
                lambda H, g, alpha, mu, lam: swept(H, g, alpha, mu, lam, late=True),
                "You used the b of the step before. u enters w at once: update b, then a.",
            ),
            Mistake(
                "sign",
                lambda H, g, alpha, mu, lam: swept(H, g, alpha, mu, lam, sign=1.0),
                "The weights move by minus alpha times the velocity: b gets - alpha a.",
            ),
        ),
    ),
    6: Exercise(
        right=(262_400, 2400 / 1025),
        praise="And each of the gradients is an ordinary one, for both.",
        hint="Count batches: M + 1 for ProsPr, rounds times batches for FORCE. The first number "
        "is an integer.",
        mistakes=(
            Mistake(
                "no last batch",
                (262_144, 2400 / 1024),
                "That is the paper's count of the steps. The last gradient needs a batch too.",
            ),
            Mistake("rounds", (262_400, 60 / 1025), "Each round of FORCE averages 40 gradients."),
            Mistake("inverted", (262_400, 1025 / 2400), "That is ProsPr's number over FORCE's."),
            Mistake("batches", (1025, 2400 / 1025), "That is batches; each has 256 images."),
        ),
    ),
    7: Exercise(
        right=nesterov,
        praise="A gradient that acts in two places is differentiated in two places.",
        hint="Write the derivative of the last loss in u_{t+1} (two ways) and in g_t (two ways), "
        "and multiply the latter by H_t.",
        probe=probe_nesterov,
        mistakes=(
            Mistake(
                "classical momentum",
                lambda H, g, alpha, mu: swept(H, g, alpha, mu, 0.0),
                "That is the sweep of classical momentum. Here g also enters w directly.",
            ),
            Mistake(
                "no direct way",
                lambda H, g, alpha, mu: nesterov(H, g, alpha, mu, direct=False),
                "g_t enters w_{t+1} directly too, with -alpha: H_t meets b - alpha a.",
            ),
            Mistake(
                "velocity at full weight",
                lambda H, g, alpha, mu: nesterov(H, g, alpha, mu, ahead=False),
                "The velocity enters the weights with mu: b gets - alpha mu a.",
            ),
            Mistake(
                "mu twice",
                lambda H, g, alpha, mu: nesterov(H, g, alpha, mu, twice=True),
                "g_t enters u_{t+1} with the factor 1, and w_{t+1} with -alpha: no mu there.",
            ),
        ),
    ),
}
