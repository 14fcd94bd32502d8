"""Effective masks and path norms against an explicit graph of single units."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch, make_network, unchanged
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.paths import effective_mask, path_norm

Place = tuple[str, tuple[int, ...]]


class Graph:
    """One node a unit and position, one edge a use of a weight; edges run from low to high."""

    def __init__(self, *shape: int) -> None:
        self.edges: list[tuple[int, int, Place | None, float]] = []
        self.inputs = np.arange(int(np.prod(shape))).reshape(shape)
        self.size = self.inputs.size

    def new(self, *shape: int) -> np.ndarray:
        nodes = self.size + np.arange(int(np.prod(shape))).reshape(shape)
        self.size += nodes.size
        return nodes

    def edge(self, source: int, target: int, place: Place | None = None, factor: float = 1.0):
        self.edges.append((int(source), int(target), place, factor))

    def linear(self, x: np.ndarray, name: str, outputs: int) -> np.ndarray:
        out = self.new(outputs)
        for (j, source), (i, target) in product(enumerate(x.flatten()), enumerate(out)):
            self.edge(source, target, (name, (i, j)))
        return out

    def window(self, x: np.ndarray, kernel: int, stride: int, padding: int):
        """Yield output row and column, kernel row and column, input row and column."""
        height, width = ((n + 2 * padding - kernel) // stride + 1 for n in x.shape[1:])
        for r, c, a, b in product(range(height), range(width), range(kernel), range(kernel)):
            y, z = r * stride + a - padding, c * stride + b - padding
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
                yield r, c, a, b, y, z

    def conv(self, x, name, outputs, kernel, stride=1, padding=0, groups=1) -> np.ndarray:
        uses = list(self.window(x, kernel, stride, padding))
        out = self.new(outputs, 1 + max(u[0] for u in uses), 1 + max(u[1] for u in uses))
        each = len(x) // groups
        for o, i, (r, c, a, b, y, z) in product(range(outputs), range(each), uses):
            source = x[o // (outputs // groups) * each + i, y, z]
            self.edge(source, out[o, r, c], (name, (o, i, a, b)))
        return out

    def pool(self, x, kernel, stride, padding=0) -> np.ndarray:
        uses = list(self.window(x, kernel, stride, padding))
        out = self.new(len(x), 1 + max(u[0] for u in uses), 1 + max(u[1] for u in uses))
        for channel, (r, c, _, _, y, z) in product(range(len(x)), uses):
            self.edge(x[channel, y, z], out[channel, r, c], factor=1 / kernel**2)
        return out

    def average(self, x: np.ndarray) -> np.ndarray:
        out = self.new(len(x))
        for nodes, target in zip(x, out, strict=True):
            for source in nodes.flatten():
                self.edge(source, target, factor=1 / nodes.size)
        return out

    def join(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return units that both x and y lead to, as in x + y; y may be one value a channel."""
        out = self.new(*x.shape)
        y = np.broadcast_to(y.reshape(y.shape + (1,) * (x.ndim - y.ndim)), x.shape)
        for source in (x, y):
            for a, b in zip(source.flatten(), out.flatten(), strict=True):
                self.edge(a, b)
        return out

    def effective(self, mask: pai.Mask, outputs: np.ndarray) -> pai.Mask:
        """Keep the weights with an edge whose start is reached and whose end leads on."""
        alive = [e for e in self.edges if e[2] is None or mask[e[2][0]][e[2][1]]]
        reached, leading = set(self.inputs.flatten()), set(outputs.flatten())
        for source, target, _, _ in sorted(alive, key=lambda e: e[1]):
            if source in reached:
                reached.add(target)
        for source, target, _, _ in sorted(alive, key=lambda e: -e[0]):
            if target in leading:
                leading.add(source)
        found = {name: torch.zeros_like(tensor) for name, tensor in mask.items()}
        for source, target, place, _ in alive:
            if place and source in reached and target in leading:
                found[place[0]][place[1]] = True
        return pai.Mask(found)

    def path_norm(self, weights: dict[str, Tensor], outputs: np.ndarray) -> float:
        """Walk every path and add up the products of absolute weights."""
        after: dict[int, list[tuple[int, float]]] = {}
        for source, target, place, factor in self.edges:
            w = abs(float(weights[place[0]][place[1]])) if place else 1.0
            if w:
                after.setdefault(source, []).append((target, w * factor))
        ends = set(outputs.flatten())

        def walk(node: int, weight: float) -> float:
            onward = sum(walk(target, weight * w) for target, w in after.get(node, ()))
            return onward + (weight if node in ends else 0.0)

        return sum(walk(node, 1.0) for node in self.inputs.flatten())


