"""Recipes: how a network is trained, as plain settings, and what they mean in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

SCHEDULES = ("constant", "cosine", "step", "one-cycle")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: stochastic gradient descent and its settings.

    Attributes:
        epochs: passes over the training split.
        batch_size: images a step; the last batch of an epoch may be smaller.
        lr: learning rate of the first step, and with "one-cycle" the highest.
        momentum: of the gradient average, in [0, 1).
        nesterov: look one step ahead with the momentum.
        weight_decay: coefficient of the weights added to the gradient.
        schedule: "constant"; "cosine", to 0 at the last step; "step", times gamma at each
            milestone; or "one-cycle", from lr / 25 up to lr over the first 0.3 of the training and
            down to lr / 250,000, along cosines, with the momentum as it is.
        milestones: fractions of the training at which "step" lowers the rate.
        gamma: factor of "step".
        augment: shift by up to four pixels and flip left to right, at random.
    """

    epochs: int = 20
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    augment: bool = False

    def __post_init__(self) -> None:
        """Check the settings that would otherwise fail late or train nothing.

        Raises:
            ValueError: epochs, batch size or learning rate are not positive, momentum or weight
                decay are out of range, or the schedule is unknown.
        """
        for name in ("epochs", "batch_size", "lr"):
            if not getattr(self, name) > 0:  # also where it is NaN
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive.")
        if not 0.0 <= self.momentum < 1.0:
            raise ValueError(f"momentum is {self.momentum}; it must be in [0, 1).")
        if not self.weight_decay >= 0.0:
            raise ValueError(f"weight_decay is {self.weight_decay}; it must be 0 or positive.")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; it must be one of {SCHEDULES}.")


def build_optimizer(model: nn.Module, recipe: Recipe, *, fused: bool = False) -> Optimizer:
    """Return stochastic gradient descent over all parameters with the recipe's settings.

    Args:
        fused: update all weights in one kernel, which rounds differently.
    """
    optimizer = SGD(
        model.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )
    if recipe.momentum:
        # The average starts at zero, so that the first step is like every other. PyTorch starts
        # it with the first gradient, which is the same, but not where that step is left out.
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def build_scheduler(optimizer: Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """Return the schedule of the learning rate, to be advanced after every step."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    if recipe.schedule == "step":
        milestones = [round(fraction * steps) for fraction in recipe.milestones]
        return MultiStepLR(optimizer, milestones, gamma=recipe.gamma)
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=steps, cycle_momentum=False)
    return LambdaLR(optimizer, lambda _: 1.0)


def draw_crops(count: int, generator: torch.Generator) -> Tensor:
    """Draw for each image how far it is shifted down and to the right, and whether it is flipped.

    Returns:
        int64 (3, count): rows and columns from 0 to 8, of which 4 is no shift, and 0 or 1.
    """
    shifts = torch.randint(0, 9, (2, count), generator=generator)
    flips = torch.rand(1, count, generator=generator) < 0.5
    return torch.cat([shifts, flips.long()])


def crop(images: Tensor, drawn: Tensor) -> Tensor:
    """Shift each image by up to four pixels, filling with zeros, and flip it left to right.

    Args:
        images: shape (n, channels, height, width), any dtype.
        drawn: of :func:`draw_crops`, on the images' device.
    """
    n, channels, height, width = images.shape
    rows = drawn[0, :, None] + torch.arange(height, device=images.device)
    columns = drawn[1, :, None] + torch.arange(width, device=images.device)
    columns = torch.where(drawn[2, :, None] == 1, columns.flip(1), columns)
    # One gather over the flat pixels of an image takes a quarter of the time of two indices.
    pixels = rows[:, :, None] * (width + 8) + columns[:, None, :]
    padded = F.pad(images, (4, 4, 4, 4)).flatten(2)
    return padded.gather(2, pixels.view(n, 1, -1).expand(-1, channels, -1)).view_as(images)


GPU_ADVICE = (
    "On Colab, Runtime > Change runtime type > T4 GPU gives you one, and they use larger data."
)


@dataclass(frozen=True)
class Setting:
    """What the training cells of the book run on this machine.

    Attributes:
        device: "cuda" or "cpu".
        data: name for :func:`pai_lite.load_data`.
        model: name for :func:`pai_lite.build_model`.
        recipe: for :func:`pai_lite.fit`.
        seeds: one run for each.
        sparsities: of the accuracy curves.
    """

    device: str
    data: str
    model: str
    recipe: Recipe
    seeds: tuple[int, ...]
    sparsities: tuple[float, ...]

    def __str__(self) -> str:
        """Say what the training cells run, and how to get the other setting."""
        text = f"The training cells use {self.data} and {self.model} on the {self.device.upper()}."
        if self.device == "cuda":
            return f"{text}\nOn Colab, Runtime > Change runtime type > CPU gives you small data."
        return f"{text}\nA GPU is not needed. {GPU_ADVICE}"


def setting() -> Setting:
    """Return CIFAR-10 and ResNet-20 where there is a GPU, else the digits and a small network.

    The small setting lets a chapter finish in about a minute on two CPU cores.
    The large one is cut to fit a chapter into ten minutes on a Colab GPU: one seed, two
    sparsities and a short recipe.
    """
    if torch.cuda.is_available():
        recipe = Recipe(epochs=4, batch_size=256, lr=0.2, augment=True)
        return Setting("cuda", "cifar10", "resnet20", recipe, (0,), (0.9, 0.98))
    recipe = Recipe(epochs=12)
    return Setting("cpu", "digits", "small-conv", recipe, (0, 1, 2), (0.8, 0.9, 0.95, 0.98))
