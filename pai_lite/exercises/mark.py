"""Exercises of the chapter "Missing the mark"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, chosen_of

PREFIX = "mark"

Masks = dict[str, Tensor]
Shuffle = Callable[[Masks, torch.Generator], Masks]
Judge = Callable[[Tensor, float, float], str]
Effective = Callable[..., tuple[float, float, float]]

DRAWS = 40
#: Differences, tolerance and quantile: lower, the same, open, higher, lower by little, open.
SAMPLES = (
    ((-3.0, -1.0, -4.0, -2.0), 2.0),
    ((0.3, -0.4, 0.1, -0.2), 2.0),
    ((5.0, -6.0, 3.0, -4.0), 2.0),
    ((4.0, 3.0, 5.0, 3.5), 2.0),
    ((-0.5, -0.6, -0.4, -0.7), 2.0),
    ((1.5, -1.8, 0.9, -1.3), 2.0),
)
QUANTILE = 2.353  # of Student's distribution with three degrees of freedom
NETWORKS = ((6, 5, 4, 3, 0.2, 0.3, 0.4), (20, 8, 10, 2, 0.1, 0.15, 0.5))


def crowded() -> Masks:
    """Return a mask with all kept weights of a layer in its first rows, and a denser layer."""
    first, second = torch.zeros(12, 5, dtype=torch.bool), torch.ones(4, 3, 5, dtype=torch.bool)
    first[:3] = True
    second[2:] = False
    return {"first": first, "second": second}


def permute(m: Tensor, generator: torch.Generator) -> Tensor:
    """Return the entries of a tensor in random order."""
    return m.flatten()[torch.randperm(m.numel(), generator=generator)].view_as(m)


def shuffle_layers(mask: Masks, generator: torch.Generator) -> Masks:
    """Shuffle each layer by itself."""
    return {name: permute(m, generator) for name, m in mask.items()}


def shuffle_nothing(mask: Masks, generator: torch.Generator) -> Masks:
    """Assign to the loop variable, a mistake."""
    for m in mask.values():
        m = permute(m, generator)
    return mask


def shuffle_network(mask: Masks, generator: torch.Generator) -> Masks:
    """Shuffle all layers together, a mistake."""
    sizes = [m.numel() for m in mask.values()]
    flat = permute(torch.cat([m.flatten() for m in mask.values()]), generator)
    parts = zip(mask.items(), flat.split(sizes), strict=True)
    return {name: part.view_as(m) for (name, m), part in parts}


def shuffle_rows(mask: Masks, generator: torch.Generator) -> Masks:
    """Shuffle whole rows, a mistake."""
    return {n: m[torch.randperm(len(m), generator=generator)] for n, m in mask.items()}


def shuffle_in_place(mask: Masks, generator: torch.Generator) -> Masks:
    """Overwrite the tensors that were passed in, a mistake."""
    for m in mask.values():
        m.copy_(permute(m, generator))
    return mask


def probe_shuffle(answer: Shuffle) -> dict[str, bool]:
    """Say what an answer does with the crowded mask, over several draws."""
    generator = torch.Generator().manual_seed(0)
    start, shuffles, untouched = crowded(), [], True
    for _ in range(DRAWS):
        given = crowded()
        found = answer(given, generator)
        shuffles.append({name: torch.as_tensor(found[name]).bool().clone() for name in start})
        untouched &= all(torch.equal(given[name], start[name]) for name in start)
    overlap = sum(int((s["first"] & start["first"]).sum()) for s in shuffles) / DRAWS
    filled = sum(int(s["first"].any(1).sum()) for s in shuffles) / DRAWS
    return {
        "shapes": all(s[name].shape == start[name].shape for s in shuffles for name in start),
        "counts": all(s[name].sum() == start[name].sum() for s in shuffles for name in start),
        "overlap": bool(2.5 < overlap < 5.5),  # 15 * 15 / 60 = 3.75 is expected
        "rows": filled > 6,
        "untouched": untouched,
    }


def outcome(D: Tensor, delta: float, t: float) -> str:
    """Return the outcome of a control from its paired differences."""
    return from_half_width(D, delta, t * float(D.std()) / math.sqrt(len(D)))


def from_half_width(D: Tensor, delta: float, half: float, *, closed: str = "same") -> str:
    """Return the outcome for an interval of this half width; ``closed`` is said within delta."""
    low, high = float(D.mean()) - half, float(D.mean()) + half
    if high < 0 or low > 0:
        return "lower" if high < 0 else "higher"
    return closed if -delta < low and high < delta else "open"


def not_different(D: Tensor, delta: float, t: float) -> str:
    """Take what is not significant for the same, a mistake."""
    return "same" if outcome(D, delta, t) == "open" else outcome(D, delta, t)


def mean_only(D: Tensor, delta: float, _t: float) -> str:
    """Compare the mean with the tolerance, a mistake."""
    mean = float(D.mean())
    return "same" if abs(mean) < delta else "lower" if mean < 0 else "higher"


def tolerance_first(D: Tensor, delta: float, t: float) -> str:
    """Ask for the tolerance before asking for zero, a mistake."""
    half = t * float(D.std()) / math.sqrt(len(D))
    within = abs(float(D.mean())) + half < delta
    return "same" if within else outcome(D, delta, t)


def probe_outcomes(answer: Judge) -> list[str]:
    """Call an answer on six samples."""
    samples = ((torch.tensor(D, dtype=torch.float64), delta) for D, delta in SAMPLES)
    return [str(answer(D, delta, QUANTILE)) for D, delta in samples]


def effective(
    q: int, r_1: int, r_2: int, o: int, d_1: float, d_2: float, d_3: float
) -> tuple[float, float, float]:
    """Return for each layer the probability that a weight is kept and effective."""
    fed, heard = 1 - (1 - d_1) ** q, 1 - (1 - d_3) ** o
    first = d_1 * (1 - (1 - d_2 * heard) ** r_2)
    return first, d_2 * fed * heard, d_3 * (1 - (1 - d_2 * fed) ** r_1)


def one_step(
    q: int, r_1: int, r_2: int, o: int, d_1: float, d_2: float, d_3: float
) -> tuple[float, float, float]:
    """Look no further than the neighbouring layer, a mistake."""
    fed, heard = 1 - (1 - d_1) ** q, 1 - (1 - d_3) ** o
    return d_1 * (1 - (1 - d_2) ** r_2), d_2 * fed * heard, d_3 * (1 - (1 - d_2) ** r_1)


def shares(
    q: int, r_1: int, r_2: int, o: int, d_1: float, d_2: float, d_3: float
) -> tuple[float, float, float]:
    """Forget that the weight has to be kept, a mistake."""
    first, second, third = effective(q, r_1, r_2, o, d_1, d_2, d_3)
    return first / d_1, second / d_2, third / d_3


def reach_together(
    q: int, r_1: int, r_2: int, o: int, d_1: float, d_2: float, d_3: float
) -> tuple[float, float, float]:
    """Multiply the probabilities of two units that need not be joined, a mistake."""
    fed, heard = 1 - (1 - d_1) ** q, 1 - (1 - d_3) ** o
    first = d_1 * (1 - (1 - d_2) ** r_2) * heard
    return first, d_2 * fed * heard, d_3 * (1 - (1 - d_2) ** r_1) * fed


def swapped(
    q: int, r_1: int, r_2: int, o: int, d_1: float, d_2: float, d_3: float
) -> tuple[float, float, float]:
    """Take the other hidden layer's width, a mistake."""
    return effective(q, r_2, r_1, o, d_1, d_2, d_3)