class Mixed(nn.Module):
    """Max-pooling with padding, an identity shortcut, a concatenation and grouped kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.conv3 = nn.Conv2d(8, 2, 2, stride=2)
        self.fc = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv1(x)), inplace=True), 2)
        x = x + F.softplus(self.conv2(x))
        x = torch.cat([x, self.pool(F.pad(x, (2, 2, 2, 2)))[:, :, :2, :2]], 1)
        return F.log_softmax(self.fc(torch.sigmoid(self.conv3(x)).flatten(1)), 1)


class Gated(nn.Module):
    """Squeeze and excitation: channels times a gate computed from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 2, stride=2)
        self.down, self.up = nn.Linear(4, 2), nn.Linear(2, 4)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = 0.5 * F.silu(self.conv(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(F.adaptive_max_pool2d(x, 1).flatten(1)))))
        return self.fc((x * gate[:, :, None, None]).flatten(1))


def mlp_graph() -> tuple[Graph, np.ndarray]:
    g = Graph(2, 4, 4)
    return g, g.linear(g.linear(g.inputs, "1.weight", 5), "3.weight", 3)


def conv_graph() -> tuple[Graph, np.ndarray]:
    g = Graph(2, 4, 4)
    x = g.conv(g.conv(g.inputs, "0.weight", 4, 3, padding=1), "3.weight", 3, 3)
    return g, g.linear(x, "7.weight", 3)


def residual_graph() -> tuple[Graph, np.ndarray]:
    g = Graph(2, 4, 4)
    x = g.conv(g.inputs, "stem.weight", 3, 3, padding=1)
    y = g.conv(x, "conv1.weight", 4, 3, stride=2, padding=1)
    y = g.conv(y, "conv2.weight", 4, 3, padding=1)
    x = g.join(y, g.conv(x, "shortcut.weight", 4, 1, stride=2))
    return g, g.linear(g.average(x), "fc.weight", 3)


def mixed_graph() -> tuple[Graph, np.ndarray]:
    g = Graph(1, 4, 4)
    x = g.pool(g.conv(g.inputs, "conv1.weight", 4, 3, padding=1), 2, 2)
    x = g.join(x, g.conv(x, "conv2.weight", 4, 3, padding=1, groups=2))
    padded = g.new(4, 6, 6)  # the border has no edge coming in
    for a, b in zip(x.flatten(), padded[:, 2:4, 2:4].flatten(), strict=True):
        g.edge(a, b)
    pooled = g.pool(padded, 3, 2, padding=1)
    padded_x = np.concatenate([x, pooled[:, :2, :2]])
    return g, g.linear(g.conv(padded_x, "conv3.weight", 2, 2, stride=2), "fc.weight", 3)


def gated_graph() -> tuple[Graph, np.ndarray]:
    g = Graph(1, 4, 4)
    x = g.conv(g.inputs, "conv.weight", 4, 2, stride=2)
    gate = g.linear(g.linear(g.average(x), "down.weight", 2), "up.weight", 4)
    return g, g.linear(g.join(x, gate), "fc.weight", 2)


SMALL = torch.zeros(2, 1, 4, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
CASES: dict[str, tuple[Callable, Callable, tuple[Tensor, Tensor]]] = {
    "mlp": (lambda: make_network("mlp"), mlp_graph, make_batch()),
    "conv": (lambda: make_network("conv"), conv_graph, make_batch()),
    "residual": (lambda: make_network("residual"), residual_graph, make_batch()),
    "mixed": (lambda: Mixed().double(), mixed_graph, SMALL),
    "gated": (lambda: Gated().double(), gated_graph, SMALL),
}


def random_mask(model: nn.Module, density: float, seed: int) -> pai.Mask:
    generator = torch.Generator().manual_seed(seed)
    weights = pai.prunable_parameters(model).items()
    return pai.Mask({n: torch.rand(w.shape, generator=generator) < density for n, w in weights})


@pytest.mark.parametrize("kind", CASES)
def test_effective_weights_are_those_on_a_path_of_the_explicit_graph(kind):
    build, draw, batch = CASES[kind]
    model, (graph, outputs) = build(), draw()
    changed = left = 0
    for seed, density in product(range(8), (0.05, 0.15, 0.3, 0.6, 1.0)):
        mask = random_mask(model, density, seed)
        expected = graph.effective(mask, outputs)
        assert effective_mask(model, batch, mask) == expected, f"density {density}, seed {seed}"
        changed += mask.kept - expected.kept
        left += expected.kept
    assert changed > 50
    assert left > 50


def test_on_a_resnet_the_effective_weights_are_those_of_the_papers_procedure():
    """Frankle et al. appendix M: where the gradient of the summed logits is not zero."""
    model = pai.MODELS["resnet20"]((3, 8, 8), 10)
    batch = torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)
    plain = nn.Sequential(*copy.deepcopy(model).double())
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            plain.set_submodule(name, nn.Identity())
    mask = random_mask(model, 0.03, 0)
    for name, parameter in plain.named_parameters():
        parameter.data = mask[name].double() if name in mask else torch.zeros_like(parameter)
    plain(torch.ones(1, 3, 8, 8).double()).sum().backward()
    expected = {n: p.grad != 0 for n, p in pai.prunable_parameters(plain).items()}
    effective = effective_mask(model, batch, mask)
    assert effective == pai.Mask({name: mask[name] & g for name, g in expected.items()})
    assert 0 < effective.kept < mask.kept


