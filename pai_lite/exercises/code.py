"""Exercises of the chapter "Reading the code"."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake

PREFIX = "code"

# Ties at the threshold, a threshold of zero, and scores of both signs.
SCORES = (
    (torch.tensor([0.2, 0.7, 0.2, 0.2, 0.9]), 3),
    (torch.tensor([0.0, 0.5, 0.0, 0.0, 0.0]), 2),
    (torch.tensor([-1.0, -0.5, -3.0, 2.0]), 2),
)
SIZES = {"a": 2, "b": 3, "c": 1}
FLAT = torch.tensor([1, 0, 0, 1, 1, 0])
# Living scores below zero; then as many places as living weights, the lowest score living.
STEPS = (
    (torch.tensor([0.3, -0.2, -0.5, 0.8]), torch.tensor([True, True, True, False]), 2),
    (torch.tensor([0.4, 0.1, -0.6, -0.9]), torch.tensor([True, False, True, True]), 3),
    (torch.tensor([-0.1, 0.9, 0.5, 0.2]), torch.tensor([True, False, True, True]), 1),
)


def marked(order: Tensor, k: int) -> Tensor:
    """Mark the first k indices of an order."""
    keep = torch.zeros(len(order), dtype=torch.bool)
    keep[order[:k]] = True
    return keep


def exactly(z: Tensor, k: int) -> Tensor:
    """Mark the k largest, ties to the smaller index."""
    return marked(z.sort(descending=True, stable=True).indices, k)


def kth(z: Tensor, k: int) -> Tensor:
    """Return the k-th largest score."""
    return z.sort(descending=True).values[k - 1]


def later_ties(z: Tensor, k: int) -> Tensor:
    """Mark the k largest, ties to the larger index, a mistake."""
    return exactly(z.flip(0), k).flip(0)


def pieces(sizes: dict[str, int], flat: Tensor) -> dict[str, Tensor]:
    """Cut a flat mask into one piece a layer."""
    return dict(zip(sizes, flat.split(list(sizes.values())), strict=True))


def spent(sizes: dict[str, int], flat: Tensor) -> dict[str, Tensor]:
    """Walk through an iterator twice, a mistake."""
    names = iter(sizes)
    found = [flat[: sizes[name]] for name in names]
    return dict(zip(names, found, strict=False))


def always_from_the_start(sizes: dict[str, int], flat: Tensor) -> dict[str, Tensor]:
    """Forget to advance, a mistake."""
    return {name: flat[:size] for name, size in sizes.items()}


def backwards(sizes: dict[str, int], flat: Tensor) -> dict[str, Tensor]:
    """Hand the pieces out in reverse order, a mistake."""
    parts = flat.split(list(sizes.values()))
    return dict(zip(sizes, reversed(parts), strict=True))


def powers(s: float, steps: int) -> list[float]:
    """Return the sparsities of a geometric schedule of densities."""
    return [1 - (1 - s) ** (t / steps) for t in range(1, steps + 1)]


def counts_overlap(a: list[int], b: list[int], sizes: list[int]) -> float:
    """Return the overlap that the layers' counts alone explain."""
    both = sum(x * y / n for x, y, n in zip(a, b, sizes, strict=True))
    return both / (sum(a) + sum(b) - both)


def layer_mean(a: list[int], b: list[int], sizes: list[int]) -> float:
    """Average the overlaps of the layers, a mistake."""
    each = [counts_overlap([x], [y], [n]) for x, y, n in zip(a, b, sizes, strict=True)]
    return sum(each) / len(each)


def among(z: Tensor, mask: Tensor, k: int, fill: float = -torch.inf) -> Tensor:
    """Mark the k largest scores after those of removed weights are replaced."""
    return exactly(z.masked_fill(~mask, fill), k)


def probe_top(answer: Callable[[Tensor, int], Tensor]) -> list[list[bool]]:
    """Call an answer on scores with ties."""
    return [as_list(answer(z.clone(), k)) for z, k in SCORES]


def probe_pieces(answer: Callable[[dict[str, int], Tensor], dict]) -> dict[str, list[int]]:
    """Call an answer on three layers."""
    found = answer(dict(SIZES), FLAT.clone())
    return {name: as_list(piece) for name, piece in found.items()}


