"""Exercises of the chapter "Progressive pruning: FORCE"."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, chosen_of

PREFIX = "force"

# (w, gradient at the pruned network, m, k): in the second, kept weights score zero.
STEPS = (
    ([1.0, -2.0, 0.5, 3.0, 1.5], [0.4, 0.1, 2.0, 0.5, -0.2], [1.0, 1.0, 1.0, 0.0, 1.0], 2),
    ([2.0, 1.0, 1.0, -1.0, 0.5], [0.0, 0.0, 0.0, 0.7, 0.0], [0.0, 0.0, 1.0, 1.0, 1.0], 2),
    ([1.0, 1.0, 1.0, 1.0, 4.0], [0.3, 0.2, 0.3, 0.3, 0.0], [1.0, 1.0, 1.0, 1.0, 0.0], 2),
)

# A network with two inputs, two hidden units and two outputs, on four points.
POINTS = torch.tensor([[0.5, -1.0], [1.5, 0.3], [-0.7, 0.9], [-1.2, -0.4]], dtype=torch.float64)
CLASSES = torch.tensor([0, 1, 1, 0])
WEIGHTS = (
    torch.tensor([1.1, -0.6, 0.8, 1.4, -1.2, 0.5, 0.9, -1.6], dtype=torch.float64),
    torch.tensor([-0.4, 1.7, 1.3, -0.9, 0.7, 1.1, -1.5, 0.3], dtype=torch.float64),
    torch.tensor([0.6, 0.9, -1.3, 0.4, 1.8, -0.7, -0.5, 1.2], dtype=torch.float64),
)
START = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)

GradientFunction = Callable[[Tensor], Tensor]


def loss(v: Tensor) -> Tensor:
    """Return the mean cross-entropy of the small network on its points."""
    hidden = torch.tanh(POINTS @ v[:4].view(2, 2).T)
    return torch.nn.functional.cross_entropy(hidden @ v[4:].view(2, 2).T, CLASSES)


def keep(z: Tensor, k: int) -> Tensor:
    """Return the mask of the k largest; ties go to the earlier index."""
    order = torch.argsort(z, descending=True, stable=True)
    return torch.zeros_like(z).index_fill(0, order[:k], 1.0)


def one_step(w: Tensor, gradient: Tensor, m: Tensor, k: int, regrow: bool) -> Tensor:
    """Return the mask after one step of progressive pruning."""
    z = (w * gradient).abs()
    return keep(z if regrow else torch.where(m == 1, z, -1.0), k)


def with_pruned_weights(w: Tensor, gradient: Tensor, m: Tensor, k: int, regrow: bool) -> Tensor:
    """Multiply by the pruned weights, a mistake."""
    return one_step(m * w, gradient, m, k, regrow)


def scored_zero(w: Tensor, gradient: Tensor, m: Tensor, k: int, regrow: bool) -> Tensor:
    """Give removed weights a score of zero, a mistake."""
    z = (w * gradient).abs()
    return keep(z if regrow else z * m, k)


def all_that_reach(w: Tensor, gradient: Tensor, m: Tensor, k: int, regrow: bool) -> Tensor:
    """Keep every score that reaches the k-th, a mistake."""
    z = (w * gradient).abs()
    z = z if regrow else torch.where(m == 1, z, -1.0)
    return (z >= z.sort(descending=True).values[k - 1]).to(z)


def kept_saliency(g: GradientFunction, w: Tensor, m: Tensor) -> float:
    """Return Z, measured at the pruned network."""
    return float((m * w * g(m * w)).abs().sum())


def best_exchange(m: Tensor, value: Callable[[Tensor], float]) -> Tensor:
    """Return the best mask that differs from m by one exchange."""
    masks = []
    for i in torch.nonzero(m == 1).flatten():
        for j in torch.nonzero(m == 0).flatten():
            new = m.clone()
            new[i], new[j] = 0.0, 1.0
            masks.append(new)
    return max(masks, key=value)


def climb(g: GradientFunction, w: Tensor, m: Tensor) -> Tensor:
    """Make the best exchange until none raises Z."""
    while True:
        new = best_exchange(m, lambda mask: kept_saliency(g, w, mask))
        if kept_saliency(g, w, new) <= kept_saliency(g, w, m) + 1e-9:
            return m
        m = new


def climb_once(g: GradientFunction, w: Tensor, m: Tensor) -> Tensor:
    """Stop after one exchange, a mistake."""
    new = best_exchange(m, lambda mask: kept_saliency(g, w, mask))
    return new if kept_saliency(g, w, new) > kept_saliency(g, w, m) + 1e-9 else m


def climb_dense(g: GradientFunction, w: Tensor, m: Tensor) -> Tensor:
    """Climb with the gradient of the dense network, a mistake: the end is SNIP's mask."""
    return keep((w * g(w)).abs(), int(m.sum()))


