"""The ablations of Frankle et al. 2021: shuffled masks, new initial weights, inverted scores."""

import copy

import pytest
import torch
from conftest import (
    make_batch,
    make_data,
    make_network,
    rng_state,
    same_weights,
    unchanged,
    weights,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.ablations import reinitialize, shuffle
from pai_lite.models import initialize
from pai_lite.scores import invert

pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")

VALUES = st.one_of(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 1e-300, 1.0]), st.floats(-1e9, 1e9))
LAYERS = st.lists(st.lists(VALUES, min_size=1, max_size=20), min_size=1, max_size=4)
BITS = st.lists(st.lists(st.booleans(), min_size=1, max_size=20), min_size=1, max_size=4)
SPARSITIES = st.floats(0, 1, exclude_max=True)
SEEDS = st.integers(0, 2**31)


def named(layers: list[list], dtype: torch.dtype) -> dict[str, Tensor]:
    return {str(i): torch.tensor(layer, dtype=dtype) for i, layer in enumerate(layers)}


def flat(tensors: pai.Mask | pai.Scores) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


# Shuffling


@settings(deadline=None)
@given(BITS, SEEDS)
def test_shuffle_keeps_the_number_of_weights_in_each_layer(layers, seed):
    mask = pai.Mask(named(layers, torch.bool))
    shuffled = shuffle(mask, seed=seed)
    assert list(shuffled) == list(mask)
    for name, tensor in mask.items():
        assert shuffled[name].shape == tensor.shape
        assert shuffled[name].dtype == torch.bool
        assert int(shuffled[name].sum()) == int(tensor.sum())


def test_trap_synaptic_flow_shuffle_is_a_no_op():
    """Theirs binds the shuffled mask to the loop's variable; the mask itself stays."""
    mask = pai.keep_top(pai.magnitude(make_network("residual")), 0.5)
    theirs = {name: tensor.clone() for name, tensor in mask.items()}
    for tensor in theirs.values():
        tensor = tensor.flatten()[torch.randperm(tensor.numel())].view_as(tensor)
    assert pai.Mask(theirs) == mask, "the trap: nothing has moved"
    before = copy.deepcopy(mask)
    shuffled = shuffle(mask)
    # Two masks of density 1/2 that know nothing of each other overlap by about 1/3.
    assert 0.2 < mask.overlap(shuffled) < 0.5
    assert mask == before, "the mask that was passed in is untouched"


def test_shuffle_follows_its_seed_and_not_the_global_generator():
    mask = pai.keep_top(pai.magnitude(make_network("mlp")), 0.7)
    before = rng_state()
    first = shuffle(mask, seed=1)
    assert rng_state() == before
    torch.manual_seed(99)
    assert first == shuffle(mask, seed=1)
    assert first != shuffle(mask, seed=2)
    assert shuffle(mask) == shuffle(mask, seed=0)


def test_shuffle_finds_every_place_equally_often():
    mask = pai.Mask({"a": torch.tensor([[True, False], [True, False], [False, False]])})
    hits = sum(shuffle(mask, seed=seed)["a"].int() for seed in range(600))
    assert hits.sum() == 1200
    assert (hits - 200).abs().max() < 5 * (600 * 1 / 3 * 2 / 3) ** 0.5
    layers = pai.Mask({name: torch.arange(100) < 50 for name in "ab"})
    a, b = shuffle(layers).values()
    assert (a & b).sum() < 40, "layers of one shape are shuffled differently"


# Other initial weights


def trained(kind: str) -> nn.Module:
    """Return a network with gradients, statistics and modes of its own, as after training."""
    model = make_network(kind)
    inputs, targets = make_batch()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    next(iter(model.children())).eval()
    next(model.parameters()).requires_grad_(False)
    return model


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
def test_reinitialize_leaves_the_model_and_the_generators_alone(kind):
    model = trained(kind)
    with unchanged(model):
        fresh = reinitialize(model)
    shared = {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in fresh.parameters()}
    assert not shared
    assert all(p.grad is None for p in fresh.parameters()), "old gradients are not the copy's"
    assert [p.requires_grad for p in fresh.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert [m.training for m in fresh.modules()] == [m.training for m in model.modules()]
    assert {p.dtype for p in fresh.parameters()} == {torch.float64}


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
def test_reinitialize_draws_every_weight_and_resets_the_rest(kind):
    model = trained(kind)
    fresh = reinitialize(model)
    for name, weight in pai.prunable_parameters(fresh).items():
        assert not (weight == model.get_parameter(name)).any(), name
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.running_var == 1).all()
            assert not module.running_mean.any()
            assert module.num_batches_tracked == 0
        if isinstance(module, nn.Linear | nn.Conv2d | nn.BatchNorm2d) and module.bias is not None:
            assert not module.bias.any()


def test_reinitialize_follows_its_seed_and_not_the_global_generator():
    model = make_network("residual")
    first = weights(reinitialize(model, seed=1))
    torch.manual_seed(99)
    assert same_weights(first, weights(reinitialize(model, seed=1)))
    other = weights(reinitialize(model, seed=2))
    assert all(not torch.equal(first[name], other[name]) for name in pai.prunable_parameters(model))
    assert same_weights(weights(reinitialize(model)), weights(reinitialize(model, seed=0)))