class Cut(nn.Module):
    """A shortcut that nothing passes."""

    def forward(self, _: Tensor) -> float:
        return 0.0


@pytest.mark.parametrize("emptied", ["3.conv1.weight", "6.conv2.weight"])
def test_claim_force_skip(emptied):
    """An empty convolution ends every path, unless a shortcut leads past it (force 5.3)."""
    model = pai.MODELS["resnet20"]((3, 8, 8), 10)
    batch = torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)
    without = copy.deepcopy(model)
    for module in without.modules():
        if hasattr(module, "shortcut"):
            module.shortcut = Cut()
    for net, is_left in ((model, True), (without, False)):
        mask = pai.Mask.dense(net)
        assert effective_mask(net, batch, mask).kept > 0.9 * mask.kept
        mask[emptied][:] = False
        assert (effective_mask(net, batch, mask).kept > 0) is is_left


def chain(depth: int, width: int) -> nn.Module:
    layers = [module for _ in range(depth) for module in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def test_no_depth_makes_paths_overflow_or_vanish():
    """64 ** 300 paths: their number exceeds float64, so the naive procedure gives NaN."""
    model = chain(300, 64)
    batch = torch.zeros(1, 64), torch.zeros(1, dtype=torch.int64)
    mask = pai.Mask.dense(model)
    for layer in (100, 500):  # zero meets what overflows on the way back, and on the way there
        mask[f"{layer}.weight"][5] = False
    effective = effective_mask(model, batch, mask)
    assert effective.kept == mask.kept - 2 * 64
    assert not effective["102.weight"][:, 5].any()
    assert not effective["502.weight"][:, 5].any()


class Function(nn.Module):
    """Any function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


ACTIVATIONS = [
    nn.Tanh, nn.Sigmoid, nn.Softplus, nn.LogSigmoid, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU,
    nn.CELU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ReLU6, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish,
    nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Dropout, nn.AlphaDropout,
]  # fmt: skip
OTHERS = [
    lambda: nn.Softmax(1), lambda: nn.LogSoftmax(1), lambda: nn.Threshold(2.0, 3.0),
    lambda: nn.LayerNorm(6), lambda: nn.GroupNorm(2, 6), lambda: nn.BatchNorm1d(6, affine=False),
    lambda: nn.ReLU(inplace=True), lambda: nn.ELU(inplace=True), lambda: nn.ReLU6(inplace=True),
    lambda: Function(torch.tanh), lambda: Function(Tensor.sigmoid_), lambda: Function(F.relu_),
    lambda: Function(lambda x: x.clamp(0, 6)), lambda: Function(F.dropout),
]  # fmt: skip


@pytest.mark.parametrize("layer", [*ACTIVATIONS, *OTHERS])
def test_activations_and_normalisation_end_no_path_and_start_none(layer):
    plain = nn.Sequential(nn.Linear(6, 6), nn.Identity(), nn.Linear(6, 6), nn.Linear(6, 2))
    model = nn.Sequential(plain[0], layer(), *plain[2:])
    batch = torch.zeros(1, 6), torch.zeros(1, dtype=torch.int64)
    for seed in range(5):
        mask = random_mask(plain, 0.25, seed)
        with unchanged(model):
            effective = effective_mask(model, batch, mask)
        assert effective == effective_mask(plain, batch, mask)
    assert 0 < effective.kept < mask.kept


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_pooling_by_maxima_has_the_paths_of_pooling_by_averages(dims, adaptive):
    """At the border of the image different places are reached by different weights."""
    batch = torch.zeros(1, 1, *[3] * dims), torch.zeros(1, dtype=torch.int64)
    conv = getattr(nn, f"Conv{dims}d")(1, 2, 3, padding=1)

    def network(kind: str) -> nn.Module:
        pool = getattr(nn, f"{kind}Pool{dims}d")(2, stride=2, ceil_mode=True)
        if adaptive:
            pool = getattr(nn, f"Adaptive{kind}Pool{dims}d")(2)
        return nn.Sequential(conv, pool, nn.Flatten(), nn.Linear(2 * 2**dims, 2))

    total = 0
    for seed in range(20):
        mask = random_mask(network("Max"), 0.3, seed)
        effective = effective_mask(network("Max"), batch, mask)
        assert effective == effective_mask(network("Avg"), batch, mask)
        total += effective.kept
    assert total > 0


def test_a_kernel_weight_that_only_meets_padding_is_on_no_path():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten(), nn.Linear(1, 2))
    batch = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.int64)
    effective = effective_mask(model, batch, pai.Mask.dense(model))
    assert effective["0.weight"].nonzero().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: x @ x.T, "matmul"),
        (lambda x: torch.maximum(x, x), "maximum"),
        (lambda x: x.max(1, keepdim=True).values, "max"),
        (lambda x: torch.amax(x, 1, keepdim=True), "amax"),
        (lambda x: F.max_pool1d(x[None], 2, dilation=2), "dilation 2"),
        (lambda x: F.max_pool1d(x[None], 2, return_indices=True)[0], "return_indices True"),
    ],
)
def test_an_operation_whose_paths_are_not_followed_is_refused(function, named):
    model = nn.Sequential(nn.Linear(4, 4), Function(function))
    batch = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match=named), unchanged(model):
        effective_mask(model, batch, pai.Mask.dense(model))


def test_a_scale_that_is_a_parameter_starts_no_path():
    scale = nn.Parameter(torch.full((4,), 1e-6))
    model = nn.Sequential(nn.Linear(4, 4), Function(lambda x: x * scale), nn.Linear(4, 2))
    batch = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    mask = pai.Mask.dense(model)
    mask["0.weight"][1] = False
    effective = effective_mask(model, batch, mask)
    assert not effective["2.weight"][:, 1].any()
    assert effective.kept == mask.kept - 2


def test_paths_are_those_of_eval_mode():
    class Skips(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x if self.training else super().forward(x)

    model = nn.Sequential(Skips(4, 4), nn.Linear(4, 2)).train()
    batch = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
    assert effective_mask(model, batch, pai.Mask.dense(model)).kept == 24


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        effective_mask(make_network("mlp"), make_batch(), pai.Mask.dense(make_network("conv")))


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
def test_effective_mask_and_path_norm_leave_the_model_as_found(kind):
    model, batch = make_network(kind), make_batch()
    for i, module in enumerate(model.modules()):
        module.training = i % 2 == 0
    next(model.parameters()).requires_grad_(False)
    mask = random_mask(model, 0.5, 0)
    kept = pai.Mask({name: tensor.clone() for name, tensor in mask.items()})
    with torch.no_grad(), unchanged(model):
        effective_mask(model, batch, mask)
        path_norm(model, batch, mask=mask)
    assert mask == kept


class Block(nn.Module):
    """ReLU, average pooling, BatchNorm and a projection; few enough paths to walk them all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 2)
        self.conv = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(2)
        self.shortcut = nn.Conv2d(2, 2, 1, stride=2)
        self.fc = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.bn(self.conv(x)) + self.shortcut(x))
        return self.fc(x.mean((2, 3)))


