"""Networks, data and helpers that several test files use."""

import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pai_lite as pai

pytest_plugins = ["browsing"]

torch.set_num_threads(1)  # small networks: more threads only wait for each other

CLASSES = 3
INPUT_SHAPE = (2, 4, 4)


class ResidualNet(nn.Module):
    """A residual block with a projection shortcut; smooth, so that differences converge."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.shortcut = nn.Conv2d(3, 4, 1, stride=2, bias=False)
        self.fc = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.bn2(self.conv2(torch.tanh(self.bn1(self.conv1(x)))))
        return self.fc(nn.functional.softplus(y + self.shortcut(x)).mean((2, 3)))


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Tanh(), nn.Linear(5, CLASSES))


def make_conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Softplus(),
        nn.Conv2d(4, 3, 3, bias=False),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": make_mlp,
    "conv": make_conv,
    "residual": ResidualNet,
}


def make_network(kind: str, seed: int = 0) -> nn.Module:
    """Build a network in float64 whose biases and BatchNorm state are not the defaults."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NETWORKS[kind]().double()
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 1:
                tensor.data.add_(0.3 * torch.rand_like(tensor))
    return model


def make_batch(seed: int = 0, size: int = 8, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, *INPUT_SHAPE, generator=generator, dtype=dtype)
    return inputs, torch.arange(size) % CLASSES


def make_data(
    shape: tuple[int, int, int], classes: int, sizes: tuple[int, int, int] = (20, 10, 10)
) -> pai.Data:
    """Make a data set of noise with as many training, validation and test images as asked."""
    generator = torch.Generator().manual_seed(0)
    splits = [
        pai.Split(
            images=torch.randint(0, 256, (size, *shape), generator=generator, dtype=torch.uint8),
            labels=torch.arange(size) % classes,
        )
        for size in sizes
    ]
    pixels = splits[0].images.float() / 255
    return pai.Data(
        name="noise",
        classes=classes,
        train=splits[0],
        validation=splits[1],
        test=splits[2],
        mean=pixels.mean((0, 2, 3)),
        std=pixels.std((0, 2, 3)),
    )


def rng_state() -> list[object]:
    numpy_state = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), *map(str, numpy_state)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of everything that a model has learnt."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same_weights(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Say whether two states are equal bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Fail unless the model and the global generators leave the block as they entered it."""
    parameters = dict(model.named_parameters())
    before = weights(model)
    grads = {name: p.grad for name, p in parameters.items()}
    grad_values = {name: None if g is None else g.clone() for name, g in grads.items()}
    flags = {name: p.requires_grad for name, p in parameters.items()}
    modes = {name: module.training for name, module in model.named_modules()}
    generators, grad_mode = rng_state(), torch.is_grad_enabled()
    yield
    assert same_weights(before, weights(model)), "weights or buffers changed"
    for name, parameter in model.named_parameters():
        assert parameter is parameters[name], f"{name} is another parameter"
        assert parameter.grad is grads[name], f"the gradient of {name} is another tensor"
        if grad_values[name] is not None:
            assert torch.equal(parameter.grad, grad_values[name]), f"gradient of {name} changed"
        assert parameter.requires_grad == flags[name], f"requires_grad of {name} changed"
    for name, module in model.named_modules():
        assert module.training == modes[name], f"{name} changed between train and eval"
    assert rng_state() == generators, "a global random number generator moved"
    assert torch.is_grad_enabled() == grad_mode


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let every write beyond so many bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> nn.Module:
    """Each of the three small float64 networks in turn."""
    return make_network(request.param)


@pytest.fixture(scope="session")
def digits() -> pai.Data:
    return pai.load_data("digits")
