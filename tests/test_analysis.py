"""Gradient norm, kept saliency and NTK against explicit Jacobians and differences."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch, make_network, unchanged
from torch import Tensor, nn
from torch.func import functional_call

import pai_lite as pai
from pai_lite.analysis import (
    emptied_units,
    kept_saliency,
    layer_totals,
    ntk,
    ntk_spectrum,
    squared_gradient_norm,
    unit_sparsity,
)
from pai_lite.paths import path_norm

KINDS = ["mlp", "conv", "residual"]


class ByHand:
    """Logits and loss as functions of one vector of prunable weights, at a pruned network."""

    def __init__(self, kind: str, mask: bool = True, batchnorm: str = "train") -> None:
        self.model = make_network(kind).train(batchnorm == "train")
        self.weights = {n: p.detach() for n, p in pai.prunable_parameters(self.model).items()}
        self.w = torch.cat([w.flatten() for w in self.weights.values()])
        self.mask = pai.prune(self.model, "random", sparsity=0.6, seed=3) if mask else None
        kept = self.mask.values() if mask else [torch.ones_like(w) for w in self.weights.values()]
        self.m = torch.cat([tensor.flatten() for tensor in kept]).bool()
        self.options = {"mask": self.mask, "batchnorm": batchnorm}

    def logits(self, w: Tensor, inputs: Tensor) -> Tensor:
        parts = w.split([t.numel() for t in self.weights.values()])
        named = zip(self.weights.items(), parts, strict=True)
        state = {n: p.view_as(t) for (n, t), p in named}
        state |= {n: b.clone() for n, b in self.model.named_buffers()}
        return functional_call(self.model, state, (inputs,))

    def loss(self, w: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self.logits(w, batch[0]), batch[1])

    def slope(self, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the derivative of the mean loss in the mask at m, by central differences."""

        def loss(m: Tensor) -> float:
            return float(sum(self.loss(m * self.w, b) for b in batches) / len(batches))

        eps, m = 1e-6, self.m.double()
        steps = eps * torch.eye(len(m), dtype=torch.float64)
        return torch.tensor([loss(m + e) - loss(m - e) for e in steps]).double() / (2 * eps)

    def jacobian(self, inputs: Tensor) -> Tensor:
        """Return the explicit Jacobian of all logits in the kept weights, at m * w."""
        rows = torch.func.jacrev(lambda w: self.logits(w, inputs).flatten())(self.m * self.w)
        return rows[:, self.m].detach()


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_kept_saliency_is_the_slope_in_the_mask_over_kept_weights(kind, mask, batchnorm):
    hand, batches = ByHand(kind, mask, batchnorm), [make_batch(seed) for seed in range(2)]
    with torch.no_grad():
        expected = hand.slope(batches)[hand.m].abs().sum()
    found = kept_saliency(hand.model, iter(batches), **hand.options)
    assert found == pytest.approx(float(expected), rel=1e-6)
    each = sum(kept_saliency(hand.model, b, **hand.options) for b in batches) / 2
    assert each > found * 1.01  # averaged before the absolute value, not after


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_norm_is_that_of_the_pruned_network_in_its_kept_weights(kind, mask, batchnorm):
    hand, batches = ByHand(kind, mask, batchnorm), [make_batch(seed) for seed in range(2)]
    with torch.no_grad():
        slope = hand.slope(batches) / hand.w  # the derivative in the mask is w times that in w
    expected = float(slope[hand.m].square().sum())
    found = squared_gradient_norm(hand.model, iter(batches), **hand.options)
    assert found == pytest.approx(expected, rel=1e-6)


