"""Scores of whole channels against gates that are really turned, and the masks they give."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pandas as pd
import pytest
import torch
from conftest import CLASSES, make_batch, make_network, unchanged
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.structured import (
    CHANNEL_METHODS,
    ChannelMask,
    find_model_units,
    prune_channels,
    score_units,
)

Batch = tuple[Tensor, Tensor]
Places = list[tuple[str, list[int]]]

#: By hand: the layers whose rows a unit has, and the columns that read them, unit after unit.
ROWS: dict[str, list[Places]] = {
    "mlp": [[("1", [i])] for i in range(5)],
    "conv": [[("0", [i])] for i in range(4)] + [[("3", [i])] for i in range(3)],
    "residual": [
        *([("stem", [i])] for i in range(3)),
        *([("conv1", [i])] for i in range(4)),
        *([("conv2", [i]), ("shortcut", [i])] for i in range(4)),
    ],
}
COLUMNS: dict[str, list[Places]] = {
    "mlp": [[("3", [i])] for i in range(5)],
    "conv": [[("3", [i])] for i in range(4)]
    + [[("7", list(range(4 * i, 4 * i + 4)))] for i in range(3)],
    "residual": [
        *([("conv1", [i]), ("shortcut", [i])] for i in range(3)),
        *([("conv2", [i])] for i in range(4)),
        *([("fc", [i])] for i in range(4)),
    ],
}
KINDS = list(ROWS)
SGD = {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.01}


def batches(count: int = 3) -> list[Batch]:
    return [make_batch(seed) for seed in range(count)]


def scores_of(model: nn.Module, method: str, data: list[Batch], **options: object) -> Tensor:
    """Return the scores of all units as one vector."""
    return score_units(model, find_model_units(model, data[0]), method, data, **options).flat()


def prune_quietly(*arguments: object, **options: object) -> ChannelMask:
    """Prune without the warning that a group is empty."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pai.LayerCollapseWarning)
        return prune_channels(*arguments, **options)


@contextmanager
def gated(model: nn.Module, places: Places, gate: float) -> Iterator[None]:
    """Multiply some inputs of layers on their way in."""

    def turn(columns: list[int], _layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        signal = inputs[0].clone()
        signal[:, columns] *= gate
        return (signal,)

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(partial(turn, columns))
        for name, columns in places
    ]
    yield
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def scaled(model: nn.Module, places: Places, gate: float) -> nn.Module:
    """Return a copy in which some columns of weights are multiplied."""
    model = copy.deepcopy(model)
    for name, columns in places:
        model.get_submodule(name).weight[:, columns] *= gate
    return model


def differences(function: Callable[[Places, float], float], kind: str, step: float) -> Tensor:
    """Differentiate a function of each unit's gate at 1, by central differences."""
    values = [
        (function(places, 1 + step) - function(places, 1 - step)) / (2 * step)
        for places in COLUMNS[kind]
    ]
    return torch.tensor(values, dtype=torch.float64)


def loss(model: nn.Module, batch: Batch, temperature: float = 1.0) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]) / temperature, batch[1])


def weight_gradients(value: Tensor, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(pai.prunable_parameters(model).values())))


def train(model: nn.Module, data: list[Batch]) -> nn.Module:
    """Train in place, one step a batch."""
    optimizer = torch.optim.SGD(model.parameters(), **SGD)
    for batch in data:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("train_mode", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_snip_is_the_derivative_in_a_gate(kind: str, train_mode: bool) -> None:
    model, data = make_network(kind), batches()

    def gated_loss(places: Places, gate: float) -> float:
        gated_model = copy.deepcopy(model).train(train_mode)
        with gated(gated_model, places, gate), torch.no_grad():
            return float(sum(loss(gated_model, batch) for batch in data)) / len(data)

    expected = differences(gated_loss, kind, 1e-4).abs()
    mode = "train" if train_mode else "eval"
    found = scores_of(model, "snip", data, batchnorm=mode)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_grasp_is_half_the_derivative_of_the_squared_gradient_norm(
    kind: str, temperature: float
) -> None:
    model, batch = make_network(kind), make_batch()

    def half_norm(places: Places, gate: float) -> float:
        gated_model = scaled(model, places, gate)
        gradients = weight_gradients(loss(gated_model, batch, temperature), gated_model)
        return float(sum(g.square().sum() for g in gradients)) / 2

    expected = differences(half_norm, kind, 1e-4)
    found = scores_of(model, "grasp", [batch], temperature=temperature)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)
    assert (expected < 0).any() or kind == "mlp", "the sign is not tried"


