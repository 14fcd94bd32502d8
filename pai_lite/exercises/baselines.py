"""Exercises of chapter 2, Baselines."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.data import Data, load_data
from pai_lite.exercises.engine import Exercise, Mistake
from pai_lite.masks import Mask, prunable_parameters
from pai_lite.models import build_model
from pai_lite.pruning import prune
from pai_lite.recipes import Recipe
from pai_lite.training import fit

PREFIX = "baselines"

Densities = Callable[[Tensor, Tensor, int], Tensor]
Factor = Callable[[Tensor, Tensor, int], float]
Ticket = Callable[[torch.nn.Module, Data, Recipe, float, int], dict[str, Tensor]]


def two_sided(tau: Tensor, sigma: Tensor) -> Tensor:
    """Return the share of N(0, sigma^2) that lies farther than tau from zero."""
    return torch.erfc(tau / (sigma * math.sqrt(2)))


def bisect(excess: Callable[[Tensor], Tensor], high: Tensor) -> Tensor:
    """Return the root in [0, high] of a function that falls from positive to negative."""
    low = torch.zeros_like(high)
    for _ in range(100):
        tau = (low + high) / 2
        low, high = (tau, high) if excess(tau) > 0 else (low, tau)
    return tau


def expected_densities(n: Tensor, sigma: Tensor, k: int) -> Tensor:
    """Return the density of each layer under magnitude pruning at initialization, float64."""
    tau = bisect(lambda t: (n * two_sided(t, sigma)).sum() - k, 10 * sigma.max())
    return two_sided(tau, sigma)


def from_variances(n: Tensor, sigma: Tensor, k: int) -> Tensor:
    """The mistake of putting the variance where the standard deviation belongs."""
    return expected_densities(n, sigma**2, k)


def mean_over_layers(n: Tensor, sigma: Tensor, k: int) -> Tensor:
    """The mistake of letting every layer count the same, whatever its size."""
    return expected_densities(torch.ones_like(n), sigma, k / n.sum() * len(n))


def one_tail(n: Tensor, sigma: Tensor, k: int) -> Tensor:
    """The mistake of counting the positive tail only."""
    tau = bisect(lambda t: (n * two_sided(t, sigma) / 2).sum() - k, 10 * sigma.max())
    return two_sided(tau, sigma) / 2


def counts_not_densities(n: Tensor, sigma: Tensor, k: int) -> Tensor:
    """The mistake of returning numbers of weights."""
    return n * expected_densities(n, sigma, k)


def probe_densities(answer: Densities) -> Tensor:
    """Return an answer's densities for three layers of different width and variance."""
    n = torch.tensor([100.0, 300.0, 50.0], dtype=torch.float64)
    sigma = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64)
    return answer(n, sigma, 90)


def emptying_factor(w_1: Tensor, w_2: Tensor, k: int) -> float:
    """Return a factor after which the k largest weights all lie in the first layer."""
    smallest_kept = w_1.abs().flatten().topk(k).values[-1]
    return 1.01 * math.sqrt(float(w_2.abs().max() / smallest_kept))


def inverse_factor(w_1: Tensor, w_2: Tensor, k: int) -> float:
    """The mistake of scaling in the wrong direction."""
    return 1.0 / emptying_factor(w_2, w_1, k)


def negative_factor(w_1: Tensor, w_2: Tensor, k: int) -> float:
    """The mistake of a sign, which ReLU does not let through."""
    return -emptying_factor(w_1, w_2, k)


def factor_of_means(w_1: Tensor, w_2: Tensor, _: int) -> float:
    """The mistake of comparing the typical weights of the two layers."""
    return math.sqrt(float(w_2.abs().mean() / w_1.abs().mean()))


def factor_without_root(w_1: Tensor, w_2: Tensor, k: int) -> float:
    """The mistake of forgetting that the factor enters twice."""
    return 1.01 * float(w_2.abs().max() / w_1.abs().flatten().topk(k).values[-1])


def probe_factor(answer: Factor) -> list[tuple[int, int, bool]]:
    """Return what is left of networks whose first, or second, layer has the larger weights."""
    return [after_rescaling(answer, scale) for scale in (0.7, 1e-8, 10.0)]