def probe_schedule(answer: Callable[[float, int], Iterable[float]]) -> list[list[float]]:
    """Call an answer on two schedules."""
    return [[float(v) for v in answer(s, steps)] for s, steps in ((0.9, 4), (0.5, 2))]


def probe_counts(answer: Callable[..., float]) -> list[float]:
    """Call an answer on two networks."""
    cases = (([40, 2], [30, 6], [100, 100]), ([5, 50, 1], [9, 20, 4], [10, 200, 40]))
    return [float(answer(*case)) for case in cases]


def probe_step(answer: Callable[[Tensor, Tensor, int], Tensor]) -> list[list[bool]]:
    """Call an answer on three steps of signed scores."""
    return [as_list(answer(z.clone(), mask.clone(), k)) for z, mask, k in STEPS]


def as_list(values: Tensor | Iterable) -> list:
    """Return the elements of a tensor or of any other sequence."""
    return values.tolist() if isinstance(values, Tensor) else list(values)


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=0.25,
        praise="An overlap reads lower than the share that agrees: three quarters do.",
        hint="Let both masks keep k weights. Write J with the number that both keep, solve for "
        "that number, and divide it by k.",
        mistakes=(
            Mistake(
                "one minus J",
                0.4,
                "1 - J counts the weights that differ among those kept by either mask, of which "
                "there are more than one mask keeps.",
            ),
            Mistake("share that agrees", 0.75, "That is the share that the other mask keeps too."),
            Mistake("overlap itself", 0.6, "That is J. It is a ratio to the union of the masks."),
            Mistake(
                "of the union",
                0.2,
                "Each mask's own weights are a fifth of the union; the share is of the weights "
                "that one mask keeps, four fifths of the union.",
            ),
        ),
    ),
    2: Exercise(
        right=(3, 8),
        praise="A tie lets one more through; a threshold of zero lets all through.",
        hint="Find the k-th largest score for each k. How many of the eight reach it?",
        mistakes=(
            Mistake(
                "exact",
                (2, 4),
                "That is how many should be kept. Two scores tie at 0.4, and five at 0.",
            ),
            Mistake(
                "strictly above",
                (1, 3),
                "You counted the scores above the k-th; the program keeps those equal to it too.",
            ),
            Mistake(
                "zero does not count",
                (3, 3),
                "For k = 4 the fourth largest score is 0, and 0 >= 0 is true.",
            ),
            Mistake("first tie missed", (2, 8), "For k = 2 the score 0.4 occurs twice."),
        ),
    ),
    3: Exercise(
        right=exactly,
        praise="Exactly k, whatever the ties, and the same weights on every machine.",
        hint="Sort stably from large to small, and mark the first k indices.",
        probe=probe_top,
        mistakes=(
            Mistake(
                "at least the k-th",
                lambda z, k: z >= kth(z, k),
                "You keep all that tie with the k-th: more than k, and where the k-th is 0, all.",
            ),
            Mistake(
                "above the k-th",
                lambda z, k: z > kth(z, k),
                "You drop all that tie with the k-th, the k-th itself among them: too few.",
            ),
            Mistake(
                "ties to the larger index",
                later_ties,
                "k are kept, but of the tied scores the last ones. The order of equal scores is "
                "only defined in a stable sort.",
            ),
            Mistake(
                "magnitudes",
                lambda z, k: exactly(z.abs(), k),
                "You took absolute values. A score says by itself how much a weight is worth, "
                "and a negative one is worth least.",
            ),
        ),
    ),
    4: Exercise(
        right=pieces,
        praise="An iterator can be walked through once; a list or a dictionary again and again.",
        hint="Print what is left in `names` after the loop.",
        probe=probe_pieces,
        mistakes=(
            Mistake(
                "the iterator again",
                spent,
                "The dictionary is still empty: the names were used up before they were zipped.",
            ),
            Mistake(
                "the start does not move",
                always_from_the_start,
                "Every layer gets the beginning of the flat mask. The start has to advance by the "
                "size of each layer.",
            ),
            Mistake(
                "wrong order",
                backwards,
                "The pieces are right and go to the wrong layers, in reverse.",
            ),
        ),
    ),
    5: Exercise(
        right=powers,
        praise="The density falls geometrically; the sparsity is what it leaves.",
        hint="What is raised to the power t / T has to be 1 before the first step and what is "
        "kept after the last.",
        probe=probe_schedule,
        mistakes=(
            Mistake(
                "the given one",
                lambda s, steps: [s ** (t / steps) for t in range(1, steps + 1)],
                "That is the literal formula: it starts above s and falls towards it.",
            ),
            Mistake(
                "densities",
                lambda s, steps: [1 - v for v in powers(s, steps)],
                "These are the fractions kept; the sparsities are 1 minus them.",
            ),
            Mistake(
                "from step 0",
                lambda s, steps: [0.0, *powers(s, steps)[:-1]],
                "You begin with step 0, which removes nothing, and never arrive at s.",
            ),
            Mistake(
                "linear",
                lambda s, steps: [s * t / steps for t in range(1, steps + 1)],
                "That removes the same number each time, so that the last step keeps the "
                "smallest share of what is left.",
            ),
        ),
    ),
    6: Exercise(
        right=counts_overlap,
        praise="This is what shuffling within the layers would leave of an overlap.",
        hint="In one layer the expected number kept by both is k k' / n. Add these up, and divide "
        "once, at the end, by the expected size of the union.",
        probe=probe_counts,
        mistakes=(
            Mistake(
                "one layer",
                lambda a, b, n: counts_overlap([sum(a)], [sum(b)], [sum(n)]),
                "You treated the network as one layer. Masks that thin the same layers overlap "
                "more than that.",
            ),
            Mistake(
                "mean of overlaps",
                layer_mean,
                "You averaged the overlaps of the layers. J is a ratio of sums; small layers "
                "would count as much as large ones.",
            ),
            Mistake(
                "union without subtraction",
                lambda a, b, n: (
                    sum(x * y / m for x, y, m in zip(a, b, n, strict=True)) / (sum(a) + sum(b))
                ),
                "The weights kept by both are counted twice in your union; subtract them once.",
            ),
        ),
    ),
    7: Exercise(
        right=(0.04, -0.1, -0.2),
        praise="One detached buffer changes the score's size and the derivative's sign.",
        hint="Write w_1, u_2 and w_2 with w_0 in them. For the second number treat u_1 as the "
        "constant 1 wherever it occurs.",
        mistakes=(
            Mistake(
                "no momentum",
                (0.0625, 0.125, 0.25),
                "You left the momentum out: u_2 is 0.9 u_1 + g_1, not g_1.",
            ),
            Mistake(
                "momentum carries no derivative",
                (-0.05, -0.1, -0.2),
                "In the first number you let u_1 depend on w_0 in w_1 but not in u_2.",
            ),
            Mistake(
                "all detached",
                (0.04, -0.2, -0.2),
                "Only the first buffer is detached. The gradient g_1 at w_1 still depends on w_0.",
            ),
            Mistake(
                "absolute values", (0.04, 0.1, 0.2), "The derivatives have signs; w_2 is -0.2."
            ),
            Mistake(
                "exchanged",
                (-0.1, 0.04, -0.2),
                "The first two are exchanged: with every dependence kept, w_2 is -0.2 w_0.",
            ),
        ),
    ),
    8: Exercise(
        right=among,
        praise="Only minus infinity lies below every living score.",
        hint="Which number has to stand for the score of a removed weight, so that it is never "
        "chosen before a living one, however negative that is?",
        probe=probe_step,
        mistakes=(
            Mistake(
                "the given one",
                lambda z, mask, k: among(z, mask, k, 0.0) & mask,
                "Removed weights have score 0, above living ones that are negative. They take "
                "places, and the last line throws those away: fewer than k are kept.",
            ),
            Mistake(
                "revived",
                lambda z, mask, k: among(z, mask, k, 0.0),
                "k are kept, but some of them were removed before: 0 is above a negative score.",
            ),
            Mistake(
                "not masked at all",
                lambda z, _mask, k: exactly(z, k),
                "The mask plays no part: weights that were removed come back.",
            ),
            Mistake(
                "smallest score",
                lambda z, mask, k: among(z, mask, k, float(z.min())),
                "A removed weight now ties with the lowest living one, and where its index is "
                "smaller it goes first.",
            ),
            Mistake(
                "absolute scores",
                lambda z, mask, k: among(z.abs(), mask, k),
                "Absolute values keep the living, but by another score: the most negative are now "
                "among the best.",
            ),
        ),
    ),
}
