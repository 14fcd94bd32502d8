"""SynFlow against paths counted one by one, and its claims."""

from __future__ import annotations

import copy
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.models import BasicBlock

ONES = torch.ones(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)


def chain(*widths: int, seed: int = 0) -> nn.Module:
    """Build a chain of linear layers with ReLU between them, without biases."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def block_net() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Build a small residual network with projection, BatchNorm, pooling and a bias."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), BasicBlock(2, 3, 2),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2),
        )  # fmt: skip
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.uniform_(-1, 1)
    return net, (torch.randn(4, 1, 4, 4), torch.zeros(4, dtype=torch.int64))


def test_claim_synflow_path() -> None:
    net = chain(3, 4, 3, 2)
    w1, w2, w3 = (w.detach().abs() for w in pai.prunable_parameters(net).values())
    shares = [torch.zeros_like(w) for w in (w1, w2, w3)]
    for i, j, k, out in product(range(3), range(4), range(3), range(2)):
        path = w1[j, i] * w2[k, j] * w3[out, k]
        for share, place in zip(shares, ((j, i), (k, j), (out, k)), strict=True):
            share[place] += path
    for score, share in zip(pai.synflow(net, ONES).values(), shares, strict=True):
        assert torch.allclose(score, share, rtol=1e-12)


def test_a_score_is_what_the_path_norm_loses_with_the_weight() -> None:
    """The path norm is linear in each weight, so removal costs exactly the score."""
    net, batch = block_net()
    plain = copy.deepcopy(net).double()
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent = plain.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], nn.Identity())
    for name, parameter in plain.named_parameters():
        parameter.data = parameter.data.abs() * (not name.endswith("bias"))
    ones = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        whole = plain(ones).sum()
        for name, scores in pai.synflow(net, batch).items():
            weight = plain.get_parameter(name)
            for place in product(*map(range, weight.shape)):
                kept = weight[place].clone()
                weight[place] = 0.0
                lost = whole - plain(ones).sum()
                weight[place] = kept
                assert scores[place] == pytest.approx(float(lost), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("widths", [(3, 4, 3, 2), (3, 20, 2, 30, 5)])
def test_claim_synflow_conserve(widths: tuple[int, ...]) -> None:
    sums = [float(score.sum()) for score in pai.synflow(chain(*widths), ONES).values()]
    assert sums == pytest.approx([sums[0]] * len(sums), rel=1e-12)


def test_the_values_of_the_batch_do_not_matter() -> None:
    net, (inputs, targets) = block_net()
    first, second = pai.synflow(net, (inputs, targets)), pai.synflow(net, (inputs * 7 + 1, targets))
    assert first == second


def test_a_removed_weight_scores_zero_and_takes_its_paths_along() -> None:
    net = chain(3, 4, 2)
    mask = pai.Mask.dense(net)
    mask["2.weight"][:, 0] = False  # nothing leaves unit 0
    scores = pai.synflow(net, ONES, mask=mask)
    assert (scores["2.weight"][:, 0] == 0).all()
    assert (scores["0.weight"][0] == 0).all()
    assert (scores["0.weight"][1:] > 0).all()


def test_claim_synflow_critical() -> None:
    """Iterated, no layer is empty while one weight a layer can be had; in one shot one is."""
    net = chain(3, 40, 40, 2)
    n = pai.Mask.dense(net).size
    in_steps = pai.prune(net, "synflow", ONES, sparsity=1 - 3 / n)
    assert in_steps.layer_counts() == {"0.weight": 1, "2.weight": 1, "4.weight": 1}
    with pytest.warns(pai.LayerCollapseWarning):
        pai.prune(net, "synflow", ONES, sparsity=0.995, steps=1)


def test_path_norm_of_a_deep_resnet_is_beyond_float32() -> None:
    batch = torch.zeros(1, 3, 32, 32), torch.zeros(1, dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [pai.MODELS[name]((3, 32, 32), 10) for name in ("resnet20", "resnet56")]
    shallow, deep = (pai.path_norm(net, batch) for net in nets)
    assert shallow < torch.finfo(torch.float32).max < deep < float("inf")


def test_claim_synflow_float64() -> None:
    """On a ResNet-110 the path norm exceeds float32's largest number."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = [BasicBlock(16, 16, 1) for _ in range(54)]
        net = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), *blocks,
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
        )  # fmt: skip
    scores = pai.synflow(net, (torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64)))
    assert all(score.dtype == torch.float64 for score in scores.values())
    assert scores["0.weight"].sum() > torch.finfo(torch.float32).max


def test_batchnorm_without_statistics_is_refused_by_name() -> None:
    """Its eval mode normalises, so that it cannot be made the identity."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(ValueError, match=r"1 keeps no running statistics"):
        pai.synflow(net, (torch.ones(1, 1, 4, 4), torch.zeros(1, dtype=torch.int64)))


def test_batchnorm_without_scale_is_the_identity_too() -> None:
    net, batch = block_net()
    expected = pai.synflow(net, batch)
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            net.set_submodule(name, nn.BatchNorm2d(module.num_features, affine=False))
    for name, score in pai.synflow(net, batch).items():
        assert torch.allclose(score, expected[name], rtol=1e-12), name


class ScaledAndSwapped(nn.Module):
    """Multiplies by a parameter and reorders by a buffer of whole numbers."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.register_buffer("order", torch.tensor([1, 0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x[:, self.order]


def test_other_parameters_and_buffers_are_what_they_are() -> None:
    """PReLU lets a path through as it is, in the precision of the scores; a scale multiplies it."""

    def scores(scale: float) -> pai.Scores:
        return pai.synflow(nn.Sequential(first, nn.PReLU(), ScaledAndSwapped(scale), last), ONES)

    first, last = nn.Linear(3, 2), nn.Linear(2, 2)
    plain = pai.synflow(nn.Sequential(first, nn.ReLU(), ScaledAndSwapped(1.0), last), ONES).flat()
    assert plain.min() > 0
    assert torch.allclose(scores(3.0).flat(), 3 * plain, rtol=1e-12)