def after_rescaling(answer: Factor, scale: float) -> tuple[int, int, bool]:
    """Return how many weights stay in each layer, and whether the outputs stay the same.

    Args:
        scale: standard deviation of the first layer's weights; the second layer's is 1.
    """
    generator = torch.Generator().manual_seed(5)
    w_1, w_2, x = (
        factor * torch.randn(shape, generator=generator, dtype=torch.float64)
        for factor, shape in ((scale, (8, 5)), (1.0, (4, 8)), (1.0, (6, 5)))
    )
    k = 12
    a = float(answer(w_1, w_2, k))
    outputs, scaled = (torch.relu(x @ v.T) @ u.T for v, u in ((w_1, w_2), (a * w_1, w_2 / a)))
    order = torch.cat([(a * w_1).abs().flatten(), (w_2 / a).abs().flatten()]).argsort()
    in_first = int((order[-k:] < w_1.numel()).sum())
    return in_first, k - in_first, bool(torch.allclose(outputs, scaled, atol=0))


def masked(model: torch.nn.Module, mask: Mask) -> dict[str, Tensor]:
    """Return the prunable weights of a model, zero where the mask removes them."""
    return {name: w.detach() * mask[name] for name, w in prunable_parameters(model).items()}


def ticket(
    model: torch.nn.Module, data: Data, recipe: Recipe, s: float, t: int
) -> dict[str, Tensor]:
    """Return m * w_t: the mask of the trained weights on the weights of step t."""
    trained = fit(model, data, recipe, progress=False).model
    rewound = fit(model, data, recipe, stop_at=t, progress=False).model
    return masked(rewound, prune(trained, "magnitude", sparsity=s))


def not_rewound(
    model: torch.nn.Module, data: Data, recipe: Recipe, s: float, t: int
) -> dict[str, Tensor]:
    """The mistake of keeping the trained weights: that is magnitude after training."""
    del t
    trained = fit(model, data, recipe, progress=False).model
    return masked(trained, prune(trained, "magnitude", sparsity=s))


def mask_rewound(
    model: torch.nn.Module, data: Data, recipe: Recipe, s: float, t: int
) -> dict[str, Tensor]:
    """The mistake of taking the mask, too, from step t."""
    rewound = fit(model, data, recipe, stop_at=t, progress=False).model
    return masked(rewound, prune(rewound, "magnitude", sparsity=s))


def to_the_start(
    model: torch.nn.Module, data: Data, recipe: Recipe, s: float, t: int
) -> dict[str, Tensor]:
    """The mistake of rewinding to step 0."""
    del t
    trained = fit(model, data, recipe, progress=False).model
    return masked(model, prune(trained, "magnitude", sparsity=s))


