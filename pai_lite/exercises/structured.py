"""Exercises of the chapter "Channels, not weights"."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake

PREFIX = "structured"

WEIGHTS, GRADIENTS = torch.randn(
    2, 4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
)
# The first group has the largest scores, so that a plain top-k empties the last one.
GROUPS = (
    torch.tensor([9.0, 7.0, 8.0, 6.0]),
    torch.tensor([0.5, 5.0, 4.0]),
    torch.tensor([0.1, 0.3, 0.2]),
)
PLACES = 5
KEEP = torch.tensor([True, False, True, False])
SHIFTS = torch.tensor([0.2, 0.7, -0.1, -0.4])
READERS = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
BIAS = torch.tensor([0.3, -0.6])
SIZE = 4

Layers = tuple[Tensor, Tensor]


def channel_score(w: Tensor, g: Tensor, width: int) -> Tensor:
    """Return the derivative in each channel's gate, in absolute value."""
    return (w * g).reshape(len(w), width, -1).sum((0, 2)).abs()


def pixels_first(w: Tensor, g: Tensor, width: int) -> Tensor:
    """Read a flattened image as if its channels were interleaved, a mistake."""
    if w.ndim == 4:
        return channel_score(w, g, width)
    return (w * g).reshape(len(w), -1, width).sum((0, 1)).abs()


def row_score(w: Tensor, g: Tensor, _width: int) -> Tensor:
    """Sum over the rows, a mistake."""
    return (w * g).flatten(1).sum(1).abs()


def probe_score(answer: Callable[[Tensor, Tensor, int], Tensor]) -> list[Tensor]:
    """Call an answer on a convolution and on a linear layer that reads a flattened image."""
    flat = WEIGHTS.flatten(1), GRADIENTS.flatten(1)
    return [answer(WEIGHTS.clone(), GRADIENTS.clone(), 3), answer(*flat, 3)]


def top(scores: Sequence[Tensor], k: int) -> list[Tensor]:
    """Return the k largest of all scores as one boolean vector a group."""
    flat = torch.cat(list(scores))
    keep = torch.zeros(len(flat), dtype=torch.bool)
    keep[flat.topk(k).indices] = True
    return list(keep.split([len(z) for z in scores]))


def keep_one_each(groups: Sequence[Tensor], k: int) -> list[Tensor]:
    """Keep the best of each group, and then the largest of the others."""
    return top([z.masked_fill(z == z.max(), torch.inf) for z in groups], k)


def one_too_many(groups: Sequence[Tensor], k: int) -> list[Tensor]:
    """Add the best of each group to a plain top-k, a mistake."""
    return [m | (z == z.max()) for m, z in zip(top(groups, k), groups, strict=True)]


def relative(groups: Sequence[Tensor], k: int) -> list[Tensor]:
    """Compare scores relative to the best of their group, a mistake."""
    return top([z / z.max() for z in groups], k)


def probe_groups(answer: Callable[[Sequence[Tensor], int], Sequence[Tensor]]) -> list[list[int]]:
    """Call an answer on three groups."""
    masks = answer([z.clone() for z in GROUPS], PLACES)
    return [[int(entry) for entry in mask] for mask in masks]


def fold(beta: Tensor, W_2: Tensor, b_2: Tensor, keep: Tensor, size: int) -> Layers:
    """Give what the removed channels leak to a bias with one entry a pixel."""
    return fold_constant(torch.relu(beta) * ~keep, W_2, b_2, keep, size)