def test_gradient_norm_is_what_training_the_pruned_network_would_see():
    model, batch = make_network("conv").train(), make_batch()
    mask = pai.prune(model, "snip", batch, sparsity=0.7)
    twin = copy.deepcopy(model)
    mask.apply_(twin)
    F.cross_entropy(twin(batch[0]), batch[1]).backward()
    grads = {name: p.grad[mask[name]] for name, p in pai.prunable_parameters(twin).items()}
    expected = sum(float(g.square().sum()) for g in grads.values())
    assert squared_gradient_norm(model, batch, mask=mask) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_ntk_is_the_explicit_jacobian_times_its_transpose(kind, mask, batchnorm):
    hand, batch = ByHand(kind, mask, batchnorm), make_batch(size=5)
    jacobian = hand.jacobian(batch[0])
    kernel = ntk(hand.model, batch, **hand.options)
    assert kernel.shape == (15, 15)
    assert torch.allclose(kernel, jacobian @ jacobian.T, rtol=1e-10, atol=1e-12)
    assert torch.equal(kernel, ntk(hand.model, (batch[0], batch[1] * 0), **hand.options))


@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_with_batch_statistics_a_logit_depends_on_the_whole_batch(kind):
    """Kernels of single images, or of BatchNorm in eval mode, are other kernels."""
    model, batch = make_network(kind), make_batch(size=4)
    train, frozen = (ntk(model, batch, batchnorm=mode) for mode in ("train", "eval"))
    assert not torch.allclose(train, frozen, rtol=0.05)
    fewer = ntk(model, (batch[0][:3], batch[1][:3]), batchnorm="eval")
    assert torch.allclose(fewer, frozen[:9, :9], rtol=1e-10)
    fewer = ntk(model, (batch[0][:3], batch[1][:3]), batchnorm="train")
    assert not torch.allclose(fewer, train[:9, :9], rtol=0.05)


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_claim_grasp_ntk(kind, mask, batchnorm):
    """The squared gradient norm is the NTK's quadratic form in the output gradient."""
    hand, batch = ByHand(kind, mask, batchnorm), make_batch()
    table = ntk_spectrum(hand.model, batch, **hand.options)
    at = (hand.m * hand.w).requires_grad_()
    (g,) = torch.autograd.grad(hand.loss(at, batch), at)
    total = (table["eigenvalue"] * table["squared_projection"]).sum()
    assert total == pytest.approx(float(g[hand.m].square().sum()), rel=1e-10)
    assert total == pytest.approx(squared_gradient_norm(hand.model, batch, **hand.options))


@pytest.mark.parametrize("kind", KINDS)
def test_spectrum_is_that_of_the_explicit_jacobian(kind):
    hand, (inputs, targets) = ByHand(kind), make_batch(size=4)
    outputs = hand.logits(hand.m * hand.w, inputs).detach()
    v = (outputs.softmax(1) - F.one_hot(targets, 3)).flatten() / 4
    left, singular, _ = np.linalg.svd(hand.jacobian(inputs).numpy())
    table = ntk_spectrum(hand.model, (inputs, targets), **hand.options)
    rank = int((singular > 1e-6).sum())
    assert rank > 5
    eigenvalues, squared = table["eigenvalue"], table["squared_projection"]
    np.testing.assert_allclose(eigenvalues[:rank], singular[:rank] ** 2, rtol=1e-8)
    np.testing.assert_allclose(squared[:rank], (left.T @ v.numpy())[:rank] ** 2, rtol=1e-6)
    assert squared.sum() == pytest.approx(float(v.square().sum()), rel=1e-12)
    assert (eigenvalues.diff().dropna() <= 0).all()


