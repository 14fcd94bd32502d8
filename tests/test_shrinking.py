"""The smaller network does what the masked one does, and what it saves."""

import copy

import pytest
import torch
from conftest import CLASSES, NETWORKS, make_batch, make_data, make_network, unchanged
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

import pai_lite as pai
from pai_lite.shrinking import Cost, compare, cost, shrink
from pai_lite.structured import ChannelMask, prune_channels, score_units

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


def vgg() -> nn.Module:
    """Return convolutions with BatchNorm and pooling, flattened while there are pixels left."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 12), (12, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    head = [nn.Flatten(), nn.Linear(16 * 16, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 10)]
    return nn.Sequential(*layers, *head)


LARGER = {
    "vgg": vgg,
    "resnet20": lambda: pai.MODELS["resnet20"]((3, 32, 32), 10),
    "resnet18": lambda: ResNet(BasicBlock, [2, 2, 2, 2]),
    "bottlenecks": lambda: ResNet(Bottleneck, [1, 1, 1, 1]),
}


def build(kind: str) -> tuple[nn.Module, Tensor]:
    """Return a network in float64 in general position, and inputs."""
    if kind in NETWORKS:
        return make_network(kind), make_batch()[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LARGER[kind]().double()
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.dim() == 1:
                tensor.data.add_(0.3 * torch.rand_like(tensor))
    return model, IMAGES


def one_at_least(model: nn.Module, inputs: Tensor, sparsity: float) -> ChannelMask:
    """Prune at random but keep the first unit of every group."""
    batch = (inputs, torch.arange(len(inputs)) % CLASSES)
    mask = prune_channels(model, "random", batch, sparsity=sparsity)
    kept = {name: vector.clone() for name, vector in mask.items()}
    for vector in kept.values():
        vector[0] = True
    return ChannelMask(kept, mask.units)


def masked(model: nn.Module, mask: ChannelMask) -> nn.Module:
    model = copy.deepcopy(model)
    mask.weights().apply_(model)
    return model


def assert_same_outputs(first: nn.Module, second: nn.Module, inputs: Tensor) -> None:
    """Compare relative to the largest output."""
    with torch.no_grad():
        wanted, found = first(inputs), second(inputs)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))


@pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")
@pytest.mark.parametrize("sparsity", [0.3, 0.9])
@pytest.mark.parametrize("kind", [*NETWORKS, *LARGER])
def test_shrunk_and_masked_networks_have_the_same_outputs(kind: str, sparsity: float) -> None:
    model, inputs = build(kind)
    mask = one_at_least(model, inputs, sparsity)
    with unchanged(model):
        small = shrink(model, mask, inputs)
    zeroed = masked(model, mask)
    assert_same_outputs(zeroed.eval(), small.eval(), inputs)
    for network in (zeroed, small):
        network.train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):  # its noise has another shape
                module.eval()
    assert_same_outputs(zeroed, small, inputs)
    # BatchNorm's statistics have moved alike.
    assert_same_outputs(zeroed.eval(), small.eval(), inputs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_shrunk_and_masked_networks_train_alike(kind: str) -> None:
    model, inputs = build(kind)
    data = make_data(tuple(inputs.shape[1:]), CLASSES)
    recipe = pai.Recipe(epochs=2, batch_size=6, lr=0.1, momentum=0.9, weight_decay=0.01)
    mask = one_at_least(model, inputs, 0.5)
    small = shrink(model, mask, inputs)
    sparse = pai.fit(model, data, recipe, mask=mask.weights(), progress=False).model
    dense = pai.fit(small, data, recipe, progress=False).model
    assert_same_outputs(sparse, dense, inputs)
    assert_same_outputs(sparse, shrink(sparse, mask, inputs), inputs)
    with torch.no_grad():
        assert (sparse(inputs) - masked(model, mask).eval()(inputs)).abs().max() > 1e-3


def test_the_smaller_network_has_the_kept_channels() -> None:
    model, inputs = build("residual")
    mask = one_at_least(model, inputs, 0.5)
    small = shrink(model, mask, inputs)
    counts = mask.channel_counts()
    found = {name: len(weight) for name, weight in pai.prunable_parameters(small).items()}
    assert found == counts.to_dict()
    assert small.bn2.num_features == counts["conv2.weight"]
    kept = mask["conv2.weight"]
    assert torch.equal(small.bn2.running_var, model.bn2.running_var[kept])
    assert torch.equal(small.fc.weight, model.fc.weight[:, kept])


def test_frozen_parameters_stay_frozen() -> None:
    model, inputs = build("conv")
    model[3].weight.requires_grad_(False)
    small = shrink(model, one_at_least(model, inputs, 0.5), inputs)
    assert [n for n, p in small.named_parameters() if not p.requires_grad] == ["3.weight"]


def test_a_group_without_a_unit_is_named() -> None:
    model, inputs = build("conv")
    mask = one_at_least(model, inputs, 0.5)
    empty = {**mask, "3.weight": torch.zeros(3, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"^3\.weight would keep no channel"):
        shrink(model, ChannelMask(empty, mask.units), inputs)


def test_the_mask_of_another_model_is_refused() -> None:
    mask = one_at_least(*build("conv"), 0.5)
    with pytest.raises(ValueError, match="channel mask does not fit the model"):
        shrink(make_network("residual"), mask, make_batch()[0])


class Resized(nn.Module):
    """A network with a number of channels written into its forward pass."""

    def __init__(self, other: str) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(32, 4), nn.Linear(4, CLASSES)
        self.other = other

    def forward(self, x: Tensor) -> Tensor:
        y = torch.sigmoid(self.first(x.flatten(1)))
        y = y.view(-1, 4) if self.other == "fails" else y / y.shape[1]
        return self.last(y)


@pytest.mark.parametrize(
    ("other", "message"),
    [("fails", "Resized cannot be made smaller: "), ("differs", "gives other outputs")],
)
def test_a_network_that_cannot_shrink_is_refused(other: str, message: str) -> None:
    torch.manual_seed(0)
    model, inputs = Resized(other).double(), make_batch()[0]
    with pytest.raises(ValueError, match=message):
        shrink(model, one_at_least(model, inputs, 0.25), inputs)


def test_cost_counts_by_hand() -> None:
    model, inputs = build("conv")
    weights = 4 * 2 * 9 + 3 * 4 * 9 + 3 * 12
    others = 4 + 2 * 4 + 2 * 3 + 3
    adds = 16 * 4 * 2 * 9 + 4 * 3 * 4 * 9 + 3 * 12
    model.train()
    with unchanged(model):
        assert cost(model, inputs) == Cost(parameters=weights + others, multiply_adds=adds)


def test_compare_reports_what_is_saved() -> None:
    model, inputs = build("vgg")
    small = shrink(model, one_at_least(model, inputs, 0.5), inputs)
    with unchanged(model), unchanged(small):
        table = compare(model, small, inputs, repeats=3)
    assert list(table.index) == ["dense", "smaller", "ratio"]
    assert list(table.columns) == ["parameters", "multiply-adds", "seconds"]
    for row, network in (("dense", model), ("smaller", small)):
        found = cost(network, inputs)
        assert table.loc[row, "parameters"] == found.parameters
        assert table.loc[row, "multiply-adds"] == found.multiply_adds
    assert (table > 0).all(axis=None)
    ratio = table.loc["dense"] / table.loc["smaller"]
    torch.testing.assert_close(ratio.tolist(), table.loc["ratio"].tolist())
    assert ratio["parameters"] > 1.5
    with pytest.raises(ValueError, match="repeats is 0"):
        compare(model, small, inputs, repeats=0)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_compute_aware_scores_are_per_multiply_add_saved(method: str) -> None:
    model, batch = make_network("conv"), make_batch()
    mask = prune_channels(model, "random", batch, sparsity=0.0)
    plain = score_units(model, mask.units, method, batch).flat()
    aware = score_units(model, mask.units, method, batch, compute_aware=True).flat()
    saved = []
    for unit in range(mask.size):
        keep = mask.flat().clone()
        keep[unit] = False
        vectors = dict(zip(mask, keep.split([len(v) for v in mask.values()]), strict=True))
        small = shrink(model, ChannelMask(vectors, mask.units), batch[0])
        saved.append(cost(model, batch[0]).multiply_adds - cost(small, batch[0]).multiply_adds)
    torch.testing.assert_close(aware, plain / torch.tensor(saved).double())
    by_cost = prune_channels(model, method, batch, sparsity=0.5, compute_aware=True)
    assert torch.equal(by_cost.flat(), aware >= aware.sort().values[-by_cost.kept])
    assert len(set(saved)) > 1