def block_graph() -> tuple[Graph, np.ndarray]:
    g = Graph(1, 4, 4)
    x = g.conv(g.inputs, "stem.weight", 2, 2)
    y = g.conv(x, "conv.weight", 2, 3, stride=2, padding=1)
    x = g.join(y, g.conv(x, "shortcut.weight", 2, 1, stride=2))
    return g, g.linear(g.average(x), "fc.weight", 2)


def relu_mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def relu_graph() -> tuple[Graph, np.ndarray]:
    g = Graph(1, 4, 4)
    return g, g.linear(g.linear(g.inputs, "1.weight", 5), "3.weight", 3)


@pytest.mark.parametrize("density", [0.5, None])
@pytest.mark.parametrize(
    ("build", "draw"), [(relu_mlp, relu_graph), (Block, block_graph)], ids=["mlp", "block"]
)
def test_path_norm_is_the_sum_over_paths_walked_one_by_one(build, draw, density):
    model, (graph, outputs) = build().double(), draw()
    mask = random_mask(model, density, 1) if density else None
    weights = {n: w.detach().clone() for n, w in pai.prunable_parameters(model).items()}
    if mask:
        weights = {name: w * mask[name] for name, w in weights.items()}
    expected = graph.path_norm(weights, outputs)
    assert expected > 0
    assert path_norm(model, SMALL, mask=mask) == pytest.approx(expected, rel=1e-12)
    assert path_norm(model.float(), SMALL, mask=mask) == pytest.approx(expected, rel=1e-5)


def test_ineffective_weights_carry_no_path_norm():
    model = relu_mlp()
    mask = random_mask(model, 0.2, 0)
    effective = effective_mask(model, SMALL, mask)
    assert 0 < effective.kept < mask.kept
    assert path_norm(model, SMALL, mask=effective) == path_norm(model, SMALL, mask=mask)