def test_ntk_of_a_wide_network_in_float32():
    """More columns than fit into one part of the sum."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 2500), nn.ReLU(), nn.Linear(2500, 3))
    inputs, targets = make_batch(size=2, dtype=torch.float32)
    kernel = ntk(model, (inputs, targets))
    double = ntk(copy.deepcopy(model).double(), (inputs.double(), targets))
    assert kernel.dtype == torch.float64
    assert torch.allclose(kernel, double, rtol=1e-5, atol=1e-6)
    # For one hidden layer: K = x'x * sum a^2 [both on] + h'h, on the diagonal of classes.
    h = model[:3](inputs).double()
    on, a, x = (h > 0).double(), model[3].weight.double(), inputs.flatten(1).double()
    same = torch.einsum("ik,jk,ck,dk,ij->icjd", on, on, a, a, x @ x.T)
    same += torch.einsum("ij,cd->icjd", h @ h.T, torch.eye(3).double())
    assert torch.allclose(double, same.reshape(6, 6).detach(), rtol=1e-5, atol=1e-5)


def test_ntk_of_a_linear_model_is_the_products_of_its_inputs():
    """J holds the inputs themselves, so nothing but the sum could lose digits."""
    x = torch.rand(2, 70_000, generator=torch.Generator().manual_seed(0))
    kernel = ntk(nn.Linear(70_000, 2), (x, torch.tensor([0, 1])))
    expected = np.kron(x.double().numpy() @ x.double().numpy().T, np.eye(2))
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_found(kind):
    model, batch = make_network(kind), make_batch(size=3)
    for i, module in enumerate(model.modules()):
        module.training = i % 2 == 0
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    next(model.parameters()).requires_grad_(False)
    mask = pai.prune(model, "random", sparsity=0.5)
    for function in (squared_gradient_norm, kept_saliency, ntk, ntk_spectrum):
        for batchnorm in ("train", "eval"):
            with torch.no_grad(), unchanged(model):
                function(model, batch, mask=mask, batchnorm=batchnorm)


def test_bad_input_is_refused():
    model, batch = make_network("mlp"), make_batch()
    for function in (ntk, ntk_spectrum):
        with pytest.raises(ValueError, match="2 batches were given"):
            function(model, [batch, batch])
        with pytest.raises(ValueError, match="dtype"):
            function(model, (batch[0].float(), batch[1]))
    with pytest.raises(ValueError, match="3 classes"):
        ntk_spectrum(model, (batch[0], batch[1] + 1))
    for function in (squared_gradient_norm, kept_saliency, ntk, ntk_spectrum):
        with pytest.raises(ValueError, match="does not fit"):
            function(model, batch, mask=pai.Mask.dense(make_network("conv")))
        with pytest.raises(ValueError, match="batchnorm"):
            function(model, batch, batchnorm="test")
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        ntk_spectrum(model, batch)


def test_a_unit_is_emptied_when_no_incoming_weight_is_left():
    keep = {
        "conv.weight": torch.tensor([[[[1, 0], [0, 0]]], [[[0, 0], [0, 0]]], [[[1, 1], [1, 1]]]]),
        "fc.weight": torch.tensor([[0, 1, 1], [0, 1, 0]]),  # no weight leaves unit 0
    }
    mask = pai.Mask({name: tensor.bool() for name, tensor in keep.items()})
    sparsity = unit_sparsity(mask)
    assert sparsity.index.names == ["layer", "unit"]
    assert sparsity["conv.weight"].tolist() == [0.75, 1.0, 0.0]
    assert sparsity["fc.weight"].tolist() == pytest.approx([1 / 3, 2 / 3])
    emptied = emptied_units(mask)
    assert emptied[emptied].index.tolist() == [("conv.weight", 1)]
    assert emptied.mean() == 0.2
    by_layer = emptied.groupby("layer", sort=False).mean()
    assert by_layer.to_dict() == pytest.approx({"conv.weight": 1 / 3, "fc.weight": 0.0})


def test_layer_totals_are_summed_in_float64():
    scores = pai.Scores({"a": torch.full((1000,), 0.1), "b": torch.tensor([[1e8, 1.0], [1, -2]])})
    expected = pd.Series({"a": 1000 * float(np.float32(0.1)), "b": 1e8}, name="total")
    pd.testing.assert_series_equal(layer_totals(scores), expected, rtol=1e-12)


def test_synflow_conserves_the_path_norm_in_every_layer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(),
            nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3),
        ).double()  # fmt: skip
    mask = pai.prune(model, "random", sparsity=0.3, seed=1)
    totals = layer_totals(pai.synflow(model, make_batch(), mask=mask))
    assert list(totals.index) == list(mask)
    norm = path_norm(model, make_batch(), mask=mask)
    assert totals.tolist() == pytest.approx([norm] * 4, rel=1e-12)
