"""The networks of the papers: sizes, initial weights, outputs."""

import itertools
from functools import cache

import pytest
import torch
import torchvision
from conftest import make_data, rng_state, same_weights, unchanged, weights
from torch import nn

import pai_lite as pai
from pai_lite.models import check_images, find_builder, initialize

SHAPES = {"lenet-300-100": (1, 28, 28), "resnet20": (3, 32, 32), "small-conv": (1, 8, 8)}
DEEP = ["resnet56", "resnet110", "resnet32-x2", "vgg16", "vgg19", "resnet18", "resnet50"]
BORROWED = ["mobilenet_v3_small", "mnasnet0_5", "squeezenet1_1", "regnet_x_400mf", "resnet34"]
SHAPES_OF_ALL = SHAPES | dict.fromkeys([*DEEP, *BORROWED], (3, 32, 32))


def build(name: str, seed: int = 0, classes: int = 10) -> nn.Module:
    return pai.build_model(name, make_data(SHAPES_OF_ALL[name], classes), seed=seed)


built = cache(build)  # for tests that only look


def on_meta(name: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build a network whose weights have shapes and no memory."""
    with torch.device("meta"):
        return find_builder(name)(shape, classes)


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, kind))


def test_these_models_are_known():
    assert {*SHAPES, *DEEP} <= set(pai.MODELS)


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


def test_initial_weights_are_those_that_stored_results_began_with():
    """A seed draws the same weights in every version, up to the rounding of a processor."""
    firsts = {
        "lenet-300-100": ("1.weight", [-0.055626, 0.024375, 0.019192]),
        "small-conv": ("0.weight", [-0.340664, -0.547431, -0.691595]),
        "resnet20": ("0.weight", [0.206836, 0.208999, -0.152208]),
    }
    for name, (layer, values) in firsts.items():
        weight = built(name).get_parameter(layer).detach().flatten()
        assert weight[:3].tolist() == pytest.approx(values, rel=1e-4), name


@pytest.mark.parametrize(
    ("name", "layers", "millions"),
    [("resnet20", 20, 0.27), ("resnet56", 56, 0.85), ("resnet110", 110, 1.7)],
)
def test_cifar_resnets_have_the_layers_and_parameters_of_he(name, layers, millions):
    """He et al. 2016, table 6; theirs has no projection in the shortcuts."""
    model = on_meta(name, (3, 32, 32), 10)
    shortcuts = [module.shortcut for module in model.modules() if hasattr(module, "shortcut")]
    projections = sum(p.numel() for s in shortcuts for p in s.parameters())
    total = sum(p.numel() for p in model.parameters()) - projections
    digits = len(str(millions)) - 2
    assert round(total / 1e6, digits) == millions
    assert len(pai.prunable_parameters(model)) == layers + 2


@pytest.mark.parametrize(("name", "layers"), [("resnet20", 20), ("resnet32-x2", 32)])
def test_cifar_resnets_halve_the_image_twice(name, layers):
    model, seen = build(name).eval(), []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, _i, y: seen.append(y.shape[-1]))
    model(torch.randn(1, 3, 32, 32))
    third = (layers - 2) // 3  # one BatchNorm a convolution; two of them in shortcuts
    assert seen == [32] * (third + 1) + [16] * (third + 1) + [8] * (third + 1)


def test_resnet32_x2_is_resnet32_with_twice_the_filters():
    """Wang et al. 2020, footnote 1: twice the filters are four times the weights inside."""
    shapes = [tuple(p.shape) for p in pai.prunable_parameters(built("resnet32-x2")).values()]
    assert shapes[0] == (32, 3, 3, 3)
    assert shapes[-1] == (10, 128)
    inner = [shape for shape in shapes[1:-1] if shape[2:] == (3, 3)]
    stage = {16: 10, 32: 9, 64: 9}  # of a 32-layer network: 5 blocks of 2, the first one wider
    expected = [(2 * w, 2 * w, 3, 3) for w, n in stage.items() for _ in range(n)]
    assert sorted(inner) == sorted([*expected, (64, 32, 3, 3), (128, 64, 3, 3)])
    assert sum(torch.Size(shape).numel() for shape in inner) == 4 * sum(
        9 * (w * w * n) for w, n in stage.items()
    ) + 4 * 9 * (16 * 32 + 32 * 64)


@pytest.mark.parametrize(
    ("name", "stages"), [("vgg16", (2, 2, 3, 3, 3)), ("vgg19", (2, 2, 4, 4, 4))]
)
@pytest.mark.parametrize("side", [32, 64])
def test_vgg_has_five_stages_with_max_pooling_between(name, stages, side):
    """Frankle et al. 2021, appendix A.1, lists the stages of VGG-16."""
    model, seen = pai.MODELS[name]((3, side, side), 7).eval(), []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, y: seen.append(tuple(y.shape[1:])))
    assert model(torch.randn(2, 3, side, side)).shape == (2, 7)
    widths = zip((64, 128, 256, 512, 512), stages, strict=True)
    assert seen == [
        (width, side >> i, side >> i) for i, (width, n) in enumerate(widths) for _ in range(n)
    ]
    assert [m.weight.shape for m in model.modules() if isinstance(m, nn.Linear)] == [(7, 512)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == sum(stages)
    assert all(m.bias is None for m in model.modules() if isinstance(m, nn.Conv2d))


FORCE_TABLE_3 = [
    # network, side of an image, classes; Conv, fully connected, prunable (%), total (millions)
    ("resnet50", 32, 10, 99.69, 0.09, 99.78, 23.52),
    ("vgg19", 32, 10, 99.92, 0.03, 99.95, 20.04),
    ("resnet50", 32, 100, 98.91, 0.86, 99.78, 23.71),
    ("vgg19", 32, 100, 99.69, 0.25, 99.94, 20.08),
    ("resnet50", 64, 200, 98.06, 1.71, 99.78, 23.91),  # with torchvision's stem: 23.92
    ("vgg19", 64, 200, 99.44, 0.51, 99.94, 20.13),
    ("resnet50", 224, 1000, 91.77, 8.01, 99.79, 25.56),
    ("vgg19", 224, 1000, 13.93, 86.05, 99.98, 143.68),
]


@pytest.mark.parametrize(
    ("name", "side", "classes", "conv", "linear", "prunable", "millions"), FORCE_TABLE_3
)
def test_claim_force_counts(name, side, classes, conv, linear, prunable, millions):
    """De Jorge et al. 2021, table 3, to its last digit in all cells but one.

    ResNet-50 on CIFAR-10 has 23,467,712 prunable weights of 23,520,842: 99.774%, to be rounded
    to 99.77. The table says 99.78, which is the sum of its rounded cells, 99.69 + 0.09.
    """
    model = on_meta(name, (3, side, side), classes)
    total, kept = sum(p.numel() for p in model.parameters()), pai.Mask.dense(model).size
    assert kept == count(model, nn.Conv2d) + count(model, nn.Linear)
    assert round(total / 1e6, 2) == millions
    assert round(100 * count(model, nn.Conv2d) / total, 2) == conv
    assert round(100 * count(model, nn.Linear) / total, 2) == linear
    if (name, classes) == ("resnet50", 10):
        assert (kept, total) == (23_467_712, 23_520_842)
        assert prunable == round(conv + linear, 2) == 99.78 != round(100 * kept / total, 2)
        assert abs(100 * kept / total - prunable) < 0.01
    else:
        assert round(100 * kept / total, 2) == prunable


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet34", "vgg16", "vgg19"])
def test_large_images_get_the_network_of_torchvision(name):
    with torch.device("meta"):
        full_name = f"{name}_bn" if "vgg" in name else name
        theirs = torchvision.models.get_model(full_name, num_classes=7)
    for side in (65, 224):
        ours = on_meta(name, (3, side, side), 7)
        assert {n: p.shape for n, p in ours.named_parameters()} == {
            n: p.shape for n, p in theirs.named_parameters()
        }


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@pytest.mark.parametrize("side", [32, 64])
def test_residual_networks_have_a_small_stem_for_small_images(name, side):
    model, sides = on_meta(name, (1, side, side), 10).eval(), []
    assert model.conv1.weight.shape == (64, 1, 3, 3)
    for stage in (model.layer1, model.layer4):
        stage.register_forward_pre_hook(lambda _m, x: sides.append(x[0].shape[-1]))
    model(torch.empty(2, 1, side, side, device="meta"))
    assert sides == [side, side / 4]
    theirs = torchvision.models.get_model(name, num_classes=10).state_dict()
    ours = {n: t for n, t in model.state_dict().items() if n != "conv1.weight"}
    assert all(theirs[n].shape == t.shape for n, t in ours.items())
    assert theirs.keys() - ours.keys() == {"conv1.weight"}


@pytest.mark.parametrize("name", [*DEEP, *BORROWED])
def test_other_networks_have_one_logit_a_class(name):
    model = build(name, classes=13)
    assert model.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())
    assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 13)


def test_a_network_of_torchvision_is_torchvisions():
    ours = build("mobilenet_v3_small").eval()
    theirs = torchvision.models.mobilenet_v3_small(num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(3, 3, 32, 32)
    assert torch.equal(ours(inputs), theirs(inputs))


def test_networks_with_a_second_output_are_built_without_it():
    model = pai.build_model("googlenet", make_data((3, 32, 32), 10))
    assert model.train()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_networks_of_torchvision_can_be_pruned():
    data = make_data((3, 32, 32), 4)
    model = pai.build_model("mobilenet_v3_small", data)
    mask = pai.prune(model, "snip", data.batch(per_class=1), sparsity=0.5)
    assert mask.kept == round(0.5 * mask.size)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_outputs_have_one_logit_a_class(name, classes):
    model = build(name, classes=classes)
    assert model(torch.randn(4, *SHAPES[name])).shape == (4, classes)


@pytest.mark.parametrize("name", SHAPES_OF_ALL)
def test_initial_weights_are_kaiming_normal(name):
    for layer in built(name).modules():
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
            assert (layer.running_var == 1).all()
            assert not layer.bias.any()
            assert not layer.running_mean.any()
            assert layer.num_batches_tracked == 0


@pytest.mark.parametrize(
    "layer",
    [nn.Conv1d(50, 60, 7), nn.Conv3d(10, 20, (2, 3, 4)), nn.Conv2d(64, 64, 3, groups=4)],
    ids=["Conv1d", "Conv3d", "grouped"],
)
def test_every_prunable_layer_starts_kaiming_normal(layer):
    torch.manual_seed(0)
    initialize(layer)
    std = layer.weight.double().std() / (2 / layer.weight[0].numel()) ** 0.5
    assert abs(std - 1) < 5 / (2 * layer.weight.numel()) ** 0.5
    assert not layer.bias.any()


def test_initialize_forgets_what_batchnorm_has_seen():
    layer = nn.BatchNorm2d(3)
    for tensor in layer.state_dict().values():
        tensor.fill_(7)
    initialize(layer)
    assert same_weights(weights(layer), weights(nn.BatchNorm2d(3)))


@pytest.mark.parametrize("name", [*SHAPES, "resnet18", "mobilenet_v3_small", "regnet_x_400mf"])
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


@pytest.mark.parametrize("name", [*SHAPES, "resnet32-x2", "vgg16"])
def test_every_layer_takes_part(name):
    data = make_data(SHAPES_OF_ALL[name], 10)
    scores = pai.snip(pai.build_model(name, data), data.batch(per_class=1))
    assert all(score.any() for score in scores.values())


@pytest.mark.parametrize(("name", "least"), [("vgg16", 32), ("vgg19", 32), ("resnet18", 9)])
def test_every_place_of_a_kernel_takes_part_in_the_smallest_image(name, least):
    data = make_data((3, least, least), 2)
    scores = pai.snip(pai.build_model(name, data), data.batch(per_class=4))
    assert all(s.sum((0, 1)).all() for s in scores.values() if s.dim() == 4)
    for shape in ((3, least - 1, least - 1), (3, least, least - 1)):
        with pytest.raises(ValueError, match=f"{name} needs .* {least} x {least} .* resnet20"):
            pai.build_model(name, make_data(shape, 2))


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


@pytest.mark.parametrize("wrong", ["vgg", "fcn_resnet50", "raft_small"])
def test_the_list_of_known_models_points_to_those_of_torchvision(wrong, digits):
    with pytest.raises(ValueError, match=r"list_models\(module=torchvision.models\) works too"):
        pai.build_model(wrong, digits)


def test_grey_images_are_refused_where_a_network_wants_colour(digits):
    with pytest.raises(ValueError, match=r"mobilenet_v3_small .* 3 channels; these have 1.*Repeat"):
        pai.build_model("mobilenet_v3_small", digits)
    with pytest.raises(ValueError, match=r"vgg16_bn .* 3 channels; these have 1"):
        pai.build_model("vgg16", make_data((1, 80, 80), 2))


@pytest.mark.parametrize("name", ["alexnet", "inception_v3"])
def test_images_that_a_network_cannot_take_are_refused_when_it_is_built(name):
    with pytest.raises(ValueError, match=rf"{name} .* \(3, 32, 32\) .* resnet20"):
        pai.build_model(name, make_data((3, 32, 32), 2))


def test_the_check_of_the_images_changes_nothing():
    model = build("small-conv")
    model[1].eval()
    with unchanged(model):
        check_images(model, "small-conv", (1, 8, 8))
        with pytest.raises(ValueError, match="small-conv"):
            check_images(model, "small-conv", (2, 8, 8))
