"""Training many networks at once: each run against fit, and what happens when one fails."""

import time
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import pytest
import torch
from conftest import make_data, same_weights, unchanged, weights
from torch import nn

import pai_lite as pai
from pai_lite.ensemble import fit_each, fit_many

QUICK = pai.Recipe(epochs=2, batch_size=32, weight_decay=1e-2, augment=True)
COUNT = 4


@pytest.fixture(scope="module")
def few(digits: pai.Data) -> pai.Data:
    """Some of the digits."""
    splits = {name: getattr(digits, name) for name in ("train", "validation", "test")}
    cut = {n: pai.Split(s.images[:200], s.labels[:200]) for n, s in splits.items()}
    return replace(digits, **cut)


def with_dropout(model: nn.Module) -> nn.Module:
    return nn.Sequential(*list(model)[:-1], nn.Dropout(0.3), model[-1])


def make_models(name: str, data: pai.Data, dtype: torch.dtype) -> list[nn.Module]:
    built = (pai.build_model(name, data, seed=seed) for seed in range(COUNT))
    return [with_dropout(model).to(dtype) for model in built]


def make_masks(models: Sequence[nn.Module]) -> list[pai.Mask | None]:
    """Leave the first network dense; the others are ever sparser."""
    pruned = [pai.keep_top(pai.random(m, seed=i), 0.1 * i) for i, m in enumerate(models)]
    return [None, *pruned[1:]]


def assert_same(run: pai.Run, expected: pai.Run) -> None:
    """Check that weights, buffers and history are equal bit for bit."""
    assert same_weights(weights(run.model), weights(expected.model))
    pd.testing.assert_frame_equal(run.history, expected.history, check_exact=True)
    assert not any(module.training for module in run.model.modules())
    assert type(run.model) is type(expected.model)
    assert run.seconds > 0


@pytest.fixture(scope="module")
def runs(few: pai.Data) -> list[tuple[pai.Run, pai.Run]]:
    """Pairs of runs, together in two processes and one by one: two architectures and dtypes."""
    models = make_models("small-conv", few, torch.float64)
    models += make_models("lenet-300-100", few, torch.float32)
    masks, seeds = make_masks(models), [3, 3, 0, 11, 3, 3, 0, 11]
    images = few.train.images.clone()
    options = {"masks": masks, "seeds": seeds, "workers": 2, "progress": False}
    with unchanged(models[0]), unchanged(models[5]):
        together = fit_many(models, few, QUICK, **options)
    assert torch.equal(images, few.train.images)
    assert not few.train.images.is_shared()
    alone = [
        pai.fit(model, few, QUICK, mask=mask, seed=seed, progress=False)
        for model, mask, seed in zip(models, masks, seeds, strict=True)
    ]
    return list(zip(together, alone, strict=True))


@pytest.mark.parametrize("number", range(2 * COUNT))
def test_networks_in_two_processes_are_those_of_fit_bit_for_bit(runs, number):
    assert_same(*runs[number])


def test_the_networks_differ_so_that_no_two_could_be_exchanged(runs):
    states = [weights(alone.model) for _, alone in runs]
    for i, state in enumerate(states):
        assert not any(same_weights(state, other) for other in states[:i])


@pytest.mark.parametrize(
    ("name", "dtype"), [("small-conv", torch.float32), ("lenet-300-100", torch.float64)]
)
def test_networks_in_this_process_are_those_of_fit_bit_for_bit(few, name, dtype):
    models = make_models(name, few, dtype)[:3]
    masks = make_masks(models)
    found = fit_many(models, few, QUICK, masks=masks, seeds=[1, 0, 2], workers=1, progress=False)
    for model, mask, seed, run in zip(models, masks, [1, 0, 2], found, strict=True):
        assert_same(run, pai.fit(model, few, QUICK, mask=mask, seed=seed, progress=False))


