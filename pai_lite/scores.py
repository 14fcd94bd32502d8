"""Scores, and how a mask is chosen from them.

A score says how much a weight is worth keeping; larger means keep.
The choice keeps an exact number of weights whatever the ties.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pai_lite.masks import Mask, NamedTensors


class HasShape(Protocol):
    """Anything with a shape: a tensor of scores, of a mask, or of weights."""

    @property
    def shape(self) -> torch.Size: ...


class Scores(NamedTensors):
    """A mapping from parameter name to a tensor of the weight's shape; larger = keep."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold the given tensors.

        Raises:
            ValueError: there is no tensor, or a score is NaN or infinite.
        """
        super().__init__({name: tensor.detach() for name, tensor in tensors.items()})
        for name, tensor in self.items():
            # The sum is finite where every score is, and far cheaper to look at.
            bad = 0 if tensor.sum().isfinite() else int((~torch.isfinite(tensor)).sum())
            if bad:
                raise ValueError(
                    f"{bad} of {tensor.numel()} scores of {name} are NaN or infinite. "
                    "Look for inputs that are not normalised, a loss that overflows, "
                    "or a network that has diverged."
                )

    def __repr__(self) -> str:
        return f"Scores({len(self)} layers, {self.flat().numel():,} weights)"

    def flat(self) -> Tensor:
        """Return all scores as one vector, layer after layer."""
        return torch.cat([tensor.flatten() for tensor in self.values()])


def check_sparsity(sparsity: float) -> None:
    """Raise a ``ValueError`` unless the sparsity is in [0, 1)."""
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(
            f"sparsity is {sparsity}; it is the fraction of weights removed and must be in "
            "[0, 1), for example 0.95 to keep one weight in twenty."
        )


def count_kept(size: int, sparsity: float) -> int:
    """Return k = round((1 - sparsity) * size).

    Raises:
        ValueError: the sparsity is not in [0, 1).
    """
    check_sparsity(sparsity)
    return round((1.0 - sparsity) * size)


def top_k(values: Tensor, k: int) -> Tensor:
    """Return a boolean vector that marks the k largest values; ties go to the smaller index.

    ``torch.topk`` breaks ties as it likes; here everything above the k-th value is kept,
    and then as many equal to it as are missing.

    Args:
        values: scores, shape (n,).
        k: how many to keep, 0 <= k <= n.
    """
    if k == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if values.device.type == "cpu":
        # NumPy compares and searches several times faster than PyTorch does on a CPU.
        return torch.from_numpy(top_k_numpy(_as_numpy(values), k))
    return top_k_torch(values, k)


def top_k_torch(values: Tensor, k: int) -> Tensor:
    """Do what :func:`top_k` does with PyTorch alone, for any device; k is at least 1."""
    threshold = torch.kthvalue(values, values.numel() - k + 1).values
    keep = values > threshold
    ties = torch.nonzero(values == threshold).flatten()
    keep[ties[: k - int(keep.sum())]] = True
    return keep


def _as_numpy(values: Tensor) -> np.ndarray:
    """Return the values as an array; NumPy has no bfloat16."""
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().numpy()


def top_k_numpy(values: np.ndarray, k: int) -> np.ndarray:
    """Mark the k >= 1 largest: settle what lies outside a bracket of the k-th, then look inside."""
    for low, high in (_bracket(values, k), (-np.inf, np.inf)):
        keep = values > high
        inside = np.flatnonzero((values >= low) ^ keep)
        missing = k - np.count_nonzero(keep)
        if 0 < missing <= len(inside):
            break
    candidates = values[inside]
    threshold = np.partition(candidates, len(inside) - missing)[len(inside) - missing]
    keep[inside[candidates > threshold]] = True
    ties = inside[candidates == threshold]
    keep[ties[: k - np.count_nonzero(keep)]] = True
    return keep


def _bracket(values: np.ndarray, k: int, size: int = 2**14) -> tuple[float, float]:
    """Guess two values between which the k-th largest lies, from a sample; none for few values.

    The rank of the k-th in the sample has a standard deviation of at most sqrt(size) / 2; four of
    them to either side miss it about once in ten thousand times, and then all values are searched.
    """
    if len(values) < 4 * size:
        return -np.inf, np.inf
    sample = np.sort(values[np.random.default_rng(0).integers(len(values), size=size)])
    share = k / len(values)
    rank, margin = size * (1 - share), 4 * np.sqrt(size * share * (1 - share)) + 1
    low, high = int(rank - margin), int(rank + margin)
    return sample[low] if low > 0 else -np.inf, sample[high] if high < size else np.inf


def invert(scores: Scores) -> Scores:
    """Return the scores in reverse order, so that the lowest of them are kept.

    The sign is turned: unlike 1 / score this is right for negative scores and for zeros.
    Equal scores stay equal.

    Source: Frankle et al. 2021, section 5.
    """
    return Scores({name: -score for name, score in scores.items()})


def keep_top(scores: Scores, sparsity: float) -> Mask:
    """Keep the round((1 - sparsity) * n) weights of largest score, over all layers together.

    Warns:
        LayerCollapseWarning: a layer keeps no weight.

    Raises:
        ValueError: the sparsity is not in [0, 1).
    """
    mask = keep_count(scores, count_kept(scores.flat().numel(), sparsity))
    mask.warn_if_collapsed()
    return mask


def keep_count(scores: Scores, k: int, *, among: Mask | None = None) -> Mask:
    """Keep the k weights of largest score, over all layers together.

    Args:
        among: choose among the weights that this mask keeps, whatever the scores of the others.
    """
    flat = scores.flat()
    if among is not None:
        allowed = torch.cat([tensor.flatten() for tensor in among.values()])
        flat.masked_fill_(~allowed, -torch.inf)  # flat is a copy
    parts = top_k(flat, k).split([tensor.numel() for tensor in scores.values()])
    return Mask({n: p.view_as(t) for (n, t), p in zip(scores.items(), parts, strict=True)})


def keep_top_per_layer(scores: Scores, counts: Mapping[str, int]) -> Mask:
    """Keep in each layer its given number of weights, those of largest score.

    Raises:
        ValueError: a layer has no count, or one outside 0 to its number of weights.
    """
    if counts.keys() != scores.keys():
        raise ValueError(
            f"counts names {sorted(counts)}; the scores have {sorted(scores)}. "
            "Give one count per layer."
        )
    for name, tensor in scores.items():
        if not 0 <= counts[name] <= tensor.numel():
            raise ValueError(
                f"counts[{name!r}] is {counts[name]}; the layer has {tensor.numel()} weights."
            )
    mask = Mask({n: top_k(t.flatten(), counts[n]).view_as(t) for n, t in scores.items()})
    mask.warn_if_collapsed()
    return mask


def uniform_counts(shapes: Mapping[str, HasShape], sparsity: float) -> dict[str, int]:
    """Return how many weights each layer keeps when all layers have the same density.

    Args:
        shapes: by layer name, anything with a shape (scores, a mask, or weights).
        sparsity: the fraction of weights removed over all layers.

    Raises:
        ValueError: the sparsity is not in [0, 1).
    """
    sizes = np.array([s.shape.numel() for s in shapes.values()], dtype=float)
    kept = count_kept(int(sizes.sum()), sparsity)
    counts = _round_to_sum(sizes * kept / sizes.sum(), kept, sizes)
    return dict(zip(shapes, counts, strict=True))


def erk_counts(shapes: Mapping[str, HasShape], sparsity: float) -> dict[str, int]:
    """Return how many weights each layer keeps under the Erdős–Rényi-kernel rule.

    A layer's density is proportional to the sum of its dimensions over their product,
    (out + in + height + width) / (out * in * height * width),
    so that thin layers keep more (Evci et al. 2020, section 3).
    A layer whose density would exceed one is kept whole and the rest is spread over the others.

    Args:
        shapes: by layer name, anything with a shape (scores, a mask, or weights).
        sparsity: the fraction of weights removed over all layers.

    Raises:
        ValueError: the sparsity is not in [0, 1).
    """
    sizes = np.array([s.shape.numel() for s in shapes.values()], dtype=float)
    raw = np.array([sum(s.shape) for s in shapes.values()], dtype=float)
    kept = count_kept(int(sizes.sum()), sparsity)
    full = np.zeros(len(sizes), dtype=bool)
    while True:
        share = (kept - sizes[full].sum()) / raw[~full].sum() if not full.all() else 0.0
        wanted = np.where(full, sizes, share * raw)
        over = (wanted > sizes) & ~full
        if not over.any():
            break
        full |= over
    counts = _round_to_sum(wanted, kept, sizes)
    return dict(zip(shapes, counts, strict=True))


def _round_to_sum(wanted: np.ndarray, total: int, sizes: np.ndarray) -> list[int]:
    """Round to integers of the given sum: the largest remainders are rounded up."""
    counts = np.floor(wanted + 1e-9)
    remainder = np.where(counts < sizes, wanted - counts, -np.inf)
    counts[np.argsort(-remainder, kind="stable")[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]
