"""Exercises of the chapter on the pruning problem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pai_lite.exercises.engine import Exercise, Mistake

PREFIX = "problem"

TopK = Callable[[Tensor, int], Tensor]
Step = Callable[..., tuple[Tensor, Tensor]]

# Scores with ties at the border, among zeros, and nowhere; and how many to keep.
QUEUES = (
    (torch.tensor([0.3, 0.9, 0.3, 0.3, 0.1], dtype=torch.float64), 3),
    (torch.tensor([0.0, 0.0, 0.7, 0.0, 0.0, 0.0], dtype=torch.float64), 2),
    (torch.tensor([4.0, 1.0, 3.0, 2.0], dtype=torch.float64), 2),
)
# Weights that were pruned in the middle of training: the velocity is not zero where m is.
WEIGHTS = torch.tensor([1.0, 0.0, -0.5, 0.0], dtype=torch.float64)
VELOCITY = torch.tensor([0.2, -0.4, 0.1, 0.3], dtype=torch.float64)
MASK = torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=torch.float64)
GRADIENTS = torch.tensor([[0.5, 1.0, -0.3, 0.8], [-0.2, 0.6, 0.4, -0.7]], dtype=torch.float64)


def top_k(z: Tensor, k: int) -> Tensor:
    """Return the mask, bool (n,), of the k largest scores; ties go to the smaller index."""
    m = torch.zeros_like(z, dtype=torch.bool)
    m[torch.argsort(z, descending=True, stable=True)[:k]] = True
    return m


def at_least_threshold(z: Tensor, k: int) -> Tensor:
    """Keep every score that is at least the k-th, a mistake."""
    return z >= z.sort(descending=True).values[k - 1]


def above_threshold(z: Tensor, k: int) -> Tensor:
    """Keep every score above the k-th, a mistake."""
    return z > z.sort(descending=True).values[k - 1]


def ties_to_later(z: Tensor, k: int) -> Tensor:
    """Prefer the larger index among equals, a mistake."""
    return top_k(z.flip(0), k).flip(0)


def smallest(z: Tensor, k: int) -> Tensor:
    """Keep the smallest scores, a mistake."""
    return top_k(-z, k)


def probe_top_k(answer: TopK) -> list[Tensor]:
    """Call an answer on the three queues."""
    return [torch.as_tensor(answer(z.clone(), k)) for z, k in QUEUES]


def step(
    w: Tensor, u: Tensor, m: Tensor, g: Tensor, alpha: float, mu: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return weights and velocity after one step of SGD under a mask; all tensors (n,)."""
    u = mu * u + g + lam * w
    return m * (w - alpha * u), u


