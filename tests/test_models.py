"""The networks of the papers: sizes, initial weights, outputs."""

import itertools

import pytest
import torch
from conftest import make_data, rng_state, same_weights, weights
from torch import nn

import pai_lite as pai

SHAPES = {"lenet-300-100": (1, 28, 28), "resnet20": (3, 32, 32), "small-conv": (1, 8, 8)}


def build(name: str, seed: int = 0, classes: int = 10) -> nn.Module:
    return pai.build_model(name, make_data(SHAPES[name], classes), seed=seed)


def test_these_models_are_known():
    assert set(SHAPES) <= set(pai.MODELS)


def test_lenet_300_100_has_its_weights():
    model = build("lenet-300-100")
    assert [tuple(p.shape) for p in pai.prunable_parameters(model).values()] == [
        (300, 784),
        (100, 300),
        (10, 100),
    ]
    assert pai.Mask.dense(model).size == 784 * 300 + 300 * 100 + 100 * 10
    assert sum(p.numel() for p in model.parameters()) == 266_610  # with 410 biases


def test_resnet20_has_its_weights():
    """He et al.'s twenty layers, and two 1x1 projections where the shape changes."""
    shapes = [tuple(p.shape) for p in pai.prunable_parameters(build("resnet20")).values()]
    projections = [shape for shape in shapes if shape[2:] == (1, 1)]
    assert sorted(projections) == [(32, 16, 1, 1), (64, 32, 1, 1)]
    assert len(shapes) == 20 + 2
    assert sum(torch.Size(shape).numel() for shape in shapes) == 268_336 + 512 + 2_048 == 270_896
    assert sorted(set(shapes)) == sorted(
        {(16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)}
        | {(64, 64, 3, 3), (32, 16, 1, 1), (64, 32, 1, 1), (10, 64)}
    )


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_outputs_have_one_logit_a_class(name, classes):
    model = build(name, classes=classes)
    assert model(torch.randn(4, *SHAPES[name])).shape == (4, classes)


@pytest.mark.parametrize("name", SHAPES)
def test_initial_weights_are_kaiming_normal(name):
    for layer in build(name).modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.detach().double().flatten()
            std = (2 / layer.weight[0].numel()) ** 0.5
            n = weight.numel()
            assert abs(weight.mean()) < 5 * std / n**0.5, layer
            assert abs(weight.std() / std - 1) < 5 / (2 * n) ** 0.5, layer
            beyond = (weight.abs() > 2 * std).double().mean()  # 0.0455 of a normal distribution
            assert abs(beyond - 0.0455) < 5 * (0.0455 / n) ** 0.5, layer
            assert layer.bias is None or not layer.bias.any()
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert not layer.bias.any()


@pytest.mark.parametrize("name", SHAPES)
def test_initial_weights_follow_the_seed_and_not_the_global_generator(name):
    before = rng_state()
    first = weights(build(name, seed=1))
    assert rng_state() == before
    torch.manual_seed(123)
    assert same_weights(first, weights(build(name, seed=1)))
    second = weights(build(name, seed=2))
    for layer in pai.prunable_parameters(build(name)):
        assert not torch.equal(first[layer], second[layer]), layer
    assert same_weights(weights(build(name)), weights(build(name, seed=0)))


def test_layers_of_one_shape_start_with_other_weights():
    found = [
        p for p in pai.prunable_parameters(build("resnet20")).values() if p.shape[1:3] == (16, 3)
    ]
    assert len(found) >= 6
    for first, second in itertools.combinations(found, 2):
        assert first.shape != second.shape or not torch.equal(first, second)


@pytest.mark.parametrize("name", SHAPES)
def test_every_layer_takes_part(name):
    data = make_data(SHAPES[name], 10)
    scores = pai.snip(pai.build_model(name, data), data.batch(per_class=1))
    assert all(score.any() for score in scores.values())


@pytest.mark.parametrize("name", ["resnet20", "small-conv"])
def test_convolutional_networks_have_batchnorm(name):
    assert any(isinstance(module, nn.BatchNorm2d) for module in build(name).modules())


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("resnet-20", "resnet20"), ("lenet", "lenet-300-100"), ("vgg", None)]
)
def test_an_unknown_model_lists_the_known_and_the_nearest(wrong, nearest, digits):
    with pytest.raises(ValueError, match=wrong) as caught:
        pai.build_model(wrong, digits)
    assert all(name in str(caught.value) for name in pai.MODELS)
    if nearest:
        assert str(caught.value).count(nearest) == 2, "once as the nearest, once in the list"


@pytest.mark.parametrize("name", ["resnet20", "small-conv"])
def test_models_are_small_enough_for_the_digits(name, digits):
    model = pai.build_model(name, digits)
    inputs, targets = digits.batch(per_class=1)
    assert model(inputs).shape == (len(targets), 10)
