"""Networks of the papers, and a small one for 8x8 digits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_lite.data import Data
from pai_lite.lookup import look_up


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias that keeps the size, or halves it at stride 2."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def lenet_300_100(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the fully connected network of LeCun et al. (1998), with ReLU."""
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    layers = [nn.Linear(pixels, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(100, classes))


def small_conv(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
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


def resnet20(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the 20-layer residual network for small images (He et al. 2016, section 4.2).

    Widths 16, 32 and 64 with three blocks each; 270,896 prunable weights on CIFAR-10.
    """
    layers: list[nn.Module] = [conv3x3(input_shape[0], 16), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for outputs, first_stride in ((16, 1), (32, 2), (64, 2)):
        for stride in (first_stride, 1, 1):
            layers.append(BasicBlock(width, outputs, stride))
            width = outputs
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*layers, *head)


Builder = Callable[[tuple[int, int, int], int], nn.Module]

#: Functions ``(input_shape, classes) -> nn.Module`` by the name of the network.
MODELS: dict[str, Builder] = {
    "lenet-300-100": lenet_300_100,
    "small-conv": small_conv,
    "resnet20": resnet20,
}


def build_model(name: str, data: Data, *, seed: int = 0) -> nn.Module:
    """Return a freshly initialised network for the data, on the data's device.

    Weights are Kaiming normal, w ~ N(0, 2 / fan-in); biases are 0; BatchNorm starts at scale 1
    and shift 0. The same seed gives the same weights on every device.

    Args:
        name: a name in :data:`~pai_lite.models.MODELS`.
        seed: of the initial weights; the global generator is not touched.

    Raises:
        ValueError: the name is unknown.
    """
    builder = look_up(MODELS, name, "model")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = builder(data.input_shape, data.classes)
        model.apply(initialize)
    return model.to(data.device)


def initialize(module: nn.Module) -> None:
    """Draw the weights of one layer from Kaiming's normal distribution, in place."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