def test_grasp_divides_by_the_temperature_of_the_authors() -> None:
    model, data = make_network("conv"), batches(1)
    default, named = (scores_of(model, "grasp", data, **o) for o in ({}, {"temperature": 200.0}))
    assert torch.equal(default, named)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_prospr_is_the_derivative_of_the_loss_after_training(kind: str, steps: int) -> None:
    model, data = make_network(kind), batches(steps + 1)

    def loss_after(places: Places, gate: float) -> float:
        trained = train(scaled(model, places, gate), data[:steps])
        return float(loss(trained, data[steps]).detach())

    expected = differences(loss_after, kind, 1e-4).abs()
    found = scores_of(model, "prospr", data, steps=steps, **SGD)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_first_order_prospr_takes_the_gradient_after_training(kind: str) -> None:
    model, data = make_network(kind), batches(3)
    trained = train(copy.deepcopy(model), data[:2])
    names = [name.removesuffix(".weight") for name in pai.prunable_parameters(model)]
    last = dict(zip(names, weight_gradients(loss(trained, data[2]), trained), strict=True))
    expected = [
        sum(
            (model.get_submodule(name).weight[:, columns] * last[name][:, columns]).sum()
            for name, columns in places
        )
        for places in COLUMNS[kind]
    ]
    found = scores_of(model, "prospr-first-order", data, steps=2, **SGD)
    torch.testing.assert_close(found, torch.stack(expected).abs().detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_prospr_without_a_step_is_snip(kind: str) -> None:
    model, data = make_network(kind), batches(1)
    torch.testing.assert_close(
        scores_of(model, "prospr", data, steps=0), scores_of(model, "snip", data)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_magnitude_is_the_mean_norm_of_the_rows(kind: str) -> None:
    model = make_network(kind)
    expected = [
        sum(model.get_submodule(name).weight[rows].abs().sum() for name, rows in places)
        / len(places)
        for places in ROWS[kind]
    ]
    found = scores_of(model, "magnitude", batches(1))
    torch.testing.assert_close(found, torch.stack(expected).detach())


def test_random_scores_come_from_the_seed() -> None:
    model, data = make_network("residual"), batches(1)
    first, again, other = (scores_of(model, "random", data, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert ((first >= 0) & (first < 1)).all()


def relu_network() -> nn.Module:
    """Return a network without BatchNorm and bias."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 3, 3, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, CLASSES, bias=False),
    ).double()


def row_sums(model: nn.Module, name: str, batch: Batch) -> Tensor:
    """Return the sums of w * g over the rows of a layer."""
    weight = model.get_submodule(name).weight
    (gradient,) = torch.autograd.grad(loss(model, batch), weight)
    return (weight * gradient).flatten(1).sum(1).detach()


def test_rows_and_columns_agree_for_relu_without_batchnorm_and_bias() -> None:
    model, batch = relu_network(), make_batch()
    rows = torch.cat([row_sums(model, name, batch) for name in ("0", "2")])
    torch.testing.assert_close(scores_of(model, "snip", [batch]), rows.abs())


def test_trap_sum_over_the_row_before_batchnorm_is_zero() -> None:
    model, batch = make_network("conv"), make_batch()
    for name in ("1", "4"):
        model.get_submodule(name).eps = 1e-14
    rows = torch.cat([row_sums(model, name, batch) for name in ("0", "3")])
    # The convolution "0" has a bias, but BatchNorm takes the mean away again.
    assert rows.abs().max() < 1e-12
    assert scores_of(model, "snip", [batch]).min() > 1e-4


def test_trap_rows_alone_leak_the_shift_of_batchnorm() -> None:
    model, batch = make_network("conv"), make_batch()
    mask = prune_channels(model, "random", batch, sparsity=0.5)
    removed = {name: ~kept for name, kept in mask.items()}
    rows_only = pai.Mask.dense(model)
    for name, rows in removed.items():
        rows_only[name][rows] = False
    changes = []
    for masked in (rows_only, mask.weights()):
        network = copy.deepcopy(model)
        masked.apply_(network)
        before = network(batch[0])
        for name, shift in (("0.weight", network[1].bias), ("3.weight", network[4].bias)):
            shift.data[removed[name]] += 1.0
        changes.append((network(batch[0]) - before).abs().max())
    assert changes[0] > 1e-3
    assert changes[1] == 0.0


@pytest.mark.parametrize("method", CHANNEL_METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_touched(kind: str, method: str) -> None:
    model = make_network(kind)
    model.train()
    model.get_submodule("1" if kind != "residual" else "bn1").eval()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    list(model.parameters())[-1].requires_grad_(False)
    with unchanged(model), torch.no_grad():
        prune_quietly(model, method, batches(4), sparsity=0.5)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("method", CHANNEL_METHODS)
def test_exactly_k_units_of_highest_score_are_kept(method: str, sparsity: float) -> None:
    model, data = make_network("residual"), batches(4)
    mask = prune_quietly(model, method, data, sparsity=sparsity)
    k = round((1 - sparsity) * 11)
    assert (mask.size, mask.kept) == (11, k)
    assert mask.density == k / 11
    assert mask.sparsity == 1 - k / 11
    scores = scores_of(model, method, data)
    assert set(scores[mask.flat()].tolist()) == set(sorted(scores.tolist())[11 - k :])


def test_ties_go_to_the_first_units() -> None:
    model = make_network("residual")
    model.fc.weight.data.zero_()  # no signal: all sensitivities but the last are zero
    model.fc.bias.data.zero_()
    mask = prune_quietly(model, "snip", make_batch(), sparsity=0.5)
    assert scores_of(model, "snip", batches(1)).count_nonzero() == 0
    assert mask.flat().tolist() == [True] * 6 + [False] * 5


@pytest.mark.parametrize("kind", KINDS)
def test_masked_weights_are_the_rows_and_columns_of_removed_units(kind: str) -> None:
    model = make_network(kind)
    mask = prune_quietly(model, "random", make_batch(), sparsity=0.6, seed=3)
    expected = pai.Mask.dense(model)
    for kept, rows, columns in zip(mask.flat(), ROWS[kind], COLUMNS[kind], strict=True):
        for name, places in rows if not kept else ():
            expected[f"{name}.weight"][places] = False
        for name, places in columns if not kept else ():
            expected[f"{name}.weight"][:, places] = False
    assert mask.weights() == expected
    assert expected.kept < expected.size


def test_the_last_layer_keeps_its_classes_and_residual_layers_agree() -> None:
    mask = prune_quietly(make_network("residual"), "random", make_batch(), sparsity=0.7)
    assert list(mask) == ["stem.weight", "conv1.weight", "conv2.weight"]
    counts = mask.channel_counts()
    assert isinstance(counts, pd.Series)
    assert counts["fc.weight"] == CLASSES
    assert counts["conv2.weight"] == counts["shortcut.weight"] == mask["conv2.weight"].sum()
    weights = mask.weights()
    rows = {name: weights[f"{name}.weight"].flatten(1).any(1) for name in ("conv2", "shortcut")}
    if mask["stem.weight"].any() and mask["conv1.weight"].any():
        assert torch.equal(rows["conv2"], rows["shortcut"])


def test_the_trained_mask_stays_and_can_be_saved(tmp_path) -> None:
    mask = prune_channels(make_network("conv"), "snip", make_batch(), sparsity=0.3).weights()
    mask.save(tmp_path / "mask.safetensors")
    assert pai.Mask.load(tmp_path / "mask.safetensors") == mask


def test_units_may_be_permuted() -> None:
    model, data = make_network("mlp"), batches(1)
    order = torch.tensor([3, 0, 4, 1, 2])
    other = copy.deepcopy(model)
    other[1].weight.data, other[1].bias.data = model[1].weight[order], model[1].bias[order]
    other[3].weight.data = model[3].weight[:, order]
    for method in ("magnitude", "snip", "grasp"):
        scores = scores_of(model, method, data)
        torch.testing.assert_close(scores_of(other, method, data), scores[order])


def test_a_group_that_loses_all_units_is_named() -> None:
    model = make_network("residual")
    model.conv2.weight.data.zero_()
    with pytest.warns(pai.LayerCollapseWarning, match=r"removed from conv1\.weight\.") as caught:
        prune_channels(model, "snip", make_batch(), sparsity=4 / 11)
    assert caught[0].filename == __file__


def test_a_mask_fits_its_units_only() -> None:
    mask = prune_channels(make_network("conv"), "snip", make_batch(), sparsity=0.3)
    assert repr(mask) == "ChannelMask(2 groups, 5 of 7 units kept, sparsity 28.57%)"
    wrong = [
        {"0.weight": mask["0.weight"]},
        {"0.weight": mask["0.weight"], "3.weight": mask["3.weight"][:2]},
        {"0.weight": mask["0.weight"], "3.weight": mask["3.weight"].double()},
    ]
    for tensors in wrong:
        with pytest.raises(ValueError, match="these units need boolean vectors"):
            ChannelMask(tensors, mask.units)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("synflow", {}, "Unknown method for channels 'synflow'.*Known: random, magnitude, snip"),
        ("snip", {"sparsity": 1.0}, "sparsity is 1.0"),
        ("snip", {"batches": None}, "needs data"),
        ("random", {"batches": []}, "No batch was given"),
        ("magnitude", {"batches": make_batch(dtype=torch.float32)}, "dtype torch.float32"),
        ("prospr", {}, "needs 4 batches"),
    ],
)
def test_bad_input_is_named(method: str, options: dict, message: str) -> None:
    given = {"batches": make_batch(), "sparsity": 0.5, **options}
    with pytest.raises(ValueError, match=message):
        prune_channels(make_network("conv"), method, **given)


def test_scores_that_are_not_finite_are_named() -> None:
    model = make_network("conv")
    model[7].weight.data[0, 5] = torch.inf
    with pytest.raises(ValueError, match=r"scores of 0\.weight are NaN"):
        prune_channels(model, "snip", make_batch(), sparsity=0.5)
