"""Exercises of the chapter "Synaptic flow"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake, chosen_of

PREFIX = "synflow"

Matrices = list[Tensor]


def draw(*widths: int, seed: int) -> Matrices:
    """Return the weight matrices of a chain of these widths."""
    generator = torch.Generator().manual_seed(seed)
    shapes = zip(widths[1:], widths, strict=False)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


CHAINS = (draw(2, 3, 2, seed=0), draw(3, 4, 5, 2, seed=1))
# In the last case a kept weight has lost its paths, and has to stay before those removed.
PRUNED = (
    (draw(3, 4, 2, seed=2), (14, 10, 6, 3)),
    (draw(2, 8, 8, 2, seed=3), (60, 40, 25, 12, 6)),
    (
        [torch.tensor([[0.1, 0.2], [3.0, 4.0]]).double(), torch.tensor([[9.0, 0.5]]).double()],
        (3, 3),
    ),
)


def through(weights: Matrices) -> Matrices:
    """Return the score of every weight: the paths through it, with the weights as they are."""
    arrives = [torch.ones(weights[0].shape[1], dtype=weights[0].dtype)]
    for matrix in weights[:-1]:
        arrives.append(matrix @ arrives[-1])
    passed = [torch.ones(weights[-1].shape[0], dtype=weights[0].dtype)]
    for matrix in reversed(weights[1:]):
        passed.insert(0, matrix.T @ passed[0])
    parts = zip(passed, weights, arrives, strict=True)
    return [after[:, None] * matrix * before for after, matrix, before in parts]


def score(weights: Matrices) -> Matrices:
    """Return SynFlow's scores of a chain of matrices."""
    return through([matrix.abs() for matrix in weights])


def without_weight(weights: Matrices) -> Matrices:
    """Return the derivative alone, a mistake."""
    return [z / matrix.abs() for z, matrix in zip(score(weights), weights, strict=True)]


def without_backward(weights: Matrices) -> Matrices:
    """Count the paths up to a weight and not those behind it, a mistake."""
    arrives, scores = torch.ones(weights[0].shape[1], dtype=weights[0].dtype), []
    for matrix in weights:
        scores.append(matrix.abs() * arrives)
        arrives = matrix.abs() @ arrives
    return scores


def split_like(flat: Tensor, weights: Matrices) -> Matrices:
    """Return a flat tensor as tensors of the shapes of the weights."""
    parts = flat.split([matrix.numel() for matrix in weights])
    return [part.view(matrix.shape) for part, matrix in zip(parts, weights, strict=True)]


def keep(scores: Tensor, k: int) -> Tensor:
    """Return the mask of the k largest of flat scores."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.argsort(descending=True, stable=True)[:k]] = True
    return kept


def flatten(tensors: Matrices) -> Tensor:
    """Return tensors as one flat one."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def iterate(
    weights: Matrices,
    counts: Sequence[int],
    criterion: Callable[[Matrices], Matrices] = score,
    *,
    return_possible: bool = False,
) -> Matrices:
    """Return the masks after keeping so many weights of the chain, step by step."""
    mask = torch.ones(sum(matrix.numel() for matrix in weights), dtype=torch.bool)
    for k in counts:
        scores = flatten(criterion(split_like(flatten(weights) * mask, weights)))
        if not return_possible:
            scores = torch.where(mask, scores, -1.0)
        mask = keep(scores, k)
    return split_like(mask, weights)


def by_layer(weights: Matrices, counts: Sequence[int]) -> Matrices:
    """Give every layer the same share of the places, a mistake."""
    density = counts[-1] / sum(matrix.numel() for matrix in weights)
    scores = score(weights)
    return [keep(z.flatten(), max(1, round(density * z.numel()))).view(z.shape) for z in scores]


def probe_score(answer: Callable[[Matrices], Matrices]) -> list[Matrices]:
    """Call an answer on two chains."""
    return [list(answer([matrix.clone() for matrix in chain])) for chain in CHAINS]


