"""GraSP and its relatives against the explicit Hessian and the real change of the gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch, make_network, unchanged
from torch import Tensor, nn
from torch.func import functional_call

import pai_lite as pai

KINDS = ["mlp", "conv", "residual"]


class ByHand:
    """The loss as a function of one vector of prunable weights, and its derivatives."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor], temperature: float = 1.0):
        self.model, self.batch, self.temperature = model, batch, temperature
        self.shapes = {n: p.shape for n, p in pai.prunable_parameters(model).items()}
        self.w = torch.cat([p.detach().flatten() for p in pai.prunable_parameters(model).values()])

    def loss(self, w: Tensor) -> Tensor:
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), w.split(sizes), strict=True)
        weights = {name: part.view(shape) for (name, shape), part in parts}
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        outputs = functional_call(self.model, {**weights, **buffers}, (self.batch[0],))
        return F.cross_entropy(outputs / self.temperature, self.batch[1])

    def gradient(self, w: Tensor) -> Tensor:
        return torch.func.grad(self.loss)(w)

    def hessian(self, w: Tensor) -> Tensor:
        return torch.autograd.functional.hessian(self.loss, w)


def in_mode(kind: str, batchnorm: str) -> nn.Module:
    """Build a network in the mode that the criterion is asked for; it has no dropout."""
    return make_network(kind).train(batchnorm == "train")


def flat(scores: pai.Scores | dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in scores.values()])


@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("kind", KINDS)
def test_grasp_is_weight_times_hessian_times_gradient(kind, batchnorm, temperature):
    model, batch = in_mode(kind, batchnorm), make_batch()
    by_hand = ByHand(model, batch, temperature)
    expected = by_hand.w * (by_hand.hessian(by_hand.w) @ by_hand.gradient(by_hand.w))
    options = {"batchnorm": batchnorm, "temperature": temperature}
    scores = flat(pai.grasp(model, batch, **options))
    scale = expected.abs().max()
    assert torch.allclose(scores / scale, expected / scale, rtol=0, atol=1e-10)
    assert (scores < 0).any()
    assert torch.equal(flat(pai.grasp_abs(model, batch, **options)), scores.abs())


@pytest.mark.parametrize("kind", KINDS)
def test_grasp_of_several_batches_averages_hessian_and_gradient(kind):
    model, batches = in_mode(kind, "train"), [make_batch(seed) for seed in range(2)]
    hands = [ByHand(model, batch) for batch in batches]
    w = hands[0].w
    hessian = sum(hand.hessian(w) for hand in hands) / 2
    gradient = sum(hand.gradient(w) for hand in hands) / 2
    expected = w * (hessian @ gradient)
    scores = flat(pai.grasp(model, iter(batches), temperature=1.0))
    assert torch.allclose(scores, expected, rtol=1e-9, atol=1e-13)
    each = sum(w * (hand.hessian(w) @ hand.gradient(w)) for hand in hands) / 2
    assert not torch.allclose(each, expected, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_claim_grasp_taylor(kind):
    by_hand = ByHand(in_mode(kind, "train"), make_batch())
    w, g = by_hand.w, by_hand.gradient(by_hand.w)
    d = torch.randn(w.shape, generator=torch.Generator().manual_seed(0), dtype=w.dtype)
    products = flat(pai.hessian_gradient_product(by_hand.model, by_hand.batch))

    def error(eps: float) -> Tensor:
        change = by_hand.gradient(w + eps * d).square().sum() - g.square().sum()
        return (change - 2 * eps * (d * products).sum()).abs()

    assert error(1e-4) > 0
    assert 50 < error(1e-3) / error(1e-4) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_claim_grasp_sign(kind):
    """-2 z_i is the change of the squared norm when a little of weight i is removed.

    So the lowest scores are to go. And the loss falls by the squared norm along minus the gradient.
    """
    by_hand = ByHand(in_mode(kind, "train"), make_batch())
    scores = flat(pai.grasp(by_hand.model, by_hand.batch, temperature=1.0))
    norm = by_hand.gradient(by_hand.w).square().sum().detach()
    for i in (scores.argmin(), scores.argmax()):
        w = by_hand.w.clone()
        w[i] *= 1 - 1e-5
        change = (by_hand.gradient(w).square().sum().detach() - norm) / 1e-5
        assert change.item() == pytest.approx(float(-2 * scores[i]), rel=1e-2)
    g, step = by_hand.gradient(by_hand.w).detach(), 1e-6
    fall = by_hand.loss(by_hand.w - step * g) - by_hand.loss(by_hand.w)
    assert float(fall.detach() / step) == pytest.approx(float(-norm), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_claim_grasp_identity(kind):
    """With the identity for H the score is weight times gradient: SNIP's but for the sign."""
    model, batch = in_mode(kind, "train"), make_batch()
    by_hand = ByHand(model, batch)
    identity = torch.eye(len(by_hand.w), dtype=torch.float64)
    replaced = by_hand.w * (identity @ by_hand.gradient(by_hand.w))
    assert torch.allclose(replaced.abs(), flat(pai.snip(model, batch)), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_grad_norm_is_the_squared_gradient_by_differences(kind):
    model, batch = in_mode(kind, "train"), make_batch()
    by_hand, eps = ByHand(model, batch), 1e-6
    steps = eps * torch.eye(len(by_hand.w), dtype=torch.float64)
    slope = torch.stack(
        [(by_hand.loss(by_hand.w + e) - by_hand.loss(by_hand.w - e)) / (2 * eps) for e in steps]
    )
    assert torch.allclose(flat(pai.grad_norm(model, batch)), slope**2, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_moves_the_gradient_to_the_pruned_network_and_leaves_the_weight(kind):
    """de Jorge et al. eq. 5: the derivative in c at the mask is the dense weight times g(m w)."""
    model, batch = in_mode(kind, "train"), make_batch()
    mask = pai.prune(model, "random", sparsity=0.5, seed=3)
    by_hand, m, eps = ByHand(model, batch), flat(mask).double(), 1e-6
    steps = eps * torch.eye(len(m), dtype=torch.float64)
    slope = torch.stack(
        [by_hand.loss((m + e) * by_hand.w) - by_hand.loss((m - e) * by_hand.w) for e in steps]
    ) / (2 * eps)
    scores = flat(pai.snip(model, batch, mask=mask))
    assert torch.allclose(scores, slope.abs(), rtol=0, atol=1e-8)
    assert (scores[m == 0] > 0).any()


@pytest.mark.parametrize("criterion", [pai.grasp, pai.grasp_abs, pai.grad_norm, pai.synflow])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_found(kind, criterion):
    model = make_network(kind)
    for i, module in enumerate(model.modules()):
        module.training = i % 2 == 0
    next(model.parameters()).requires_grad_(False)
    with torch.no_grad(), unchanged(model):
        criterion(model, make_batch())


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        pai.grasp(make_network("mlp"), make_batch(), temperature=temperature)


@pytest.mark.parametrize("criterion", [pai.grasp, pai.grasp_abs])
def test_the_temperature_is_200_unless_given(criterion):
    model, batch = in_mode("conv", "train"), make_batch()
    named = flat(criterion(model, batch, temperature=200.0))
    assert torch.equal(flat(criterion(model, batch)), named)
