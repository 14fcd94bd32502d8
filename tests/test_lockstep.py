"""Networks in lockstep, and groups of them: each run against fit. CUDA graphs where there is a GPU.

All but the capture of the graph runs on a CPU too.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import make_data, make_network, same_weights, unchanged, weights
from torch import nn

import pai_lite as pai
from pai_lite.groups import (
    draws_random_numbers,
    fit_in_groups,
    fit_together,
    group_size,
    in_groups,
    step_bytes,
)
from pai_lite.lockstep import Lockstep, rates_from, restored
from pai_lite.trainer import Trainer

QUICK = pai.Recipe(epochs=3, batch_size=6, lr=0.05, weight_decay=1e-2, augment=True)
RECIPES = {
    "cosine": QUICK,
    "nesterov, step": replace(QUICK, nesterov=True, schedule="step"),
    "one-cycle": replace(QUICK, momentum=0.5, schedule="one-cycle"),
    "no momentum": replace(QUICK, momentum=0.0, schedule="constant", augment=False),
    "whole batches": replace(QUICK, batch_size=5),
    "one batch": replace(QUICK, batch_size=50),
}
SEEDS = (3, 3, 0, 11)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def noise() -> pai.Data:
    """20 images: with six a batch the last one of an epoch has two."""
    return make_data((2, 4, 4), 3)


def make_networks(kind: str = "residual") -> list[nn.Module]:
    return [make_network(kind, seed) for seed in range(len(SEEDS))]


def make_masks(models: Sequence[nn.Module]) -> list[pai.Mask | None]:
    """Leave the first network dense; the others are ever sparser."""
    pruned = [pai.keep_top(pai.random(m, seed=i), 0.2 * i) for i, m in enumerate(models)]
    return [None, *pruned[1:]]


def make_trainers(data: pai.Data, recipe: pai.Recipe, **options) -> list[Trainer]:
    models = make_networks()
    masks = make_masks(models)
    return [
        Trainer(model, data, recipe, mask, seed, **options)
        for model, mask, seed in zip(models, masks, SEEDS, strict=True)
    ]


def alone(data: pai.Data, recipe: pai.Recipe, **options) -> list[pai.Run]:
    """Return the runs of fit."""
    models = make_networks()
    return [
        pai.fit(model, data, recipe, mask=mask, seed=seed, progress=False, **options)
        for model, mask, seed in zip(models, make_masks(models), SEEDS, strict=True)
    ]


def assert_same(run: pai.Run, expected: pai.Run) -> None:
    """Check that weights, buffers and history are equal bit for bit."""
    assert same_weights(weights(run.model), weights(expected.model))
    pd.testing.assert_frame_equal(run.history, expected.history, check_exact=True)
    assert not any(module.training for module in run.model.modules())
    assert run.seconds > 0


# Lockstep on any device


@pytest.mark.parametrize("name", RECIPES)
def test_networks_in_lockstep_are_those_of_fit(noise, name):
    recipe = RECIPES[name]
    found = fit_together(make_trainers(noise, recipe))
    for run, expected in zip(found, alone(noise, recipe), strict=True):
        assert_same(run, expected)
    assert not same_weights(weights(found[0].model), weights(found[1].model))


@pytest.mark.parametrize("steps", [2, 3, 4, 6, 8])
def test_stop_at_ends_within_an_epoch(noise, steps):
    """An epoch has three batches of six images and one of two."""
    found = fit_together(make_trainers(noise, QUICK, stop_at=steps))
    for run, expected in zip(found, alone(noise, QUICK, stop_at=steps), strict=True):
        assert_same(run, expected)


def test_mixed_precision_in_lockstep_is_that_of_fit(noise):
    def trainer(model: nn.Module) -> Trainer:
        return Trainer(model, noise, QUICK, precision="bfloat16")

    models = [make_network("conv", seed).float() for seed in (0, 1)]
    for model, run in zip(models, fit_together([trainer(m) for m in models]), strict=True):
        assert_same(run, pai.fit(model, noise, QUICK, precision="bfloat16", progress=False))


def test_a_network_that_diverges_does_not_disturb_the_others(noise):
    trainers = make_trainers(noise, QUICK)
    with torch.no_grad():
        next(trainers[1].model.parameters()).fill_(float("nan"))
    found, expected = fit_together(trainers), alone(noise, QUICK)
    assert found[1].history["train_loss"].isna().all()
    for number in (0, 2, 3):
        assert_same(found[number], expected[number])


def test_removed_weights_stay_zero(noise):
    trainers = make_trainers(noise, QUICK)
    for trainer, run in zip(trainers, fit_together(trainers), strict=True):
        for name, kept in (trainer.mask or {}).items():
            assert not run.model.get_parameter(name)[~kept].any()


# What a capture needs


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_warm_up_leaves_the_networks_as_they_were(noise, precision):
    models = [make_network("mlp", seed).float() for seed in (0, 1)]
    trainers = [Trainer(model, noise, QUICK, precision=precision) for model in models]
    lockstep = Lockstep(trainers)
    before = [copy.deepcopy(trainer.tensors()) for trainer in trainers]
    addresses = [[t.data_ptr() for t in trainer.tensors()] for trainer in trainers]
    with restored(trainers):
        for stretch in lockstep.stretches:
            stretch.warm_up()
        assert not torch.equal(trainers[0].tensors()[0], before[0][0])
    for trainer, tensors, places in zip(trainers, before, addresses, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(trainer.tensors(), tensors, strict=True))
        assert [t.data_ptr() for t in trainer.tensors()] == places, "a graph holds the addresses"
        assert trainer.step == 0
        if precision == "float16":
            scale = trainer.scaler.state_dict()
            assert (scale["scale"], scale["_growth_tracker"]) == (65536, 0)
    while not lockstep.done:
        lockstep.train_epoch()
    expected = pai.fit(models[1], noise, QUICK, precision=precision, progress=False)
    assert same_weights(weights(trainers[1].trained()), weights(expected.model))


def test_a_fused_step_reads_its_rate_from_the_tensor(noise):
    trainer, plain = (
        Trainer(make_network("mlp").float(), noise, QUICK, precision=precision)
        for precision in ("float16", "float32")
    )
    before, batch, lr = weights(trainer.model), next(trainer.minibatches()), torch.zeros(())
    with rates_from(lr, [trainer]):
        trainer.update(*batch)
        assert same_weights(weights(trainer.model), before), "at rate 0"
        lr.fill_(0.5)
        trainer.update(*batch)
    assert not same_weights(weights(trainer.model), before)
    assert trainer.optimizer.param_groups[0]["lr"] == plain.optimizer.param_groups[0]["lr"] == 0.05


def test_the_seconds_of_a_group_are_shared_out(noise, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("pai_lite.lockstep.time.perf_counter", lambda: next(clock))
    found = fit_together(make_trainers(noise, QUICK))
    assert [run.seconds for run in found] == [3 / 4] * 4


# Groups


class Memory:
    """Holds so many items, and remembers the groups that it was asked for."""

    def __init__(self, most: int) -> None:
        self.most, self.asked = most, []

    def __call__(self, group: Sequence[int]) -> list[int]:
        self.asked.append(list(group))
        if len(group) > self.most:
            raise torch.OutOfMemoryError("no memory")
        return [10 * item for item in group]


def test_a_group_that_runs_out_of_memory_is_halved_and_goes_on():
    memory = Memory(most=3)
    found = list(in_groups(memory, list(range(8)), 7))
    assert found == [(item, 10 * item) for item in range(8)]
    assert [len(group) for group in memory.asked] == [7, 3, 3, 2]
    assert [group[0] for group in memory.asked] == [0, 0, 3, 6]


def test_results_come_as_soon_as_their_group_is_done():
    memory = Memory(most=9)
    found = in_groups(memory, [1, 2, 3], 2)
    assert next(found) == (1, 10)
    assert memory.asked == [[1, 2]]


def test_too_little_memory_for_one_network_is_an_error():
    memory = Memory(most=0)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        list(in_groups(memory, [1, 2, 3, 4], 4))
    assert [len(group) for group in memory.asked] == [4, 2, 1]


def test_other_errors_are_raised_at_once():
    def fails(group: Sequence[int]) -> list[int]:
        raise RuntimeError(f"group of {len(group)}")

    with pytest.raises(RuntimeError, match="group of 3"):
        list(in_groups(fails, [1, 2, 3], 3))


def test_groups_are_as_large_as_the_memory():
    assert group_size(100, 10) == 8, "a fifth is left free"
    assert group_size(100, 1000) == 1
    assert group_size(10**12, 1) == 32
    assert group_size(100, 0) == 32


def test_groups_of_networks_are_those_of_fit(noise):
    trainers = make_trainers(noise, QUICK)
    found = list(fit_in_groups(range(4), lambda number: trainers[number], size=3))
    assert [number for number, _ in found] == [0, 1, 2, 3]
    for (_, run), expected in zip(found, alone(noise, QUICK), strict=True):
        assert_same(run, expected)


def test_networks_that_draw_random_numbers_are_found(noise):
    plain = make_network("conv")
    dropout = nn.Sequential(plain, nn.Dropout(0.1))
    for model, draws in ((plain, False), (dropout, True)):
        with unchanged(model.eval()):
            assert draws_random_numbers(model, noise) == draws


# On a GPU


def close(run: pai.Run, expected: pai.Run, rtol: float) -> None:
    state = weights(expected.model)
    for name, tensor in weights(run.model).items():
        torch.testing.assert_close(tensor.cpu(), state[name].cpu(), rtol=rtol, atol=rtol)
    losses, wanted = (r.history["train_loss"].tolist() for r in (run, expected))
    assert losses == pytest.approx(wanted, rel=10 * rtol)


@needs_gpu
@pytest.mark.parametrize("name", RECIPES)
def test_the_graph_gives_the_weights_of_the_cpu(noise, name):
    data, models = noise.to("cuda"), [model.cuda() for model in make_networks()]
    options = {"masks": make_masks(make_networks()), "seeds": SEEDS, "progress": False}
    found = pai.fit_many(models, data, RECIPES[name], **options)
    # The graph reads its learning rate in float32.
    for run, expected in zip(found, alone(noise, RECIPES[name]), strict=True):
        close(run, expected, rtol=1e-5)


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_graph_gives_the_weights_of_fit_on_the_gpu(digits, precision):
    data, recipe = digits.to("cuda"), pai.Recipe(epochs=3, lr=0.05)
    models = [pai.build_model("small-conv", data, seed=seed) for seed in range(4)]
    found = pai.fit_many(models, data, recipe, precision=precision, progress=False)
    for model, run in zip(models, found, strict=True):
        expected = pai.fit(model, data, recipe, precision=precision, progress=False)
        assert run.test_accuracy == pytest.approx(expected.test_accuracy, abs=0.03)
        assert run.test_accuracy > 0.9


@needs_gpu
def test_groups_on_a_gpu_are_halved_where_memory_runs_out():
    data, recipe = make_data((3, 32, 32), 10, (512, 0, 10)).to("cuda"), pai.Recipe(epochs=1)
    models = [pai.build_model("resnet20", data, seed=seed) for seed in range(8)]
    asked: list[int] = []

    def train(group: Sequence[nn.Module]) -> list[pai.Run]:
        asked.append(len(group))
        return fit_together([Trainer(model, data, recipe) for model in group])

    (_, expected), *_ = in_groups(train, models[:1], 1)
    need, (_, total) = step_bytes(Trainer(models[0], data, recipe)), torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(5 * need / total)
    try:
        found = list(in_groups(train, models, 8))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert asked[:3] == [1, 8, 4]
    assert len(found) == 8
    assert found[0][1].history["train_loss"][0] == pytest.approx(expected.history["train_loss"][0])


@needs_gpu
def test_networks_with_dropout_are_trained_one_after_another(noise):
    data = noise.to("cuda")
    models = [nn.Sequential(m.float(), nn.Dropout(0.1)).cuda() for m in make_networks()[:2]]
    found = pai.fit_many(models, data, QUICK, progress=False)
    for model, run in zip(models, found, strict=True):
        close(run, pai.fit(model, data, QUICK, progress=False), rtol=1e-4)