def test_masks_and_seeds_are_by_default_those_of_fit(few):
    models = make_models("small-conv", few, torch.float32)[:2]
    found = fit_many(models, few, QUICK, workers=1, progress=False)
    for model, run in zip(models, found, strict=True):
        assert_same(run, pai.fit(model, few, QUICK, progress=False))


class Waits(nn.Module):
    """Waits in train mode."""

    def __init__(self, model: nn.Module, seconds: float) -> None:
        super().__init__()
        self.model, self.seconds = model, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(self.seconds)
        return self.model(x)


def test_networks_are_yielded_with_their_numbers_when_they_are_done(few):
    """The first network is slow, and is not waited for."""
    models = make_models("small-conv", few, torch.float32)[:3]
    models[0] = Waits(models[0], 5.0)
    recipe = replace(QUICK, epochs=1, batch_size=200)
    found = dict(fit_each(models, few, recipe, workers=2))
    assert list(found) == [1, 2, 0]
    assert_same(found[2], pai.fit(models[2], few, recipe, progress=False))


def test_no_networks_give_no_runs(few):
    assert fit_many([], few, QUICK, progress=False) == []


# What fails


@pytest.mark.parametrize("what", ["masks", "seeds"])
@pytest.mark.parametrize("count", [1, 3])
def test_masks_and_seeds_must_be_as_many_as_networks(few, what, count):
    models = make_models("small-conv", few, torch.float32)[:2]
    with pytest.raises(ValueError, match=f"2 models and {count} {what}"):
        fit_many(models, few, QUICK, **{what: [None] * count}, progress=False)


class Counted(nn.Module):
    """Counts the passes in train mode."""

    passes = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Counted.passes += self.training
        return self.model(x)


@pytest.mark.parametrize("what", ["mask", "model"])
def test_what_does_not_fit_is_found_before_any_training(few, what):
    models = [Counted(model) for model in make_models("small-conv", few, torch.float32)[:3]]
    masks = [None, None, None]
    if what == "mask":
        dense = pai.Mask.dense(models[2])
        masks[2] = pai.Mask({**dense, next(iter(dense)): torch.ones(2, 2) > 0})
    else:
        models[2] = pai.build_model("lenet-300-100", make_data((1, 5, 5), 10))
    with pytest.raises(ValueError, match="shape") as caught:
        fit_each(models, few, QUICK, masks=masks, workers=1)
    assert "number 2" in caught.value.__notes__[-1]
    assert Counted.passes == 0


class Fails(nn.Module):
    """Fails in train mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise ArithmeticError("no training today")
        return self.model(x)


def test_a_network_that_fails_raises_with_its_number(few):
    models = make_models("small-conv", few, torch.float32)[:3]
    models[2] = Fails(models[2])
    with pytest.raises(ArithmeticError, match="no training today") as caught:
        fit_many(models, few, QUICK, workers=1, progress=False)
    assert "number 2" in caught.value.__notes__[-1]


def test_a_network_that_fails_in_a_process_raises_with_its_number(few):
    model = make_models("small-conv", few, torch.float32)[0]
    with pytest.raises(ArithmeticError) as caught:
        fit_many([model, Fails(model), model], few, QUICK, workers=2, progress=False)
    assert "number 1" in caught.value.__notes__[-1]


def test_a_network_that_diverges_does_not_disturb_the_others(few):
    models = make_models("small-conv", few, torch.float32)[:2]
    with torch.no_grad():
        models[0][0].weight.fill_(float("nan"))
    found = fit_many(models, few, QUICK, workers=2, progress=False)
    assert not torch.isfinite(next(found[0].model.parameters())).all()
    assert_same(found[1], pai.fit(models[1], few, QUICK, progress=False))


def test_progress_counts_networks(few, capfd, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    models = make_models("small-conv", few, torch.float32)[:2]
    fit_many(models, few, replace(QUICK, epochs=1), workers=1)
    shown = capfd.readouterr().err
    assert "2/2" in shown
    assert "network" in shown
    fit_many(models, few, replace(QUICK, epochs=1), workers=1, progress=False)
    assert capfd.readouterr().err == ""
