"""How a network computes in training: the loader, the layout of images, and mixed precision."""

import copy
import shutil
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import make_data, make_network, same_weights, unchanged, weights
from torch import Tensor, nn

import pai_lite as pai
from pai_lite.precision import PRECISIONS, choose_format, fast_dtype
from pai_lite.recipes import crop, draw_crops
from pai_lite.trainer import Trainer

QUICK = pai.Recipe(epochs=3, batch_size=6, lr=0.05, augment=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def noise() -> pai.Data:
    """20 images of the shape that the networks of conftest take: the last batch is smaller."""
    return make_data((2, 4, 4), 3)


def fit(model: nn.Module, data: pai.Data, recipe: pai.Recipe = QUICK, **options) -> pai.Run:
    return pai.fit(model, data, recipe, progress=False, **options)


# The loader


def test_crops_are_windows_of_the_padded_images():
    images = torch.randint(0, 256, (40, 3, 6, 5), dtype=torch.uint8)
    drawn = draw_crops(40, torch.Generator().manual_seed(1))
    assert drawn[:2].unique().tolist() == list(range(9))
    assert drawn[2].unique().tolist() == [0, 1]
    for image, (row, column, flip), found in zip(images, drawn.T, crop(images, drawn), strict=True):
        window = F.pad(image, (4, 4, 4, 4))[:, row : row + 6, column : column + 5]
        assert torch.equal(found, window.flip(2) if flip else window)


def test_a_seed_draws_what_it_always_did(noise):
    """Order, then for every batch its shifts and flips: to draw otherwise would change all runs."""
    drawn = list(Trainer(make_network("conv"), noise, QUICK, seed=7).draw())
    generator = torch.Generator().manual_seed(7)
    order = torch.randperm(20, generator=generator)
    for batch, numbers in zip(drawn, order.split(6), strict=True):
        shifts = torch.randint(0, 9, (2, len(numbers), 1), generator=generator)
        flips = torch.rand(len(numbers), 1, generator=generator) < 0.5
        assert torch.equal(batch, torch.stack([numbers, *shifts[..., 0], flips[:, 0].long()]))


def test_inputs_are_normalized_to_the_bit(noise):
    inputs, targets = Trainer(make_network("mlp").float(), noise, pai.Recipe()).make_batch(
        torch.tensor([[5, 3]])
    )
    mean, std = noise.mean[:, None, None], noise.std[:, None, None]
    assert torch.equal(inputs, (noise.train.images[[5, 3]].float() / 255 - mean) / std)
    assert torch.equal(targets, noise.train.labels[[5, 3]])


# The layout of images


def layouts(model: nn.Module) -> list[bool]:
    """Record for every input whether its channels lie last."""
    seen: list[bool] = []
    model.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    return seen


@pytest.mark.parametrize(("kind", "last"), [("mlp", False), ("conv", True), ("residual", True)])
def test_channels_lie_last_in_networks_with_convolutions(noise, kind, last):
    model = make_network(kind)
    form = choose_format(model, noise, "float32")
    assert (form.layout == torch.channels_last) == last
    seen = layouts(model)
    run = fit(model, noise, replace(QUICK, epochs=1))
    assert set(seen[-6:]) == {last}, "four steps and two evaluations"
    assert all(tensor.is_contiguous() for tensor in run.model.state_dict().values())


@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_the_layout_does_not_change_the_result(noise, kind):
    model = make_network(kind)
    mask = pai.keep_top(pai.random(model), 0.5)
    inputs = make_network(kind)
    inputs.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),))
    first, second = (weights(fit(m, noise, mask=mask).model) for m in (model, inputs))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-8, atol=1e-10)


class Viewing(nn.Module):
    """Takes a view of activations, which fails where their channels lie last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(2, 3, 3), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).view(len(x), -1))


def test_a_network_that_takes_views_is_trained_all_the_same(noise):
    torch.manual_seed(0)
    model = Viewing()
    with pytest.raises(RuntimeError, match="view"):
        model(torch.ones(2, 2, 4, 4).to(memory_format=torch.channels_last))
    with unchanged(model):
        run = fit(model, noise)
    assert run.test_accuracy == pai.accuracy(run.model, noise)


# Mixed precision


def dtypes(model: nn.Module) -> dict[bool, list[torch.dtype]]:
    """Record the dtypes of the first layer's outputs, in train mode and in eval mode."""
    seen: dict[bool, list[torch.dtype]] = {True: [], False: []}
    model[0].register_forward_hook(lambda m, _, output: seen[m.training].append(output.dtype))
    return seen