def probe_masks(answer: Callable[[Matrices, Sequence[int]], Matrices]) -> list[list[list[int]]]:
    """Call an answer on three chains; a mask becomes the places that it keeps."""
    found = [answer([m.clone() for m in chain], list(counts)) for chain, counts in PRUNED]
    return [[mask.bool().flatten().int().tolist() for mask in masks] for masks in found]


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=(12.5, 6.0),
        praise="One path of the four runs through that weight, and its weight is the score.",
        hint="List the four paths, one for each entry of W_1, and multiply absolute weights.",
        mistakes=(
            Mistake(
                "signed",
                (-6.5, -6.0),
                "Some of your products are negative: the path norm takes absolute weights.",
            ),
            Mistake(
                "magnitude",
                (12.5, 2.0),
                "The path norm is right. The score is the weight of the path, not of its one link.",
            ),
            Mistake(
                "unit",
                (12.5, 9.0),
                "The path norm is right. You added both paths through the hidden unit; only one "
                "of them uses the weight -2.",
            ),
            Mistake(
                "derivative",
                (12.5, 3.0),
                "The path norm is right. That is the derivative; multiply it by abs(-2).",
            ),
        ),
    ),
    2: Exercise(
        right=(0.5, 0.005, 0.05),
        praise="The mean falls exactly as one over the size: the large layer would go first.",
        hint="What do the scores of one layer add up to?",
        mistakes=(
            Mistake("sums", (50.0, 50.0, 50.0), "These are the sums; divide each by its size."),
            Mistake(
                "one mean",
                (50 / 11100, 50 / 11100, 50 / 11100),
                "You shared one R among all weights. Every layer has a sum of R of its own.",
            ),
            Mistake(
                "proportional",
                (0.5, 50.0, 5.0),
                "You let larger layers have larger means. The sum is the same for all of them.",
            ),
        ),
    ),
    3: Exercise(
        right="e",
        praise="Only a change that favours some paths over others can change their order.",
        hint="For each change ask which paths become heavier, and whether all do by one factor.",
        probe=chosen_of("abcde"),
        mistakes=(
            Mistake(
                "scale of a layer",
                "ae",
                "e is right. In a every path has exactly one weight of the first layer, so all "
                "scores are multiplied by 10 and keep their order.",
            ),
            Mistake(
                "balanced unit",
                "de",
                "e is right. In d a path through the unit gains a factor of 4 and loses it again.",
            ),
            Mistake(
                "data",
                "ce",
                "e is right. Of the batch only the shape is used; its place is taken by ones.",
            ),
            Mistake("signs", "be", "e is right. The weights enter by their absolute values."),
            Mistake(
                "nothing",
                "",
                "One of them favours the paths through one unit over all others.",
            ),
        ),
    ),
    4: Exercise(
        right=score,
        praise="Two passes, one forward and one backward, are what autograd does as well.",
        hint="Collect the vector that arrives at each layer going forward, and the one that is "
        "passed on going backward; the score is their outer product times the absolute weights.",
        probe=probe_score,
        mistakes=(
            Mistake(
                "signed",
                through,
                "The absolute values are missing: paths of opposite sign cancel in your sums.",
            ),
            Mistake(
                "derivative",
                without_weight,
                "That is the derivative of R; the score is the derivative times the weight.",
            ),
            Mistake(
                "forward only",
                without_backward,
                "You count the paths up to each weight, but not those that go on behind it. Your "
                "sums differ from layer to layer.",
            ),
            Mistake(
                "magnitude",
                lambda weights: [matrix.abs() for matrix in weights],
                "Those are the absolute weights; the paths before and behind them are missing.",
            ),
        ),
    ),
    5: Exercise(
        right=94,
        praise="Close to the bound L ln(1/d), and close to the hundred steps in use.",
        hint="Solve d ** (1 / T) > 1 - 1 / L for T with d = 0.001 and L = 14, and round up.",
        mistakes=(
            Mistake(
                "simple bound",
                97,
                "That is L ln(1/d), which is enough but not the least: it replaces "
                "-ln(1 - 1/L) by the smaller 1/L.",
            ),
            Mistake(
                "decimal logarithm",
                41,
                "You mixed logarithms: ln(1/d) and ln(1 - 1/L) need the same base.",
            ),
            Mistake(
                "sparsity for density",
                1,
                "You put the sparsity 0.999 in the place of the density 0.001.",
            ),
            Mistake("rounded down", 93, "With 93 steps each removes slightly more than 1/14."),
        ),
    ),
    6: Exercise(
        right=(0.4, 0.4, 2.4),
        praise="A block with a shortcut can be emptied without a cut.",
        hint="There are two paths: one through the block and one through the shortcut. Which "
        "weights lie on which?",
        mistakes=(
            Mistake(
                "no shortcut",
                (0.4, 0.4, 0.4),
                "You left the shortcut out: c lies on a second path, of weight c.",
            ),
            Mistake(
                "conserved everywhere",
                (2.4, 2.4, 2.4),
                "You gave each weight all of R. The path through the shortcut passes a and b by, "
                "so the sums of the layers are not equal here.",
            ),
            Mistake(
                "shortcut only",
                (0.4, 0.4, 2.0),
                "The scores of a and b are right. c lies on the path through the block as well.",
            ),
            Mistake(
                "derivatives", (0.8, 1.0, 1.2), "Those are derivatives; multiply by the weights."
            ),
        ),
    ),
    7: Exercise(
        right=iterate,
        praise="Scoring again is all that separates this from layer collapse.",
        hint="In each step multiply the weights by the masks, score, and keep the k largest among "
        "the weights that were kept before.",
        probe=probe_masks,
        mistakes=(
            Mistake(
                "one step",
                lambda weights, counts: iterate(weights, counts[-1:]),
                "You keep what one step would keep: the scores are those of the dense network. "
                "Score anew after each step, with the weights multiplied by the masks.",
            ),
            Mistake(
                "revival",
                lambda weights, counts: iterate(weights, counts, return_possible=True),
                "Where kept weights have the score zero, you let removed ones take their places.",
            ),
            Mistake(
                "magnitude",
                lambda weights, counts: iterate(weights, counts, lambda W: [w.abs() for w in W]),
                "You rank by the absolute weights; the paths through them are missing.",
            ),
            Mistake(
                "layer by layer",
                by_layer,
                "You gave every layer its own share. All layers compete for the k places.",
            ),
        ),
    ),
}
