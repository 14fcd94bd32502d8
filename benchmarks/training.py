"""What training many networks costs, as ratios within one run: ``python -m benchmarks.training``.

One process for each of two cores against one process with two threads that trains one network
after another, by the clock, so that the machine must be quiet; and the batches of training against
torchvision's transforms of single images.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

import pai_lite as pai
from benchmarks.__main__ import show
from benchmarks.measure import ratio, times
from benchmarks.rows import Row
from pai_lite.ensemble import fit_each
from pai_lite.trainer import Trainer

CORES = 2


@dataclass(frozen=True)
class Setup:
    """A network to be trained many times.

    Attributes:
        network: a name in ``pai.MODELS``.
        data: the images, by name or as noise of the shape (n, C, H, W).
        recipe: of one training run, which must be longer than a process takes to be scheduled.
        count: networks a round.
        at_most: the target for time against time.
    """

    network: str
    data: str | tuple[int, int, int, int]
    recipe: pai.Recipe
    count: int
    at_most: float


SETUPS = (
    Setup("small-conv", "digits", pai.Recipe(epochs=12), 8, 1 / 2),
    Setup("resnet20", (512, 3, 32, 32), pai.Recipe(epochs=1), 6, 1 / 1.4),
    Setup("lenet-300-100", (6400, 1, 28, 28), pai.Recipe(epochs=6), 8, 1 / 1.3),
)


def training_rows(rounds: int) -> Iterator[Row]:
    """Measure and yield one row after another."""
    for setup in SETUPS:
        data = load(setup.data)
        models = [pai.build_model(setup.network, data, seed=i) for i in range(setup.count)]
        found = [compare(models, data, setup.recipe) for _ in range(rounds)]
        name = f"{setup.network}, batch {setup.recipe.batch_size}"
        what = "fit_many on two cores over fit with two threads"
        yield Row(what, name, statistics.median(found), "x", setup.at_most)
    yield loader_row(rounds)


def compare(models: list[nn.Module], data: pai.Data, recipe: pai.Recipe) -> float:
    """Return the seconds a network takes in two processes over those it takes in one."""
    together = seconds_together(models, data, recipe)
    torch.set_num_threads(CORES)
    try:
        return together / seconds_alone(models[: CORES + 1], data, recipe)
    finally:
        torch.set_num_threads(1)


def seconds_together(models: list[nn.Module], data: pai.Data, recipe: pai.Recipe) -> float:
    """Return the seconds a network takes when the processes are at work.

    Their start, which a grid pays once, and the first network of each are left out.
    """
    done = [time.perf_counter() for _ in fit_each(models, data, recipe, workers=CORES)]
    return (done[-1] - done[CORES - 1]) / (len(done) - CORES)


class Contiguous(nn.Module):
    """A network that takes a view of its images, and so never gets them with channels last."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs."""
        x.view(len(x), -1)
        return self.network(x)


def seconds_alone(models: list[nn.Module], data: pai.Data, recipe: pai.Recipe) -> float:
    """Return the seconds a network takes in this process, without the first network.

    The channels of its images do not lie last, as they do not in plain code.
    """
    done = []
    for model in models:
        pai.fit(Contiguous(model), data, recipe, progress=False)
        done.append(time.perf_counter())
    return (done[-1] - done[0]) / (len(done) - 1)


def load(data: str | tuple[int, int, int, int]) -> pai.Data:
    """Return the data of that name, or noise with ten classes in the place of the images."""
    if isinstance(data, str):
        return pai.load_data(data)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, data, generator=generator, dtype=torch.uint8)
    train = pai.Split(images, torch.arange(len(images)) % 10)
    few = pai.Split(images[:10], train.labels[:10])
    half = torch.full((data[1],), 0.5)
    return pai.Data("noise", 10, train, few, few, half, half / 2)


def loader_row(rounds: int) -> Row:
    """Compare an epoch of augmented batches with torchvision's transforms of PIL images."""
    data = load((1280, 3, 32, 32))
    model = pai.build_model("lenet-300-100", data)
    trainer = Trainer(model, data, replace(pai.Recipe(), augment=True))
    pictures = [to_pil_image(image) for image in data.train.images]
    calls = {
        "ours": lambda: list(trainer.minibatches()),
        "torchvision": lambda: pil_batches(pictures, data),
    }
    found = times(calls, rounds, "cpu")
    measured = ratio(found["ours"], found["torchvision"])
    return Row("training batches over torchvision's", "batch 128", measured, "x", 1 / 5)


def pil_batches(pictures: list[object], data: pai.Data) -> list[Tensor]:
    """Return augmented batches made one image at a time, as public code does."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.mean.tolist(), data.std.tolist()),
        ]
    )
    order = torch.randperm(len(pictures)).tolist()
    return list(torch.stack([transform(pictures[i]) for i in order]).split(128))


if __name__ == "__main__":
    torch.set_num_threads(1)
    show(training_rows(rounds=3))