def test_bfloat16_trains_the_digits_and_keeps_float32_weights(digits):
    model = pai.build_model("small-conv", digits)
    seen = dtypes(model)
    run = fit(model, digits, pai.Recipe(epochs=4, batch_size=64), precision="bfloat16")
    assert run.test_accuracy > 0.9
    assert set(seen[True]) == {torch.bfloat16}
    assert seen[False][-8:] == [torch.bfloat16] * 8, "evaluated in the same precision"
    plain = fit(pai.build_model("small-conv", digits), digits, pai.Recipe(epochs=4, batch_size=64))
    assert run.test_accuracy == pytest.approx(plain.test_accuracy, abs=0.03)
    state = weights(run.model)
    assert {t.dtype for t in state.values()} == {torch.float32, torch.int64}
    assert not same_weights(state, weights(plain.model))


@pytest.mark.parametrize("precision", ["auto", "bfloat16", "float16"])
def test_a_float64_network_computes_in_float64(noise, precision):
    model = make_network("conv")
    expected = fit(model, noise)
    found = fit(model, noise, precision=precision)
    assert same_weights(weights(found.model), weights(expected.model))


def test_auto_is_float32_on_a_cpu_and_float32_is_the_default(noise):
    model = make_network("conv").float()
    runs = [fit(model, noise, **options) for options in ({}, {"precision": "auto"})]
    assert same_weights(weights(runs[0].model), weights(runs[1].model))
    assert [fast_dtype(name, CPU, torch.float32) for name in PRECISIONS] == [
        None,
        None,
        torch.bfloat16,
        torch.float16,
    ]


def test_an_unknown_precision_lists_the_known(noise):
    with pytest.raises(ValueError, match=r"float23.*float32.*auto.*bfloat16.*float16"):
        fit(make_network("mlp"), noise, precision="float23")


def test_float16_scales_the_loss_and_leaves_out_a_step_that_overflows(noise):
    trainer = Trainer(make_network("mlp").float(), noise, QUICK, precision="float16")
    inputs, targets = next(trainer.minibatches())
    before = weights(trainer.model)
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 1e30})
    loss = trainer.update(inputs, targets)
    assert same_weights(weights(trainer.model), before), "infinite gradients are left out"
    assert trainer.scaler.get_scale() == pytest.approx(5e29)
    assert not any(s["momentum_buffer"].any() for s in trainer.optimizer.state.values())
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 1024.0})
    assert torch.equal(trainer.update(inputs, targets), loss)
    plain = Trainer(make_network("mlp").float(), noise, QUICK)
    plain.update(inputs, targets)
    for name, tensor in weights(plain.model).items():
        torch.testing.assert_close(trainer.model.state_dict()[name], tensor, rtol=0, atol=1e-3)
        assert not torch.equal(tensor, before[name])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_mixed_precision_resumes_to_the_same_weights(noise, tmp_path, precision):
    model, path = make_network("mlp").float(), tmp_path / "run"
    whole = fit(model, noise, precision=precision)
    stopped, seen = copy.deepcopy(model), []

    def stop(module: nn.Module, _: object) -> None:
        seen.append(module.training)
        if seen.count(True) == 6:
            raise KeyboardInterrupt

    stopped.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, noise, precision=precision, checkpoint=path)
    resumed = fit(model, noise, precision=precision, checkpoint=path)
    assert same_weights(weights(whole.model), weights(resumed.model))
    pd.testing.assert_frame_equal(whole.history, resumed.history, check_exact=True)


def test_a_checkpoint_holds_the_scale_of_the_loss(noise, tmp_path):
    first, second = (
        Trainer(make_network("mlp").float(), noise, QUICK, precision="float16") for _ in range(2)
    )
    first.train_epoch()
    first.scaler.update(8.0)
    first.save(tmp_path / "run", "owner")
    second.restore(tmp_path / "run", "owner")
    assert second.scaler.state_dict() == first.scaler.state_dict()
    assert second.scaler.get_scale() == 8.0


def test_the_checkpoint_of_another_precision_is_refused(noise, tmp_path):
    model = make_network("mlp").float()
    fit(model, noise, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="precision differ"):
        fit(model, noise, checkpoint=tmp_path / "run", precision="bfloat16")
    fit(model, noise, checkpoint=tmp_path / "run", precision="auto")  # the same on a CPU


@pytest.mark.skipif(
    shutil.which("g++") is None or sys.platform != "linux", reason="needs a compiler"
)
def test_a_compiled_network_is_trained_to_the_same_weights():
    data = make_data((1, 3, 3), 3, sizes=(12, 6, 6))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).double()
    recipe = pai.Recipe(epochs=3, batch_size=12)
    expected, found = (fit(model, data, recipe, compile=c) for c in (False, True))
    assert type(found.model) is nn.Sequential
    for name, tensor in weights(expected.model).items():
        torch.testing.assert_close(found.model.state_dict()[name], tensor, rtol=1e-9, atol=1e-12)
