"""BatchNorm with second derivatives by hand, against PyTorch's chain and finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.batchnorm import AnalyticBatchNorm, batch_norm

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
    with AnalyticBatchNorm():
        inside = layer(x)
    torch.testing.assert_close(inside, layer(x))


def test_a_single_value_a_channel_is_refused_as_pytorch_does():
    with AnalyticBatchNorm(), pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(3)(torch.randn(1, 3))


def test_the_context_ends():
    layer, x = nn.BatchNorm1d(3), torch.randn(5, 3, requires_grad=True)
    with AnalyticBatchNorm():
        assert "_Forward" in layer(x).grad_fn.name()
    assert "_Forward" not in layer(x).grad_fn.name()


def test_a_hessian_product_takes_this_way_and_agrees_in_float32():
    data = pai.load_data("digits")
    model, batch = pai.build_model("resnet20", data), data.batch(per_class=3)
    single = pai.hessian_gradient_product(model, batch)
    double = pai.hessian_gradient_product(model.double(), (batch[0].double(), batch[1]))
    for name in single:
        error = (single[name] - double[name]).norm() / double[name].norm()
        assert error < 1e-3, name
