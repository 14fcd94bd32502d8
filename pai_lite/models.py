"""Networks of the papers, a small one for 8x8 digits, and those of torchvision.

Four names follow the papers in depending on the images. Up to 64 pixels a side (CIFAR and
Tiny-ImageNet), resnet18 and resnet50 have a stem for small images, and vgg16 and vgg19 a single
linear layer; larger images get the networks of ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pai_lite.data import Data
from pai_lite.lookup import look_up
from pai_lite.masks import PRUNABLE_LAYERS, preserved_modes

Shape = tuple[int, int, int]
Builder = Callable[[Shape, int], nn.Module]

SMALL_IMAGE = 64  # pixels a side, Tiny-ImageNet's


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the size, or halves it at stride 2."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def lenet_300_100(input_shape: Shape, classes: int) -> nn.Module:
    """Return the fully connected network of LeCun et al. (1998), with ReLU."""
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    layers = [nn.Linear(pixels, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(100, classes))


def small_conv(input_shape: Shape, classes: int) -> nn.Module:
    """Return three convolutions with BatchNorm and a linear layer, for images of 8x8 pixels."""
    widths = [input_shape[0], 16, 32, 32]
    layers: list[nn.Module] = []
    for inputs, outputs, stride in zip(widths, widths[1:], (1, 2, 1), strict=False):
        layers += [conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], classes)]
    return nn.Sequential(*layers, *head)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016, figure 2).

    Where the shape changes the shortcut is a 1x1 convolution with BatchNorm (their option B),
    as in the networks that Frankle et al. 2021 prune; its weights are prunable too.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def cifar_resnet(blocks: int, widths: Sequence[int], input_shape: Shape, classes: int) -> nn.Module:
    """Return a residual network for small images with 6 * blocks + 2 layers.

    Three stages of as many blocks each; the second and the third halve the image.

    Source: He et al. 2016, section 4.2.
    """
    width = widths[0]
    layers: list[nn.Module] = [conv3x3(input_shape[0], width), nn.BatchNorm2d(width), nn.ReLU()]
    for outputs, first_stride in zip(widths, (1, 2, 2), strict=True):
        for stride in (first_stride, *[1] * (blocks - 1)):
            layers.append(BasicBlock(width, outputs, stride))
            width = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*layers, *head)


def vgg(convolutions: Sequence[int], input_shape: Shape, classes: int) -> nn.Module:
    """Return a VGG network with BatchNorm: five stages of 3x3 convolutions.

    For small images, as in GraSP and FORCE: convolutions without bias, max-pooling between the
    stages, the mean over the pixels that are left, and one linear layer. Larger images get
    torchvision's network, which has three linear layers.

    Source: Wang et al. 2020, section 5; de Jorge et al. 2021, appendix A; Frankle et al. 2021,
    appendix A.1.

    Args:
        convolutions: how many each stage has.

    Raises:
        ValueError: the images are smaller than 32 pixels, or larger than 64 and not in colour.
    """
    name = f"vgg{sum(convolutions) + 3}"
    if not is_small(input_shape):
        return torchvision_network(f"{name}_bn", input_shape, classes)
    check_pixels(name, input_shape, least=32)
    width, layers = input_shape[0], []
    for outputs, count in zip((64, 128, 256, 512, 512), convolutions, strict=True):
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(count):
            layers += [conv3x3(width, outputs), nn.BatchNorm2d(outputs), nn.ReLU()]
            width = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*layers, *head)


def torchvision_network(name: str, input_shape: Shape, classes: int) -> nn.Module:
    """Return a classification network of torchvision, without trained weights.

    A ResNet has a small stem where no side of the images is above 64 pixels: its first
    convolution is 3x3 at stride 1, and no max-pooling follows.

    Source: of the stem, de Jorge et al. 2021, appendix A; Frankle et al. 2021, appendix A.1
    (their modified ResNet-18; their other one keeps torchvision's stem on Tiny-ImageNet).

    Raises:
        ValueError: a ResNet gets images below 9 pixels, or another network images that are not
            in colour.
    """
    from torchvision import models  # slow to import

    # A second output, for a second loss, is nothing that a criterion could use.
    single = {"aux_logits": False, "init_weights": False}
    options = single if name in ("googlenet", "inception_v3") else {}
    network = models.get_model(name, weights=None, num_classes=classes, **options)
    if isinstance(network, models.ResNet) and is_small(input_shape):
        check_pixels(name, input_shape, least=9)
        network.conv1, network.maxpool = conv3x3(input_shape[0], 64), nn.Identity()
    elif input_shape[0] != 3:
        raise ValueError(
            f"{name} takes images of 3 channels; these have {input_shape[0]}. Repeat the grey "
            "channel three times in an .npz file, or choose a network that adapts: "
            "lenet-300-100, small-conv or resnet20."
        )
    return network


def is_small(input_shape: Shape) -> bool:
    """Say whether no side of the images is longer than Tiny-ImageNet's."""
    return max(input_shape[1:]) <= SMALL_IMAGE


def check_pixels(name: str, input_shape: Shape, least: int) -> None:
    """Raise a ``ValueError`` where the last 3x3 convolutions would see an image of one pixel."""
    if min(input_shape[1:]) < least:
        height, width = input_shape[1:]
        raise ValueError(
            f"{name} needs images of at least {least} x {least} pixels; these have "
            f"{height} x {width}, of which one pixel or one row would reach its last "
            "convolutions, most of whose weights would then only meet padding. "
            "Enlarge the images, or choose small-conv or resnet20."
        )


#: Functions ``(input_shape, classes) -> nn.Module`` by the name of the network.
MODELS: dict[str, Builder] = {
    "lenet-300-100": lenet_300_100,
    "small-conv": small_conv,
    "resnet20": partial(cifar_resnet, 3, (16, 32, 64)),
    "resnet56": partial(cifar_resnet, 9, (16, 32, 64)),
    "resnet110": partial(cifar_resnet, 18, (16, 32, 64)),
    "resnet32-x2": partial(cifar_resnet, 5, (32, 64, 128)),  # Wang et al. 2020, footnote 1
    "vgg16": partial(vgg, (2, 2, 3, 3, 3)),
    "vgg19": partial(vgg, (2, 2, 4, 4, 4)),
    "resnet18": partial(torchvision_network, "resnet18"),
    "resnet50": partial(torchvision_network, "resnet50"),
}


def build_model(name: str, data: Data, *, seed: int = 0) -> nn.Module:
    """Return a freshly initialized network for the data, on the data's device.

    Weights are Kaiming normal, w ~ N(0, 2 / fan-in); biases are 0; BatchNorm starts at scale 1
    and shift 0. What a network of torchvision holds besides, such as the class token of a
    transformer, starts as torchvision draws it. The same seed gives the same weights on every
    device.

    Args:
        name: a name in :data:`~pai_lite.models.MODELS`, or that of any other classification
            network of torchvision, for example "mobilenet_v3_small".
        seed: of the initial weights; the global generator is not touched.

    Raises:
        ValueError: the name is unknown, or the network cannot take the data's images.
    """
    builder = find_builder(name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = builder(data.input_shape, data.classes)
        model.apply(initialize)
    check_images(model, name, data.input_shape)
    return model.to(data.device)


def find_builder(name: str) -> Builder:
    """Return the function that builds the network of that name.

    Raises:
        ValueError: the name is neither in :data:`~pai_lite.models.MODELS` nor torchvision's.
    """
    if name in MODELS:
        return MODELS[name]
    from torchvision import models  # slow to import

    if name in models.list_models(module=models):
        return partial(torchvision_network, name)
    try:
        return look_up(MODELS, name, "model")
    except ValueError as error:
        others = "torchvision.models.list_models(module=torchvision.models)"
        raise ValueError(f"{error} Any name in {others} works too.") from None


def check_images(model: nn.Module, name: str, input_shape: Shape) -> None:
    """Raise a ``ValueError`` where the model fails on an image of that shape; compute nothing."""
    state = {n: t.to("meta") for n, t in model.state_dict().items()}
    with preserved_modes(model), torch.device("meta"):
        try:
            functional_call(model.eval(), state, (torch.empty(1, *input_shape),))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{name} cannot take images of shape {input_shape} as (C, H, W): {error} "
                "Resize the images, or choose a network for small ones, for example resnet20."
            ) from error


def initialize(module: nn.Module) -> None:
    """Draw the weights of one layer from Kaiming's normal distribution, in place.

    A layer that is not prunable goes back to PyTorch's initial values: BatchNorm to scale 1,
    shift 0 and fresh statistics.
    """
    if isinstance(module, PRUNABLE_LAYERS):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif hasattr(module, "reset_parameters"):
        module.reset_parameters()
