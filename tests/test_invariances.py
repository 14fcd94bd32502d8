"""Changes of a network that its function does not show, and what they do to scores.

Renaming hidden units renames scores. Scaling a layer up and the next one down, or a layer before
BatchNorm, leaves products of weight and gradient as they were, and changes what is made of one of
the two alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from conftest import CLASSES, make_batch, make_network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pai_lite as pai

Batches = list[tuple[Tensor, Tensor]]
SGD = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.01}

CRITERIA: dict[str, Callable[[nn.Module, Batches], pai.Scores]] = {
    "magnitude": pai.magnitude,
    "snip": pai.snip,
    "snip, eval": lambda model, batches: pai.snip(model, batches, batchnorm="eval"),
    "grad_norm": pai.grad_norm,
    "grasp": lambda model, batches: pai.grasp(model, batches, temperature=1.0),
    "grasp_abs": lambda model, batches: pai.grasp_abs(model, batches, temperature=1.0),
    "synflow": pai.synflow,
    "prospr": lambda model, batches: pai.prospr(model, batches, steps=2, **SGD),
    "prospr_first_order": lambda m, batches: pai.prospr_first_order(m, batches, steps=2, **SGD),
}

#: For each network its hidden layers: what holds their units along rows, and along columns.
HIDDEN = {
    "mlp": [(["1"], ["3"])],
    "conv": [(["0", "1"], ["3"])],
    "residual": [
        (["stem"], ["conv1", "shortcut"]),
        (["conv1", "bn1"], ["conv2"]),
        (["conv2", "bn2", "shortcut"], ["fc"]),
    ],
}


def batches() -> Batches:
    return [make_batch(seed) for seed in range(3)]


def rename(state: dict[str, Tensor], rows: list[str], columns: list[str], order: list[int]) -> dict:
    """Return the state with the units of a hidden layer in another order."""
    state = dict(state)
    for name, tensor in state.items():
        module = name.rpartition(".")[0]
        if module in rows and tensor.dim() > 0:
            tensor = tensor[order]
        if module in columns and name.endswith("weight"):
            tensor = tensor[:, order]
        state[name] = tensor
    return state


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("kind", HIDDEN)
@given(data=st.data())
@settings(max_examples=3, deadline=None)
def test_a_permutation_of_units_permutes_scores(kind: str, criterion: str, data: st.DataObject):
    model = make_network(kind)
    score = CRITERIA[criterion]
    before = dict(score(model, batches()))
    renamed = copy.deepcopy(model)
    for rows, columns in HIDDEN[kind]:
        size = len(model.get_submodule(rows[0]).weight)
        order = data.draw(st.permutations(range(size)))
        renamed.load_state_dict(rename(renamed.state_dict(), rows, columns, order))
        before = rename(before, rows, columns, order)
    outputs = [copy.deepcopy(m)(make_batch()[0]) for m in (model, renamed)]
    torch.testing.assert_close(*outputs)
    after = dict(score(renamed, batches()))
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_do_not_depend_on_the_order_of_the_images(network, criterion):
    turned = [(inputs.flip(0), targets.flip(0)) for inputs, targets in batches()]
    plain, flipped = (CRITERIA[criterion](network, given) for given in (batches(), turned))
    torch.testing.assert_close(dict(flipped), dict(plain), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_permutation_of_classes_permutes_the_last_rows(criterion):
    model, order = make_network("mlp"), [2, 0, 1]
    renamed = copy.deepcopy(model)
    renamed.load_state_dict(rename(model.state_dict(), ["3"], [], order))
    place = torch.tensor([order.index(c) for c in range(CLASSES)])
    relabelled = [(inputs, place[targets]) for inputs, targets in batches()]
    before = rename(dict(CRITERIA[criterion](model, batches())), ["3"], [], order)
    after = CRITERIA[criterion](renamed, relabelled)
    torch.testing.assert_close(dict(after), before, rtol=1e-9, atol=1e-13)


def relu_network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(32, 6, bias=False), nn.ReLU(), nn.Linear(6, CLASSES, bias=False)]
        return nn.Sequential(nn.Flatten(), *layers).double()


def ratio(first: pai.Scores, second: pai.Scores) -> float:
    """Return how far apart two scores are, relative to the first."""
    return float((first.flat() - second.flat()).norm() / first.flat().norm())


SCALED = {
    "snip": True,
    "synflow": True,
    "magnitude": False,
    "grad_norm": False,
    "grasp": False,
    "prospr": False,
}


@pytest.mark.parametrize(("criterion", "same"), SCALED.items())
@given(factor=st.floats(1.5, 20))
@settings(max_examples=5, deadline=None)
def test_scaling_one_layer_up_and_the_next_down(criterion: str, same: bool, factor: float):
    """With ReLU the function stays. What is invariant cannot prefer a layer for its scale."""
    model, scaled = relu_network(), relu_network()
    scaled[1].weight.data *= factor
    scaled[3].weight.data /= factor
    torch.testing.assert_close(scaled(make_batch()[0]), model(make_batch()[0]))
    found = ratio(*(CRITERIA[criterion](m, batches()) for m in (model, scaled)))
    assert (found < 1e-9) if same else (found > 1e-2)


@pytest.mark.parametrize("criterion", sorted(set(SCALED) - {"synflow"}))
def test_scaling_a_layer_before_batchnorm(criterion: str):
    """BatchNorm takes the scale out again. (To SynFlow it is the identity.)"""
    model = make_network("conv")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-30
    scaled = copy.deepcopy(model)
    for parameter in scaled[0].parameters():
        parameter.data *= 3
    torch.testing.assert_close(scaled(make_batch()[0]), model(make_batch()[0]))
    found = ratio(*(CRITERIA[criterion](m, batches()) for m in (model, scaled)))
    assert (found < 1e-9) if SCALED[criterion] else (found > 1e-2)


@pytest.mark.parametrize("criterion", ["snip", "grad_norm", "grasp", "grasp_abs"])
def test_a_batch_that_comes_twice_counts_as_one(network, criterion):
    once = CRITERIA[criterion](network, [make_batch()])
    twice = CRITERIA[criterion](network, [make_batch(), make_batch()])
    torch.testing.assert_close(dict(twice), dict(once), rtol=1e-9, atol=1e-13)


def test_prospr_consumes_batches_in_order(network):
    forward, backward = (
        pai.prospr(network, b, steps=2, **SGD) for b in (batches(), batches()[::-1])
    )
    assert ratio(forward, backward) > 1e-2