def probe_effective(answer: Effective) -> list[tuple[float, ...]]:
    """Call an answer on two networks."""
    return [tuple(float(value) for value in answer(*network)) for network in NETWORKS]


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=25.0,
        praise="The share of the places that survives is the density of the layer.",
        hint="With which probability does the shuffle keep a given place?",
        mistakes=(
            Mistake("counts", 100.0, "The shuffle keeps 100 weights, but not the same ones."),
            Mistake("share", 0.25, "That is the share of the places; the number is asked for."),
            Mistake("disjoint", 0.0, "The inverted mask has no place in common; a shuffle does."),
            Mistake(
                "removed places",
                75.0,
                "That is how many of the 100 places are lost; 25 of them stay.",
            ),
        ),
    ),
    2: Exercise(
        right=shuffle_layers,
        praise="Counts stay, places are drawn anew, and the mask passed in is as it was.",
        hint="For each layer: flatten, index with torch.randperm(size, generator=generator), and "
        "put it back into its shape.",
        probe=probe_shuffle,
        mistakes=(
            Mistake(
                "no-op",
                shuffle_nothing,
                "The mask comes back as it was. Assigning to the loop variable rebinds a name and "
                "changes no tensor; collect the shuffled layers in a new dict.",
            ),
            Mistake(
                "whole network",
                shuffle_network,
                "The counts of the layers have changed: you shuffled all layers together. That is "
                "random pruning.",
            ),
            Mistake(
                "rows",
                shuffle_rows,
                "Whole rows were moved. The units that were empty still are, somewhere else; the "
                "single weights of a layer have to change places.",
            ),
            Mistake(
                "in place",
                shuffle_in_place,
                "The shuffle is right, but the mask that was passed in has changed with it. "
                "Nothing could be compared with it any more.",
            ),
        ),
    ),
    3: Exercise(
        right="abe",
        praise="Wherever the mask is uniform over the places, the two controls are one.",
        hint="Given the counts, is every choice of places equally likely?",
        probe=chosen_of("abcde"),
        mistakes=(
            Mistake(
                "the theorem only",
                "a",
                "a is the theorem. Two others have masks that are uniform over the places too.",
            ),
            Mistake(
                "magnitude and its power",
                "ae",
                "A random mask is uniform as well, and independent of the weights from the start.",
            ),
            Mistake(
                "not the power",
                "ab",
                "The fourth power orders the weights as their absolute values do: the mask is the "
                "same.",
            ),
            Mistake(
                "all at initialization",
                "abce",
                "SNIP's score holds a gradient, and that depends on the pixels and on the other "
                "weights: some places are likelier than others.",
            ),
            Mistake(
                "trained too",
                "abde",
                "Trained weights are not independent draws of one distribution.",
            ),
        ),
    ),
    4: Exercise(
        right=10 * math.comb(72, 20) / math.comb(80, 20),
        praise="A little less than independent weights would give: the places of a unit are drawn "
        "without replacement.",
        hint="For one unit all 20 kept weights fall on the other 72 places. Then add up ten units.",
        mistakes=(
            Mistake(
                "independent weights",
                10 * 0.75**8,
                "This draws every weight by itself. With exactly 20 kept weights, each removed "
                "weight of the unit makes the next one less likely; yours is the upper bound.",
            ),
            Mistake(
                "one unit",
                math.comb(72, 20) / math.comb(80, 20),
                "This is the probability of one unit. There are ten.",
            ),
            Mistake(
                "an input in place of a unit",
                8 * math.comb(70, 20) / math.comb(80, 20),
                "These are the inputs without an outgoing weight. A unit has 8 incoming weights, "
                "and there are 10 units.",
            ),
        ),
    ),
    5: Exercise(
        right=8,
        praise="Two of the 256 signs give a sum as large as the observed one: p = 0.0078.",
        hint="The observed signs and their opposite always count, so p is at least 2 / 2^N.",
        mistakes=(
            Mistake(
                "one-sided",
                7,
                "With seven seeds 2 of 128 signs count: p is 0.016. One of 128 would be the "
                "one-sided test.",
            ),
            Mistake("six", 6, "Six seeds can reach 0.05: their smallest p is 0.031."),
            Mistake("a hundred", 100, "p counts patterns of signs, and there are 2^N of them."),
        ),
    ),
    6: Exercise(
        right=outcome,
        praise="Open and the same are different words, and only the second is a finding.",
        hint="Compute the half width t * S / sqrt(N) first, then ask about zero, then about delta.",
        probe=probe_outcomes,
        mistakes=(
            Mistake(
                "not different is the same",
                not_different,
                "You call everything the same that is not lower or higher. The third sample has "
                "an interval far wider than the tolerance: it is open.",
            ),
            Mistake(
                "the mean only",
                mean_only,
                "You compare the mean with the tolerance. The interval has to lie within it.",
            ),
            Mistake(
                "tolerance first",
                tolerance_first,
                "The fifth sample is below zero with its whole interval, if by little. Ask about "
                "zero before you ask about the tolerance.",
            ),
            Mistake(
                "standard deviation",
                lambda D, delta, t: from_half_width(D, delta, t * float(D.std())),
                "The half width is that of a single difference. The mean of N scatters less, by "
                "the square root of N.",
            ),
            Mistake(
                "divided by N",
                lambda D, delta, t: from_half_width(D, delta, t * float(D.std()) / len(D)),
                "The standard deviation of a mean falls as the square root of N, not as N.",
            ),
        ),
    ),
    7: Exercise(
        right=effective,
        praise="Independence may be used here because different routes use different weights.",
        hint="Let alpha be the probability that a unit of the first hidden layer is fed, and beta "
        "that one of the second is heard. Write each layer's probability with these.",
        probe=probe_effective,
        mistakes=(
            Mistake(
                "one step",
                one_step,
                "The second entry is right. For the first layer it is not enough that a weight of "
                "layer 2 goes on: its end has to be heard as well.",
            ),
            Mistake(
                "shares",
                shares,
                "These are probabilities for weights that are kept. Multiply by the densities.",
            ),
            Mistake(
                "joined afterwards",
                reach_together,
                "You ask for a kept weight of layer 2 and, separately, for a unit that is heard. "
                "It is the end of that very weight that has to be heard: put the product inside "
                "the power.",
            ),
            Mistake(
                "widths exchanged",
                swapped,
                "A unit of the first hidden layer has r_2 outgoing weights, one to each unit of "
                "the second; you used r_1.",
            ),
        ),
    ),
}
