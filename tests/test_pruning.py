"""Pruning by name, shuffling, and what is said to bad input."""

import pytest
import torch
from conftest import make_batch, make_network
from torch import nn

import pai_lite as pai

pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")


def mlp_and_batch() -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    return make_network("mlp"), make_batch()


def test_the_methods_of_this_stage_are_known():
    assert {"random", "random-uniform", "random-erk", "magnitude", "snip"} <= set(pai.METHODS)


@pytest.mark.parametrize("sparsity", [0.0, 0.31, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("method", ["random", "random-uniform", "random-erk", "magnitude", "snip"])
def test_every_method_keeps_exactly_k(network, method, sparsity):
    mask = pai.prune(network, method, make_batch(), sparsity=sparsity)
    assert mask.kept == round((1 - sparsity) * mask.size)
    parameters = pai.prunable_parameters(network)
    assert list(mask) == list(parameters)
    assert all(mask[name].shape == parameters[name].shape for name in mask)


def same(first: pai.Mask, second: pai.Mask) -> bool:
    return list(first) == list(second) and all(torch.equal(first[n], second[n]) for n in first)


def test_one_shot_methods_are_keep_top_of_their_criterion(network):
    batch = make_batch()
    for method, scores in {
        "random": pai.random(network),
        "magnitude": pai.magnitude(network),
        "snip": pai.snip(network, batch),
    }.items():
        assert same(pai.prune(network, method, batch, sparsity=0.8), pai.keep_top(scores, 0.8)), (
            method
        )


def test_layerwise_random_methods_keep_the_counts_of_their_rule(network):
    shapes = pai.prunable_parameters(network)
    for method, rule in {
        "random-uniform": pai.uniform_counts,
        "random-erk": pai.erk_counts,
    }.items():
        mask = pai.prune(network, method, sparsity=0.7)
        assert mask.layer_counts() == rule(shapes, 0.7), method


def test_options_reach_the_criterion():
    model, batch = make_network("conv"), make_batch()
    for method in ("random", "random-uniform", "random-erk"):
        masks = [pai.prune(model, method, sparsity=0.5, seed=seed) for seed in (1, 1, 2)]
        assert same(masks[0], masks[1])
        assert not same(masks[0], masks[2])
    mask = pai.prune(model, "snip", batch, sparsity=0.8, batchnorm="eval")
    assert same(mask, pai.keep_top(pai.snip(model, batch, batchnorm="eval"), 0.8))


# Shuffling


def test_trap_synaptic_flow_shuffle_is_a_no_op():
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 20))
    mask = pai.keep_top(pai.magnitude(model), 0.7)
    before = {name: tensor.clone() for name, tensor in mask.items()}
    shuffled = pai.shuffle(mask)
    assert shuffled.layer_counts() == mask.layer_counts()
    # Two random masks of density d overlap by about d / (2 - d) = 0.18.
    assert mask.overlap(shuffled) < 0.3
    assert all(torch.equal(mask[name], before[name]) for name in mask), "the input is untouched"
    assert all(shuffled[name].shape == mask[name].shape for name in mask)


def test_shuffle_follows_its_seed_and_not_the_global_one():
    mask = pai.keep_top(pai.magnitude(nn.Linear(40, 30)), 0.7)
    first = pai.shuffle(mask, seed=1)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert same(first, pai.shuffle(mask, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(first, pai.shuffle(mask, seed=2))
    assert same(pai.shuffle(mask), pai.shuffle(mask, seed=0))


def test_shuffle_puts_weights_at_places_that_are_uniform():
    mask = pai.Mask({"a": torch.tensor([[True, False], [False, False]])})
    hits = sum(pai.shuffle(mask, seed=seed)["a"].int() for seed in range(400))
    assert hits.sum() == 400
    assert (hits - 100).abs().max() < 5 * (400 * 0.25 * 0.75) ** 0.5


# Bad input


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("snpi", "snip"), ("magnitud", "magnitude"), ("snip_", "snip")]
)
def test_an_unknown_method_lists_the_known_and_the_nearest(wrong, nearest):
    model, batch = mlp_and_batch()
    with pytest.raises(ValueError, match=wrong) as caught:
        pai.prune(model, wrong, batch, sparsity=0.5)
    message = str(caught.value)
    assert all(name in message for name in pai.METHODS)
    assert message.index(nearest) < message.index("random"), "the nearest comes before the list"


@pytest.mark.parametrize("method", ["random", "magnitude", "snip"])
@pytest.mark.parametrize("sparsity", [-0.01, 1.0, 1.2, 90, float("nan"), float("inf")])
def test_a_sparsity_outside_zero_to_one_is_refused(method, sparsity):
    model, batch = mlp_and_batch()
    with pytest.raises(ValueError, match="sparsity"):
        pai.prune(model, method, batch, sparsity=sparsity)


def test_data_may_be_missing_only_where_it_is_not_looked_at():
    model, _ = mlp_and_batch()
    for method in ("random", "random-uniform", "random-erk", "magnitude"):
        assert pai.prune(model, method, sparsity=0.6).kept == 70
    with pytest.raises(ValueError, match=r"(?i)batch|data"):
        pai.prune(model, "snip", sparsity=0.5)


@pytest.mark.parametrize("batches", [[], (), iter([])])
def test_no_batch_at_all_is_refused(batches):
    with pytest.raises(ValueError, match=r"(?i)batch|data"):
        pai.prune(make_network("mlp"), "snip", batches, sparsity=0.5)


def bad_batches():
    inputs, targets = make_batch()
    one_label = targets.clone()
    for case, value in {"too large": 3, "negative": -1, "ignored by torch": -100}.items():
        one_label[0] = value
        yield f"label {case}", (inputs, one_label.clone()), rf"(?i)label|target|class.*{value}"
    yield "inputs float32", (inputs.float(), targets), r"float32"
    yield "inputs uint8", (inputs.byte(), targets), r"uint8"
    yield "targets float", (inputs, targets.double()), r"float64"
    yield "inputs elsewhere", (inputs.to("meta"), targets), r"meta"
    yield "targets elsewhere", (inputs, targets.to("meta")), r"meta"
    yield "lengths", (inputs, targets[:-1]), r"7|8"
    yield "empty", (inputs[:0], targets[:0]), r"(?i)empty|no |0"
    yield "not a pair", (inputs, targets, targets), r"(?i)pair"
    yield "numpy arrays", (inputs.numpy(), targets.numpy()), r"(?i)tensor|pair"


@pytest.mark.parametrize(
    ("batch", "message"),
    [case[1:] for case in bad_batches()],
    ids=[case[0] for case in bad_batches()],
)
@pytest.mark.parametrize("form", ["pair", "list"])
def test_a_batch_that_does_not_fit_is_refused(batch, message, form):
    with pytest.raises(ValueError, match=message):
        pai.prune(make_network("mlp"), "snip", batch if form == "pair" else [batch], sparsity=0.5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_give_an_error_that_names_a_layer(network, bad):
    inputs, targets = make_batch()
    inputs[0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match=r"[\w.]+\.weight"):
        pai.prune(network, "snip", (inputs, targets), sparsity=0.5)


def test_weights_that_are_not_finite_name_their_layer():
    model = make_network("mlp")
    model[3].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"3\.weight"):
        pai.prune(model, "magnitude", sparsity=0.5)


def test_an_unknown_batchnorm_mode_is_refused():
    model, batch = mlp_and_batch()
    with pytest.raises(ValueError, match=r"train.*eval"):
        pai.snip(model, batch, batchnorm="running")
