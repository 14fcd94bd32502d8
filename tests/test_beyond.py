"""What the last chapter claims without training: costs of removal, and masks that move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor


def least_squares(seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a regression whose inputs depend on each other."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    inputs = torch.randn(20, 6, dtype=torch.float64, generator=generator) @ mixing
    return inputs, torch.randn(20, dtype=torch.float64, generator=generator)


def loss(inputs: Tensor, targets: Tensor, w: Tensor) -> Tensor:
    return (inputs @ w - targets).square().mean() / 2


def fit_without(inputs: Tensor, targets: Tensor, i: int) -> Tensor:
    """Return the best weights of which weight i is 0, by a fit without its column."""
    others = [j for j in range(inputs.shape[1]) if j != i]
    w = torch.zeros(inputs.shape[1], dtype=torch.float64)
    w[others] = torch.linalg.lstsq(inputs[:, others], targets).solution
    return w


@pytest.mark.parametrize("seed", range(5))
def test_claim_beyond_obs(seed: int) -> None:
    """The adjustment is that of a new fit, and with it a removal costs less."""
    inputs, targets = least_squares(seed)
    w = torch.linalg.lstsq(inputs, targets).solution
    inverse = torch.linalg.inv(inputs.T @ inputs / len(inputs))
    for i in range(len(w)):
        adjusted = w - w[i] / inverse[i, i] * inverse[i]
        cost = w[i].square() / (2 * inverse[i, i])
        alone = w.clone()
        alone[i] = 0.0
        refit, least = fit_without(inputs, targets, i), loss(inputs, targets, w)
        assert torch.allclose(adjusted, refit, rtol=0, atol=1e-10)
        assert torch.isclose(cost, loss(inputs, targets, refit) - least, rtol=1e-9)
        assert cost < loss(inputs, targets, alone) - least


def count_tried(n: int, k: int, r: int, rounds: int, rng: np.random.Generator) -> int:
    """Count the weights that were ever kept, as r of them move at random in every round."""
    kept, tried = set(range(k)), set(range(k))
    for _ in range(rounds):
        grown = set(rng.choice(sorted(set(range(n)) - kept), r, replace=False).tolist())
        kept = kept - set(rng.choice(sorted(kept), r, replace=False).tolist()) | grown
        tried |= grown
    return len(tried)


@pytest.mark.parametrize(("n", "k", "r", "rounds"), [(40, 8, 2, 12), (60, 30, 5, 4), (50, 5, 1, 9)])
def test_claim_beyond_tried(n: int, k: int, r: int, rounds: int) -> None:
    """A weight that was never kept is passed over with probability 1 - r / (n - k) a round."""
    rng = np.random.default_rng(0)
    counts = np.array([count_tried(n, k, r, rounds, rng) for _ in range(600)])
    expected = n - (n - k) * (1 - r / (n - k)) ** rounds
    assert abs(counts.mean() - expected) < 4 * counts.std() / len(counts) ** 0.5
    assert counts.min() > k, "more than it holds"
