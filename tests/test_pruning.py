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


# Controls and methods of one's own


@pytest.mark.parametrize("method", ["magnitude", "snip", "grasp", "prospr"])
def test_invert_keeps_the_lowest_scores(network, method):
    batches = [make_batch(seed) for seed in range(4)]
    highest = pai.prune(network, method, batches, sparsity=0.5)
    lowest = pai.prune(network, method, batches, sparsity=0.5, invert=True)
    assert lowest.kept == highest.kept
    assert lowest.overlap(highest) < 0.01


def test_every_step_of_an_iterated_method_is_inverted():
    def negated_snip(*data: object, **options: object) -> pai.Scores:
        return pai.Scores({name: -z for name, z in pai.snip(*data, **options).items()})

    model, batch = make_network("conv"), make_batch()
    mine = pai.Method(negated_snip, "this test", steps=4)
    expected = pai.prune(model, mine, batch, sparsity=0.5)
    mask = pai.prune(model, "iter-snip", batch, sparsity=0.5, steps=4, invert=True)
    assert mask == expected


def test_a_criterion_of_ones_own_is_a_method(network):
    def negative(model: nn.Module, batches: object) -> pai.Scores:
        return pai.Scores({n: -w.abs() for n, w in pai.prunable_parameters(model).items()})

    mine = pai.Method(negative, "this test")
    assert pai.prune(network, mine, make_batch(), sparsity=0.4) == pai.prune(
        network, "magnitude", sparsity=0.4, invert=True
    )


def test_steps_of_prospr_are_its_training_steps(network):
    batches = [make_batch(seed) for seed in range(6)]
    for name, criterion in {
        "prospr": pai.prospr,
        "prospr-first-order": pai.prospr_first_order,
    }.items():
        for steps in (0, 1, 5):
            mask = pai.prune(network, name, batches, sparsity=0.5, steps=steps, lr=0.5)
            scores = criterion(network, batches, steps=steps, lr=0.5)
            assert mask == pai.keep_top(scores, 0.5)
    assert pai.METHODS["prospr"].batches == 3 + 1, "one a step and one for the loss"


def test_a_method_that_needs_training_says_where_to_go():
    model, batch = mlp_and_batch()
    for method in ("magnitude-after", "lottery-ticket"):
        with pytest.raises(ValueError, match=f"prune_later.*{method}"):
            pai.prune(model, method, batch, sparsity=0.5)


def test_fewer_weights_than_layers_is_said_with_the_layers_that_are_empty():
    model = make_network("conv")
    with pytest.warns(pai.LayerCollapseWarning, match=r"removed from .*weight.*2 weights.*3 layer"):
        pai.prune(model, "snip", make_batch(), sparsity=1 - 2 / pai.Mask.dense(model).size)


# Channels


@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "prospr"])
def test_channels_are_pruned_by_the_same_name(method):
    model, batches = make_network("residual"), [make_batch(seed) for seed in range(4)]
    mask = pai.prune(model, method, batches, sparsity=0.5, granularity="channel")
    assert mask == pai.prune_channels(model, method, batches, sparsity=0.5)
    assert mask.kept == round(0.5 * mask.size)


def test_options_reach_the_criterion_of_channels_too():
    model, batch = make_network("residual"), make_batch()
    options = {"sparsity": 0.5, "granularity": "channel"}
    masks = [pai.prune(model, "random", batch, seed=seed, **options) for seed in (1, 1, 2)]
    assert masks[0] == masks[1] != masks[2]


def test_an_unknown_granularity_is_refused():
    model, batch = mlp_and_batch()
    with pytest.raises(ValueError, match="granularity is 'row'"):
        pai.prune(model, "snip", batch, sparsity=0.5, granularity="row")


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
    yield "one numpy array", (inputs, targets.numpy()), r"(?i)pair of tensors"


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
