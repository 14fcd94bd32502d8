"""BatchNorm and convolution with second derivatives by hand, against PyTorch and differences."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch, make_network
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.second_derivatives import AnalyticDerivatives, batch_norm, conv2d

SHAPES = [(7, 3), (5, 3, 4), (4, 3, 5, 2), (3, 2, 2, 3, 2)]


def inputs_of(shape: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 2 + 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    pair = torch.randn(2, shape[1], generator=generator, dtype=torch.float64)
    return [t.requires_grad_() for t in (x, *pair)]


@pytest.mark.parametrize("eps", [1e-5, 2.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_first_and_second_derivatives_are_those_of_finite_differences(shape, eps):
    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return batch_norm(x, None, None, weight, bias, training=True, eps=eps)

    assert torch.autograd.gradcheck(norm, inputs_of(shape))
    assert torch.autograd.gradgradcheck(norm, inputs_of(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_second_derivatives_are_those_of_pytorchs_chain(shape):
    found = []
    for norm in (batch_norm, F.batch_norm):
        x, weight, bias = inputs_of(shape)
        y = norm(x, None, None, weight, bias, training=True)
        first = torch.autograd.grad(y.tanh().pow(3).sum(), [x, weight, bias], create_graph=True)
        inner = sum((d * (d + i).sin()).sum() for i, d in enumerate(first))
        found.append((y, *first, *torch.autograd.grad(inner, [x, weight, bias])))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(3, affine=False),
        nn.BatchNorm2d(3).eval(),
        nn.BatchNorm2d(3, track_running_stats=False).eval(),
        nn.BatchNorm2d(3, eps=0.3, momentum=None),
    ],
    ids=["no scale", "eval", "no statistics", "other options"],
)
def test_the_context_gives_every_batchnorm_its_own_output(layer):
    x = torch.randn(4, 3, 5, 5)
    with AnalyticDerivatives():
        inside = layer(x)
    torch.testing.assert_close(inside, layer(x))


def test_a_single_value_a_channel_is_refused_as_pytorch_does():
    with AnalyticDerivatives(), pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(3)(torch.randn(1, 3))


def test_the_context_ends():
    layer, x = nn.BatchNorm1d(3), torch.randn(5, 3, requires_grad=True)
    with AnalyticDerivatives():
        assert "_BatchNorm" in layer(x).grad_fn.name()
    assert "_BatchNorm" not in layer(x).grad_fn.name()


def test_a_hessian_product_takes_this_way_and_agrees_in_float32():
    data = pai.load_data("digits")
    model, batch = pai.build_model("resnet20", data), data.batch(per_class=3)
    single = pai.hessian_gradient_product(model, batch)
    double = pai.hessian_gradient_product(model.double(), (batch[0].double(), batch[1]))
    for name in single:
        error = (single[name] - double[name]).norm() / double[name].norm()
        assert error < 1e-3, name


# Convolution

GEOMETRIES = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "uneven": {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 4},
}


def convolved(groups: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 5, 6), (4, 4 // groups, 3, 2), (4,)]
    made = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [tensor.requires_grad_() for tensor in made]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_convolutions_have_the_derivatives_of_finite_differences(name, bias):
    geometry = GEOMETRIES[name]
    x, weight, shift = convolved(geometry.get("groups", 1))
    given = [x, weight, shift][: 3 if bias else 2]

    def convolve(*tensors: Tensor) -> Tensor:
        return conv2d(*tensors, **geometry)

    torch.testing.assert_close(convolve(*given), F.conv2d(*given, **geometry))
    assert torch.autograd.gradcheck(convolve, given)
    assert torch.autograd.gradgradcheck(convolve, given)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 3, 3, padding="same"), nn.Conv2d(4, 3, 3, padding_mode="reflect", padding=1)],
    ids=["same", "reflect"],
)
@pytest.mark.parametrize("batched", [True, False])
def test_other_convolutions_are_pytorchs(layer, batched):
    x = torch.randn(2, 4, 5, 6, requires_grad=True) if batched else torch.randn(4, 5, 6)
    with AnalyticDerivatives():
        inside = layer(x)
    torch.testing.assert_close(inside, layer(x))


@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_a_hessian_product_is_that_of_pytorchs_own_derivatives(kind, monkeypatch):
    model, batch = make_network(kind), make_batch()
    ours = pai.hessian_gradient_product(model, batch)
    monkeypatch.setattr(pai.gradients, "AnalyticDerivatives", contextlib.nullcontext)
    theirs = pai.hessian_gradient_product(model, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours), "another way was taken"