def probe_ticket(answer: Ticket) -> dict[str, Tensor]:
    """Return an answer's ticket on the digits after two epochs."""
    data = load_data("digits")
    model = build_model("small-conv", data, seed=3)
    return dict(answer(model, data, Recipe(epochs=2), 0.9, 3))


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=math.comb(8, 3) / math.comb(12, 3),
        praise="56 of the 220 masks avoid the layer. (1 - d)^4 would say 0.316: a mask draws "
        "without replacement, so the true probability is always below that.",
        hint="All C(12, 3) masks are equally likely. Count those whose three kept weights all lie "
        "in the other layer, and divide.",
        mistakes=(
            Mistake(
                "with replacement",
                0.75**4,
                "This is (1 - d)^n_l, which treats the weights as kept or removed independently. "
                "Exactly three are kept: count masks.",
            ),
            Mistake(
                "other layer",
                math.comb(4, 3) / math.comb(12, 3),
                "This is the probability that the layer of eight weights is empty.",
            ),
            Mistake(
                "complement",
                1 - math.comb(8, 3) / math.comb(12, 3),
                "This is the probability that the layer keeps at least one weight.",
            ),
            Mistake(
                "exactly one",
                4 * math.comb(8, 2) / math.comb(12, 3),
                "This is the probability that the layer keeps exactly one weight; "
                "asked is that it keeps none.",
            ),
        ),
    ),
    2: Exercise(
        right=[68, 20],
        praise="The small layer is kept whole and the large one takes the 68 places that are "
        "left: a density of 0.34 instead of 0.4.",
        hint="Without the cap k_l = epsilon (out + in) with epsilon = 88 / (30 + 12). Compare each "
        "k_l with n_l; a layer that would exceed n_l is kept whole, and the rest of the 88 goes "
        "to the other.",
        mistakes=(
            Mistake("uniform", [80, 8], "This is d n_l, the uniform rule."),
            Mistake(
                "no cap",
                [63, 25],
                "The second layer has only 20 weights and cannot keep 25: its density is capped "
                "at 1.",
            ),
            Mistake(
                "cap, not spread",
                [63, 20],
                "The cap is right, but these are 83 weights: the 5 places that the small layer "
                "cannot use go to the other layer.",
            ),
            Mistake(
                "order",
                [20, 68],
                "The numbers are right; give the layer of shape (10, 20) first.",
            ),
        ),
    ),
    3: Exercise(
        right=expected_densities,
        probe=probe_densities,
        praise="The threshold is shared, so that the densities differ between layers only because "
        "the standard deviations do. Leaving out the square root of 2 would change tau and not the "
        "densities.",
        hint="Find tau with sum(n * erfc(tau / (sigma * 2**0.5))) = k by bisection (100 halvings "
        "of [0, 10 max sigma]), then return erfc(tau / (sigma * 2**0.5)), one number a layer.",
        mistakes=(
            Mistake(
                "variances",
                from_variances,
                "You divide by sigma squared. The threshold is compared with a weight, so it is "
                "measured in standard deviations.",
            ),
            Mistake(
                "layers count the same",
                mean_over_layers,
                "The mean of your densities is k / n, but the layers have different sizes: "
                "the condition is sum(n * density) = k.",
            ),
            Mistake(
                "one tail",
                one_tail,
                "None of your densities can exceed one half: you count the weights above tau and "
                "forget those below -tau.",
            ),
            Mistake(
                "counts",
                counts_not_densities,
                "These are numbers of weights; divide each by its n.",
            ),
        ),
    ),
    4: Exercise(
        right=0.5 / math.sqrt(3),
        praise="The pairs remove what the two runs of a seed share. The mean difference, 2 points, "
        "is about seven of these standard errors; unpaired it would be half of one.",
        hint="Take the difference for each seed, then its standard deviation with the divisor "
        "3 - 1, then divide by the square root of 3.",
        mistakes=(
            Mistake(
                "unpaired",
                math.sqrt((25.0 + 22.75) / 3),
                "This treats the two columns as independent. The seeds move both methods together: "
                "take differences first.",
            ),
            Mistake(
                "standard deviation",
                0.5,
                "This is the standard deviation of one difference; the mean of three varies less.",
            ),
            Mistake(
                "divisor n",
                math.sqrt(0.5 / 3) / math.sqrt(3),
                "You divided the squares by 3. The mean was estimated from the same three numbers: "
                "divide by 2.",
            ),
            Mistake("mean", 2.0, "This is the mean difference; asked is its standard error."),
        ),
    ),
    5: Exercise(
        right=emptying_factor,
        probe=probe_factor,
        praise="The same function, and a layer that magnitude pruning now removes whole: what the "
        "score ranks is how the network is written down.",
        hint="After rescaling, the k-th largest of a * abs(w_1) must exceed the largest of "
        "abs(w_2) / a. Solve for a, and go a little beyond.",
        mistakes=(
            Mistake(
                "wrong direction",
                inverse_factor,
                "This empties the first layer: a multiplies w_1 and divides w_2.",
            ),
            Mistake(
                "negative",
                negative_factor,
                "The mask is as asked, but the outputs have changed: ReLU lets a positive factor "
                "through, and no negative one.",
            ),
            Mistake(
                "no square root",
                factor_without_root,
                "This works for some networks only. The factor enters twice: it multiplies w_1 and "
                "divides w_2, so that its square is compared with the ratio of the weights.",
            ),
            Mistake(
                "typical sizes",
                factor_of_means,
                "This makes the two layers equally large on average, and both keep some "
                "weights. Compare the k-th largest of w_1 with the largest of w_2.",
            ),
            Mistake(
                "no factor",
                lambda _w_1, _w_2, _k: 1.0,
                "With a = 1 nothing is rescaled, and where the second layer has large weights it "
                "keeps them.",
            ),
        ),
    ),
    6: Exercise(
        right=ticket,
        probe=probe_ticket,
        praise="One run gives both: its end chooses the positions, its step t gives the values.",
        hint="Train to the end for the mask (pai.prune(trained, 'magnitude', sparsity=s)), train "
        "the same model again with stop_at=t for the values, with the recipe and the default seed "
        "both times, and return {name: weight * mask[name]}.",
        mistakes=(
            Mistake(
                "not rewound",
                not_rewound,
                "These are the trained weights under their own mask, which is magnitude pruning "
                "after training. The ticket has the values of step t.",
            ),
            Mistake(
                "mask rewound",
                mask_rewound,
                "You took the mask from the weights of step t. The ticket's mask comes from the "
                "end of training.",
            ),
            Mistake(
                "to the start",
                to_the_start,
                "These are the initial values: you rewound to step 0, and step t was asked.",
            ),
        ),
    ),
}