def fold_constant(constant: Tensor, W_2: Tensor, b_2: Tensor, keep: Tensor, size: int) -> Layers:
    """Return the kept columns, and the bias that stands for constant channels."""
    images = constant.view(1, -1, 1, 1).expand(1, -1, size, size)
    leak = torch.conv2d(images, W_2, padding=W_2.shape[-1] // 2)[0]
    return W_2[:, keep], b_2.view(-1, 1, 1) + leak


def fold_without_border(beta: Tensor, W_2: Tensor, b_2: Tensor, keep: Tensor, _size: int) -> Layers:
    """Add one number to each output, as if nothing were padded, a mistake."""
    leak = W_2.sum((2, 3)) @ (torch.relu(beta) * ~keep)
    return W_2[:, keep], b_2 + leak


def probe_fold(answer: Callable[..., Layers]) -> list[Tensor]:
    """Call an answer; return its weights, and its bias for every pixel."""
    W, b = answer(SHIFTS.clone(), READERS.clone(), BIAS.clone(), KEEP.clone(), SIZE)
    per_pixel = b.view(-1, 1, 1) if b.ndim == 1 else b
    return [W, per_pixel.expand(len(BIAS), SIZE, SIZE)]


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=(0.1, 0.2, 0.8),
        praise="The gate moves a whole column at once, so its products may cancel.",
        hint="Multiply W and G entry by entry, add up each column, then take absolute values.",
        probe=lambda answer: tuple(float(value) for value in answer),
        mistakes=(
            Mistake(
                "absolute value first",
                (0.9, 0.6, 0.8),
                "You took absolute values before the sum. That would keep the first channel, whose "
                "two products nearly cancel: turning its gate hardly changes the loss.",
            ),
            Mistake(
                "rows",
                (0.1, 0.6),
                "You summed the rows. A row leads into an output; a hidden channel is read by "
                "a column.",
            ),
            Mistake("signed", (0.1, 0.2, -0.8), "The absolute value is missing."),
            Mistake(
                "mean",
                (0.05, 0.1, 0.4),
                "You averaged. The derivative in a gate that stands in two places is the sum.",
            ),
        ),
    ),
    2: Exercise(
        right=(1179648, 147456),
        praise="Both shares count: rows and columns are cut independently.",
        hint="Each weight is used once for every output pixel. Which fraction of the weights has "
        "both its row and its column left?",
        probe=lambda answer: tuple(int(value) for value in answer),
        mistakes=(
            Mistake(
                "weights",
                (18432, 2304),
                "These are the numbers of weights. Each is used at every one of the 64 pixels.",
            ),
            Mistake(
                "outputs only",
                (1179648, 294912),
                "The layer also loses half of its columns, since the channels it read are gone.",
            ),
            Mistake(
                "inputs only",
                (1179648, 589824),
                "The layer also loses three quarters of its rows.",
            ),
            Mistake(
                "square of the outputs",
                (1179648, 73728),
                "The share enters squared only if it is the same on both sides; here it is 1/2 on "
                "one and 1/4 on the other.",
            ),
        ),
    ),
    3: Exercise(
        right=channel_score,
        praise="One reshape covers both kinds of layer.",
        hint="Reshape the products to (out, width, pixels), sum over the first and the last "
        "dimension, then take absolute values.",
        probe=probe_score,
        mistakes=(
            Mistake(
                "rows",
                row_score,
                "You summed over each row. That is one number an output, and it is zero where "
                "BatchNorm follows; sum over the outputs instead.",
            ),
            Mistake(
                "absolute value first",
                lambda w, g, width: (w * g).abs().reshape(len(w), width, -1).sum((0, 2)),
                "You took absolute values before the sum. A gate moves all weights of the channel "
                "together, and what they do may cancel.",
            ),
            Mistake(
                "pixels first",
                pixels_first,
                "The convolution is right. nn.Flatten puts the pixels of one channel side by "
                "side, so the columns of channel 0 come first, not every third column.",
            ),
            Mistake(
                "signed",
                lambda w, g, width: (w * g).reshape(len(w), width, -1).sum((0, 2)),
                "The absolute value is missing: the most negative derivative would go first.",
            ),
        ),
    ),
    4: Exercise(
        right=("ac", "bdf"),
        praise="Rows are tied by sums; columns follow from who reads them.",
        hint="First find all whose outputs are added to that of (c), then all that read the stem "
        "or the sum.",
        probe=lambda answer: tuple("".join(sorted(set(part.lower()))) for part in answer),
        mistakes=(
            Mistake(
                "no tie",
                ("c", "df"),
                "The output of (c) is added to that of the stem. Without the stem's row the "
                "channel would still be there.",
            ),
            Mistake(
                "inner layer forgotten",
                ("ac", "df"),
                "The first block reads the stem's channel too, in (b), before the sum.",
            ),
            Mistake(
                "shortcut forgotten",
                ("ac", "bd"),
                "The 1x1 convolution of the second block reads the sum as well.",
            ),
            Mistake(
                "through the projection",
                ("acef", "bdfg"),
                "The shortcut of the second block is a convolution: its outputs are new channels, "
                "so the group ends there. Only an identity hands channels on.",
            ),
        ),
    ),
    5: Exercise(
        right=(1.0, -0.5),
        praise="What was removed has become a bias.",
        hint="BatchNorm turns a channel of zeros into its shift. Then ReLU, then the weights.",
        probe=lambda answer: tuple(float(value) for value in answer),
        mistakes=(
            Mistake(
                "nothing",
                (0.0, 0.0),
                "The rows are zero, but BatchNorm adds its shift behind them.",
            ),
            Mistake("no ReLU", (-0.2, -1.4), "ReLU comes before the weights and stops -0.3."),
            Mistake(
                "scaled shift",
                (2.0, -1.0),
                "The scale multiplies the normalised channel, which is zero, and not the shift.",
            ),
            Mistake(
                "normalised to one",
                (15.8, 5.6),
                "A constant channel minus its mean is zero, not one: only the shift is left.",
            ),
        ),
    ),
    6: Exercise(
        right=keep_one_each,
        praise="No group is empty, and exactly k channels are kept.",
        hint="Mark the best of each group first; then fill up to k with the largest of the rest.",
        probe=probe_groups,
        mistakes=(
            Mistake(
                "plain top-k",
                top,
                "The last group keeps nothing: its best score is below the k-th of all.",
            ),
            Mistake(
                "one too many",
                one_too_many,
                "You added the best of each group to a full top-k, so more than k are kept. Their "
                "places have to come out of the k.",
            ),
            Mistake(
                "relative scores",
                relative,
                "You divided each group by its largest score. The best of each is kept, but the "
                "remaining places go by another order than that of the scores.",
            ),
        ),
    ),
    7: Exercise(
        right=fold,
        praise="What leaks is a constant image for each output: it can be seen and counted.",
        hint="For every input a removed channel sends relu(beta) from every pixel. What does the "
        "convolution, with its padding, make of such images?",
        probe=probe_fold,
        mistakes=(
            Mistake(
                "leak dropped",
                lambda _beta, W_2, b_2, keep, _size: (W_2[:, keep], b_2),
                "The weights are right, but the outputs moved: the removed channels sent "
                "relu(beta), and that is missing now.",
            ),
            Mistake(
                "no border",
                fold_without_border,
                "This is right in the middle of the image. At the border the convolution reads "
                "padded zeros in the place of relu(beta), so less arrives there.",
            ),
            Mistake(
                "no ReLU",
                lambda beta, W_2, b_2, keep, size: fold_constant(
                    beta * ~keep, W_2, b_2, keep, size
                ),
                "One removed channel has a negative shift, and ReLU stops it before the weights.",
            ),
            Mistake(
                "all channels",
                lambda beta, W_2, b_2, keep, size: fold_constant(
                    torch.relu(beta), W_2, b_2, keep, size
                ),
                "You added the shifts of the kept channels too. They still pass their own ReLU.",
            ),
        ),
    ),
}