def test_reinitialized_weights_have_the_distribution_of_the_first():
    """Layer by layer the two samples agree in mean, spread and largest gap between their CDFs."""
    model = pai.build_model("small-conv", make_data((1, 8, 8), 10))
    fresh = reinitialize(model, seed=1)
    for name, weight in pai.prunable_parameters(model).items():
        old, new = weight.detach().flatten(), fresh.get_parameter(name).detach().flatten()
        n = len(old)
        std = (2 / weight[0].numel()) ** 0.5
        assert abs(new.mean()) < 5 * std / n**0.5, name
        assert abs(new.std() / std - 1) < 5 / (2 * n) ** 0.5, name
        both = torch.cat([old, new]).sort().values
        gap = torch.searchsorted(old.sort().values, both, right=True) - torch.searchsorted(
            new.sort().values, both, right=True
        )
        assert gap.abs().max() / n < 2.5 * (2 / n) ** 0.5, name
        correlation = torch.corrcoef(torch.stack([old, new]))[0, 1]
        assert abs(correlation) < 5 / n**0.5, name


def test_a_reinitialized_network_is_one_that_was_never_trained():
    """The copy equals the initialized network of that seed, whatever happened to the first."""
    model = make_network("conv")
    fresh = reinitialize(trained("conv"), seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model.apply(initialize)
    assert same_weights(weights(fresh), weights(model))


def test_reinitialize_resets_other_layers_as_pytorch_starts_them():
    model = nn.Sequential(nn.Conv1d(3, 4, 2), nn.PReLU(), nn.Flatten(), nn.LayerNorm(12))
    for parameter in model.parameters():
        parameter.data.fill_(7.0)
    fresh = reinitialize(model)
    assert fresh[1].weight.item() == nn.PReLU().weight.item()
    assert (fresh[3].weight == 1).all()
    assert not fresh[3].bias.any()
    assert not (fresh[0].weight == 7).any()


class Scaled(nn.Module):
    """A layer with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.scale = nn.Parameter(torch.full((2,), 7.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)


def test_reinitialize_refuses_what_it_cannot_draw():
    """A weight that silently kept its trained value would make the ablation lie."""
    for model, place in ((Scaled(), "the model"), (nn.Sequential(Scaled()), "0")):
        with pytest.raises(ValueError, match=rf"scale of {place} \(Scaled\).*reset_parameters"):
            reinitialize(model)


def test_reinitialize_refuses_an_attached_mask():
    model = make_network("mlp")
    pai.keep_top(pai.magnitude(model), 0.5).attach(model)
    with pytest.raises(ValueError, match=r"torch\.nn\.utils\.prune"):
        reinitialize(model)


# Inverted scores


@settings(deadline=None)
@given(LAYERS, SPARSITIES)
def test_invert_keeps_exactly_the_lowest(layers, sparsity):
    scores = pai.Scores(named(layers, torch.float64))
    kept = flat(pai.keep_top(invert(scores), sparsity))
    values = flat(scores)
    k = round((1 - sparsity) * len(values))
    lowest = sorted(range(len(values)), key=lambda i: (values[i].item(), i))[:k]
    assert kept.nonzero().flatten().tolist() == sorted(lowest)


@given(LAYERS)
def test_invert_turns_the_order_and_keeps_ties(layers):
    scores = pai.Scores(named(layers, torch.float64))
    values, turned = flat(scores), flat(invert(scores))
    assert torch.equal(values[:, None] < values, turned[:, None] > turned)
    assert torch.equal(values[:, None] == values, turned[:, None] == turned)
    assert invert(invert(scores)) == scores
    assert [t.shape for t in invert(scores).values()] == [t.shape for t in scores.values()]


@settings(deadline=None)
@given(st.sets(st.floats(-1e9, 1e9), min_size=1, max_size=30), SPARSITIES)
def test_without_ties_the_two_ends_are_complements(values, sparsity):
    scores = pai.Scores(named([list(values)], torch.float64))
    k = round((1 - sparsity) * len(values))
    high = pai.keep_top_per_layer(scores, {"0": k})["0"]
    low = pai.keep_top_per_layer(invert(scores), {"0": len(values) - k})["0"]
    assert torch.equal(high, ~low)


def test_trap_synaptic_flow_invert_gives_nan_on_zeros():
    """Theirs is 1 / score: infinite where a score is 0, and NaN as soon as it is normalised."""
    scores = {"a": torch.tensor([0.0, 0.5, 2.0])}
    theirs = 1 / scores["a"]
    assert theirs[0] == torch.inf
    assert (theirs / theirs.sum()).isnan().any()
    with pytest.raises(ValueError, match="NaN or infinite"):
        pai.Scores({"a": theirs})
    assert invert(pai.Scores(scores))["a"].tolist() == [0.0, -0.5, -2.0]


def test_trap_synaptic_flow_invert_is_wrong_for_signed_scores():
    """1 / score leaves every positive score above every negative one.

    It turns the order only among scores of one sign; GraSP's have both.
    """
    scores = pai.Scores({"a": torch.tensor([-3.0, -1.0, 1.0, 3.0])})
    theirs = pai.keep_top(pai.Scores({"a": 1 / scores["a"]}), 0.5)
    assert theirs["a"].tolist() == [False, False, True, True], "the trap: these are the highest"
    ours = pai.keep_top(invert(scores), 0.5)
    assert ours["a"].tolist() == [True, True, False, False]
    model, batch = make_network("conv"), make_batch()
    signed = pai.grasp(model, batch)
    values = flat(signed)
    assert values.min() < 0 < values.max()
    kept = flat(pai.keep_top(invert(signed), 0.8))
    assert values[kept].max() <= values[~kept].min()


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
def test_invert_leaves_the_scores_alone(kind):
    scores = pai.magnitude(make_network(kind))
    before = copy.deepcopy(scores)
    invert(scores)
    assert scores == before