def climb_stale(g: GradientFunction, w: Tensor, m: Tensor) -> Tensor:
    """Climb with the gradient at the first mask, a mistake."""
    return keep((w * g(m * w)).abs(), int(m.sum()))


def probe_steps(answer: Callable[..., Tensor]) -> list[list[float]]:
    """Call an answer on three networks, with and without regrowth."""
    results = []
    for w, gradient, m, k in STEPS:
        vectors = (torch.tensor(v, dtype=torch.float64) for v in (w, gradient, m))
        w_, gradient_, m_ = vectors
        for regrow in (False, True):
            found = answer(w_.clone(), gradient_.clone(), m_.clone(), k, regrow)
            results.append(torch.as_tensor(found).double().tolist())
    return results


def probe_climbs(answer: Callable[..., Tensor]) -> list[list[float]]:
    """Call an answer on three networks."""
    g = torch.func.grad(loss)
    return [torch.as_tensor(answer(g, w.clone(), START.clone())).tolist() for w in WEIGHTS]


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=([2752, 1408, 64], [1024, 256, 64]),
        praise="Equal differences in the one, equal ratios in the other, and both end at k.",
        hint="Three equal differences lead from 4096 to 64; three equal ratios do too.",
        mistakes=(
            Mistake(
                "swapped",
                ([1024, 256, 64], [2752, 1408, 64]),
                "These are the right numbers, but the linear schedule comes first.",
            ),
            Mistake(
                "with the start",
                ([4096, 2752, 1408, 64], [4096, 1024, 256, 64]),
                "4096 is what is there before the first step. Three steps give three numbers.",
            ),
            Mistake(
                "ratio of one step too many",
                ([2752, 1408, 64], [1448, 512, 181]),
                "Your ratio is 64^(-1/4); from 4096 to 64 there are three steps, not four.",
            ),
            Mistake(
                "halving",
                ([2752, 1408, 64], [2048, 1024, 64]),
                "Your last step removes far more than the others. The ratio must be the same "
                "in all three, and its third power is 64 / 4096.",
            ),
        ),
    ),
    2: Exercise(
        right=(10, 999),
        praise="A logarithm against a reciprocal: a hundred times fewer steps.",
        hint="Exponential: d^(1/T) must be at least one half. Linear: look at the last step, from "
        "k + (n - k) / T to k.",
        mistakes=(
            Mistake(
                "rounded down",
                (9, 999),
                "With 9 steps each leaves 0.001^(1/9) = 0.46 of the weights and removes more "
                "than half. Round up.",
            ),
            Mistake(
                "natural logarithm",
                (7, 999),
                "ln 1000 is 6.9, but it is to be divided by ln 2: each step divides by 2, not e.",
            ),
            Mistake(
                "one too many",
                (10, 1000),
                "In the last linear step (n - k) / T weights go and k stay. At most half go if "
                "(n - k) / T <= k, and (n - k) / k is 1/d - 1.",
            ),
            Mistake(
                "first step",
                (10, 2),
                "Two linear steps remove about half of n in the first, but then nearly all "
                "that is left. The last step is the hard one.",
            ),
        ),
    ),
    3: Exercise(
        right=one_step,
        praise="The gradient is that of the pruned network, the factor is the dense weight.",
        hint="Score |w * gradient|, put removed weights below zero unless they may return, and "
        "keep exactly k, the earlier index first among equals.",
        probe=probe_steps,
        mistakes=(
            Mistake(
                "pruned weights",
                with_pruned_weights,
                "You multiply by m * w, so a removed weight scores zero and can never return. "
                "The derivative in its coefficient has the dense weight as a factor.",
            ),
            Mistake(
                "always regrow",
                lambda w, gradient, m, k, _regrow: one_step(w, gradient, m, k, True),
                "You let removed weights return even where regrow is False.",
            ),
            Mistake(
                "never regrow",
                lambda w, gradient, m, k, _regrow: one_step(w, gradient, m, k, False),
                "You never let a removed weight return, even where regrow is True.",
            ),
            Mistake(
                "zero",
                scored_zero,
                "You give removed weights the score zero. In the second test kept weights score "
                "zero as well, and by the tie a removed one comes back. It needs less than zero.",
            ),
            Mistake(
                "reaching the threshold",
                all_that_reach,
                "You keep all scores that reach the k-th, which are more than k where scores tie.",
            ),
            Mistake(
                "no absolute value",
                lambda w, gradient, m, k, regrow: keep(
                    w * gradient if regrow else torch.where(m == 1, w * gradient, -torch.inf), k
                ),
                "The absolute value is missing: weights with a negative slope go first.",
            ),
        ),
    ),
    4: Exercise(
        right=((0.0, 3.0, 0.0), (0.0, 0.0, 0.0)),
        praise="A path with two gaps is invisible: no single return would complete it.",
        hint="The derivative in c_i contains the coefficients of the other two weights.",
        mistakes=(
            Mistake(
                "at the dense network",
                ((3.0, 3.0, 3.0), (3.0, 3.0, 3.0)),
                "These are SNIP's scores. At a mask, the coefficients of the other weights are "
                "0 where they are removed.",
            ),
            Mistake(
                "kept ones score",
                ((3.0, 0.0, 3.0), (3.0, 0.0, 0.0)),
                "It is the other way round. Nothing flows through a broken path, so its kept "
                "weights have no slope; the weight that would mend it has.",
            ),
            Mistake(
                "removed ones score",
                ((0.0, 3.0, 0.0), (0.0, 3.0, 3.0)),
                "With two weights missing, the return of one leaves the path broken: its slope "
                "is zero.",
            ),
            Mistake(
                "gradient only",
                ((0.0, 6.0, 0.0), (0.0, 0.0, 0.0)),
                "That is the gradient in the weight. The slope in its coefficient has the weight "
                "as a factor too.",
            ),
        ),
    ),
    5: Exercise(
        right="acd",
        praise="Only (b) is false: it is the value of a removed weight that is zero, not its "
        "slope.",
        hint="Try each: (a) what could return in the first step? (b) which factor does the slope "
        "have? (c) a sum with one term; (d) insert t / T in the exponent.",
        probe=chosen_of("abcd"),
        mistakes=(
            Mistake(
                "all",
                "abcd",
                "(b) is false: the removed weight is zero in the network, but the derivative in "
                "its coefficient is its dense value times the gradient.",
            ),
            Mistake(
                "without c",
                "ad",
                "(c) is true as well: the signed scores of a channel before BatchNorm add up to "
                "zero, and here the sum has one term.",
            ),
            Mistake("without a", "cd", "(a) is true as well: before step one nothing is removed."),
            Mistake(
                "without d",
                "ac",
                "(d) is true as well: after 40 of 60 steps the density is 0.001^(2/3) = 0.01.",
            ),
        ),
    ),
    6: Exercise(
        right=(1.0, 0.5),
        praise="Below half, the layers of large scores lose most; above it they lose least.",
        hint="With a quarter removed, is the threshold above or below zero? And at which threshold "
        "does the standard deviation not matter?",
        mistakes=(
            Mistake(
                "as if absolute",
                (3.0, 0.5),
                "An absolute score would keep more of that layer. A signed one has a negative "
                "threshold here, and more of the wide layer lies below it.",
            ),
            Mistake(
                "density of the run",
                (1.0, 0.75),
                "At that density the threshold is negative and the layers differ. They agree at "
                "threshold zero.",
            ),
            Mistake(
                "only when dense",
                (1.0, 1.0),
                "There nothing is removed, so they agree trivially. Find the threshold that is as "
                "many standard deviations away from the mean in one layer as in the other.",
            ),
            Mistake(
                "the removed quarter",
                (1.0, 0.25),
                "At a density of a quarter the threshold is positive and the wide layer keeps "
                "more. They agree at threshold zero.",
            ),
        ),
    ),
    7: Exercise(
        right=climb,
        praise="A local optimum in fact, at a price of k (n - k) gradients a round.",
        hint="In each round try every pair of a kept and a removed weight, compute Z with the "
        "gradient at the new mask, and take the best pair if it raises Z.",
        probe=probe_climbs,
        mistakes=(
            Mistake(
                "one exchange",
                climb_once,
                "You stop after one exchange. Go on until no exchange raises Z.",
            ),
            Mistake(
                "dense gradient",
                climb_dense,
                "You use the gradient of the dense network. With a constant gradient every climb "
                "ends at the largest scores, which is SNIP.",
            ),
            Mistake(
                "stale gradient",
                climb_stale,
                "You keep the gradient of the mask that you started from. It must be taken at "
                "each new mask, for Z is measured there.",
            ),
            Mistake(
                "nothing done",
                lambda _g, _w, m: m,
                "You return the mask that was given, and an exchange raises its Z.",
            ),
        ),
    ),
}