def step_without_mask(
    w: Tensor, u: Tensor, _m: Tensor, g: Tensor, alpha: float, mu: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Take the step of the dense network, a mistake."""
    u = mu * u + g + lam * w
    return w - alpha * u, u


def step_masked_gradient(
    w: Tensor, u: Tensor, m: Tensor, g: Tensor, alpha: float, mu: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Mask the gradient alone, a mistake."""
    return step_without_mask(w, u, m, m * g, alpha, mu, lam)


def step_masked_before(
    w: Tensor, u: Tensor, m: Tensor, g: Tensor, alpha: float, mu: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Mask the weights before the step and not after it, a mistake."""
    return step_without_mask(m * w, u, m, g, alpha, mu, lam)


def step_without_decay(
    w: Tensor, u: Tensor, m: Tensor, g: Tensor, alpha: float, mu: float, _lam: float
) -> tuple[Tensor, Tensor]:
    """Forget the weight decay, a mistake."""
    return step(w, u, m, g, alpha, mu, 0.0)


def step_old_velocity(
    w: Tensor, u: Tensor, m: Tensor, g: Tensor, alpha: float, mu: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Move along the velocity from before the gradient, a mistake."""
    return m * (w - alpha * u), mu * u + g + lam * w


def probe_step(answer: Step) -> Tensor:
    """Return the weights after two steps, (n,)."""
    w, u = WEIGHTS.clone(), VELOCITY.clone()
    for g in GRADIENTS:
        w, u = answer(w, u, MASK.clone(), g.clone(), 0.1, 0.9, 0.05)
    return w


EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right=5324,
        praise="266,200 weights count, whatever layer they stand in, and 2% of them stay.",
        hint="Add up the entries of the three weight matrices, and take 2% of the sum.",
        mistakes=(
            Mistake(
                "biases counted",
                5332,
                "That is 2% of 266,610, which includes the 410 biases. Biases are not prunable "
                "and are not counted.",
            ),
            Mistake(
                "removed instead of kept",
                260_876,
                "That many are removed. The density is what is left: d = 1 - s = 0.02.",
            ),
            Mistake(
                "output layer left out",
                5304,
                "The output layer's 1,000 weights are missing from n. Some papers do leave it "
                "out; the convention here counts every linear layer.",
            ),
        ),
    ),
    2: Exercise(
        right=31 / 32,
        praise="The bitmask costs one bit in 32, so removing little more than 3% already pays.",
        hint="Write both sizes in bits: 32 n for the dense matrix, n + 32 d n for the other.",
        mistakes=(
            Mistake(
                "a byte per mask entry",
                0.75,
                "That is the answer for one byte a mask entry, which is how torch.bool is "
                "stored in memory. Here each entry takes one bit.",
            ),
            Mistake(
                "the sparsity",
                1 / 32,
                "That is the sparsity from which on it pays; the density is asked for.",
            ),
            Mistake(
                "the mask is free",
                1.0,
                "The values alone are smaller at any density below one, but a reader of the "
                "file must know where they belong: count the n bits of the mask.",
            ),
            Mistake(
                "an index per weight",
                0.5,
                "That is the answer for a 32-bit index beside each value, as in CSR. A bitmask "
                "has one bit for every place instead, kept or not.",
            ),
        ),
    ),
    3: Exercise(
        right=top_k,
        praise="Exactly k, whatever the ties, and the same k on every machine.",
        hint="Sort the indices by score with a stable sort and mark the first k of them. Return "
        "a tensor of the shape of z.",
        probe=probe_top_k,
        mistakes=(
            Mistake(
                "at least the threshold",
                at_least_threshold,
                "With ties at the k-th score this keeps more than k; where that score is zero "
                "it keeps all zeros too. Count ranks instead of comparing with a threshold.",
            ),
            Mistake(
                "above the threshold",
                above_threshold,
                "The k-th weight itself is not above its own score, so this keeps fewer than k.",
            ),
            Mistake(
                "ties to the later index",
                ties_to_later,
                "The number is right; among equal scores the smaller index should stay. Is the "
                "sort stable, and does it run from large to small?",
            ),
            Mistake(
                "the smallest scores",
                smallest,
                "This keeps the smallest scores. Larger means keep: sort in descending order.",
            ),
        ),
    ),
    4: Exercise(
        right=step,
        praise="The mask after the step holds the zeros against gradient, velocity and decay.",
        hint="First the velocity, u = mu u + g + lam w, then the weights, then the mask; return "
        "the pair (w, u).",
        probe=probe_step,
        mistakes=(
            Mistake(
                "no mask",
                step_without_mask,
                "The removed weights move: the gradient at the pruned network is not zero there.",
            ),
            Mistake(
                "only the gradient masked",
                step_masked_gradient,
                "The velocity is not zero at the removed weights, since the network was pruned "
                "in the middle of training. It moves them although the gradient is masked.",
            ),
            Mistake(
                "masked before the step",
                step_masked_before,
                "Each step begins at the pruned network, but what it returns has non-zero removed "
                "weights: the update comes after the mask. Swap the two.",
            ),
            Mistake(
                "no weight decay",
                step_without_decay,
                "The kept weights are a little too large: the velocity lacks lam * w.",
            ),
            Mistake(
                "the old velocity",
                step_old_velocity,
                "The weights move along the velocity from before this gradient. Update u first.",
            ),
        ),
    ),
    5: Exercise(
        right={20: "trivial", 50: "matching", 70: "matching", 90: "extreme", 98: "extreme"},
        praise="The floor is 91.5. Random misses it at 50%, so reaching it at 70% is too late.",
        hint="The tolerance is the larger of the two, so the floor is 92.0 - 0.5. Give a dict from "
        "the five sparsities, as integers, to the three words.",
        mistakes=(
            Mistake(
                "point by point",
                {20: "trivial", 50: "matching", 70: "trivial", 90: "extreme", 98: "extreme"},
                "Random reaches the floor at 70%, after it has missed it at 50%. A method holds "
                "at a sparsity only if it holds at all smaller ones, which keeps luck out.",
            ),
            Mistake(
                "no tolerance",
                {20: "matching", 50: "matching", 70: "extreme", 90: "extreme", 98: "extreme"},
                "That compares with 92.0 itself. The dense network's own runs scatter about it: "
                "subtract the tolerance.",
            ),
            Mistake(
                "the smaller tolerance",
                {20: "trivial", 50: "matching", 70: "extreme", 90: "extreme", 98: "extreme"},
                "That takes the standard deviation, 0.2, for the tolerance. The definition takes "
                "the larger of 0.2 and half a point.",
            ),
            Mistake(
                "random alone",
                {20: "trivial", 50: "extreme", 70: "extreme", 90: "extreme", 98: "extreme"},
                "Extreme begins where magnitude pruning after training no longer holds; look at "
                "the third row for 50% and 70%.",
            ),
        ),
    ),
    6: Exercise(
        right=5 / 13,
        praise="The removed weight's gradient uses up most of the length that clipping allows.",
        hint="Clipping to norm 1 divides a gradient by its norm. Which norm does each way see, and "
        "how long is the kept part after the division?",
        mistakes=(
            Mistake(
                "upside down",
                13 / 5,
                "That is the step under the product over the step in way 4; the inverse is asked.",
            ),
            Mistake(
                "one entry's factor",
                1 / 13,
                "1/13 is the factor that clipping applies in way 4. The product clips too, by a "
                "factor of 1/5; compare the two.",
            ),
            Mistake(
                "the removed part",
                12 / 13,
                "That is the length of the removed part after clipping. Only the three kept "
                "entries (3, 0, 4) move anything.",
            ),
            Mistake(
                "no difference",
                1.0,
                "Without clipping the two agree. The norm that is clipped counts all four entries "
                "in way 4, and the fourth is the largest.",
            ),
        ),
    ),
    7: Exercise(
        right=16,
        praise="Half of these 16 keep weights in both layers: a cut needs no empty layer.",
        hint="A hidden unit carries a signal if it keeps a weight to it and a weight from it. "
        "Enumerate the 56 masks with itertools.combinations(range(8), 3).",
        mistakes=(
            Mistake(
                "only empty layers",
                8,
                "That counts the masks that empty a layer. A weight into one hidden unit and a "
                "weight out of the other make no path either.",
            ),
            Mistake(
                "with a path",
                40,
                "That is the number of masks that do leave a path; the others are asked for.",
            ),
            Mistake(
                "a hidden unit cut off",
                56,
                "With three weights some hidden unit is always cut off, so that is every mask. "
                "The signal is gone only where both are.",
            ),
            Mistake(
                "an input cut off",
                52,
                "That counts the masks under which some input reaches no output. Here every path "
                "must be gone, from both inputs.",
            ),
        ),
    ),
}
