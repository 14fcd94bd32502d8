"""Training: steps against a loop by hand, reproducibility, resuming, and the sweep."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import full_disk, make_data, rng_state, same_weights, unchanged, weights
from torch import Tensor, nn
from torch.func import functional_call

import pai_lite as pai

QUICK = pai.Recipe(epochs=4, batch_size=16, lr=0.1, weight_decay=1e-2)
STEPS = 16  # of QUICK on noise(): four epochs of four batches


@pytest.fixture(scope="module")
def noise() -> pai.Data:
    """64 training images of noise."""
    return make_data((1, 8, 8), 10, sizes=(64, 20, 20))


@pytest.fixture
def model(noise) -> nn.Module:
    return pai.build_model("small-conv", noise)


@pytest.fixture
def dropout_model(model) -> nn.Module:
    return nn.Sequential(*list(model)[:-1], nn.Dropout(0.5), model[-1])


def fit(model: nn.Module, data: pai.Data, recipe: pai.Recipe = QUICK, **options) -> pai.Run:
    return pai.fit(model, data, recipe, progress=False, **options)


def half(model: nn.Module) -> pai.Mask:
    return pai.keep_top(pai.random(model), 0.5)


def watch(model: nn.Module, stop_at: int | None = None) -> list[tuple[dict[str, Tensor], Tensor]]:
    """Record the weights and inputs before every training step; interrupt before one of them."""
    seen: list[tuple[dict[str, Tensor], Tensor]] = []

    def record(module: nn.Module, args: tuple[Tensor]) -> None:
        if module.training:
            if len(seen) == stop_at:
                raise KeyboardInterrupt
            seen.append((weights(module), args[0].clone()))

    model.register_forward_pre_hook(record)
    return seen


# Steps against stochastic gradient descent written by hand


class InFloat64(nn.Module):
    """A smooth network that computes in float64 on float32 images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())


def rates(recipe: pai.Recipe, steps: int) -> list[float]:
    """Return the learning rate of every step, from the formulas."""
    if recipe.schedule == "constant":
        return [recipe.lr] * steps
    if recipe.schedule == "cosine":
        return [recipe.lr * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)]
    if recipe.schedule == "one-cycle":
        return [recipe.lr * one_cycle(t, steps) for t in range(steps)]
    passed = [sum(t >= m * steps for m in recipe.milestones) for t in range(steps)]
    return [recipe.lr * recipe.gamma**count for count in passed]


def one_cycle(t: int, steps: int) -> float:
    """Return the share of the highest rate: half a cosine up, and half a cosine down."""
    peak = 0.3 * steps - 1
    if t <= peak:
        low, passed = 1 / 25, t / peak
    else:
        low, passed = 1 / 250_000, (steps - 1 - t) / (steps - 1 - peak)
    return low + (1 - low) * (1 - math.cos(math.pi * passed)) / 2


def by_hand(model: nn.Module, data: pai.Data, recipe: pai.Recipe, lrs: list[float], mask=None):
    """Train on the whole training split at once: momentum, weight decay, then the mask."""
    inputs, targets = data.normalize(data.train.images), data.train.labels
    keep = {name: tensor.double() for name, tensor in (mask or {}).items()}
    w = {n: p.detach() * keep.get(n, 1.0) for n, p in model.named_parameters()}
    average: dict[str, Tensor] = {}
    for lr in lrs:
        leaves = {n: p.clone().requires_grad_() for n, p in w.items()}
        loss = nn.functional.cross_entropy(functional_call(model, leaves, inputs), targets)
        grads = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        for n in w:
            g = grads[n] + recipe.weight_decay * w[n]
            average[n] = g if n not in average else recipe.momentum * average[n] + g
            step = g + recipe.momentum * average[n] if recipe.nesterov else average[n]
            w[n] = (w[n] - lr * step) * keep.get(n, 1.0)
    return w


RECIPES = {
    "plain": pai.Recipe(momentum=0.0, weight_decay=0.0, schedule="constant"),
    "momentum": pai.Recipe(momentum=0.9, weight_decay=0.0, schedule="constant"),
    "decay": pai.Recipe(momentum=0.0, weight_decay=0.1, schedule="constant"),
    "both": pai.Recipe(momentum=0.9, weight_decay=0.1, schedule="constant"),
    "nesterov": pai.Recipe(momentum=0.9, nesterov=True, weight_decay=0.1, schedule="constant"),
    "cosine": pai.Recipe(momentum=0.5, weight_decay=0.01, schedule="cosine"),
    "step": pai.Recipe(momentum=0.5, weight_decay=0.01, schedule="step"),
    "one-cycle": pai.Recipe(momentum=0.5, weight_decay=0.01, schedule="one-cycle"),
    "three milestones": pai.Recipe(schedule="step", milestones=(0.25, 0.5, 0.75), gamma=0.3),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", RECIPES)
def test_steps_are_those_of_a_loop_by_hand(kind, masked):
    data = make_data((1, 3, 3), 3, sizes=(12, 6, 6))
    recipe = replace(RECIPES[kind], epochs=8, batch_size=12, lr=0.2)
    model = InFloat64()
    mask = half(model) if masked else None
    for steps in (1, 4, 8):
        expected = by_hand(model, data, recipe, rates(recipe, 8)[:steps], mask)
        trained = weights(fit(model, data, recipe, mask=mask, stop_at=steps).model)
        for name in expected:
            torch.testing.assert_close(trained[name], expected[name], rtol=1e-10, atol=1e-13)
    assert not torch.allclose(trained[name], model.get_parameter(name))


def test_learning_rates_by_schedule():
    """With one full batch a step, no momentum and no decay, a step is lr times the gradient."""
    data = make_data((1, 3, 3), 3, sizes=(12, 6, 6))
    for schedule in ("constant", "cosine", "step", "one-cycle"):
        recipe = pai.Recipe(
            epochs=4, batch_size=12, lr=0.2, momentum=0.0, weight_decay=0.0, schedule=schedule
        )
        model = InFloat64()
        seen = watch(model)
        run = fit(model, data, recipe)
        states = [state["net.3.bias"] for state, _ in seen] + [weights(run.model)["net.3.bias"]]
        found = []
        for t in range(4):
            unit_step = by_hand(_with(model, seen[t][0]), data, recipe, [1.0])["net.3.bias"]
            gradient = states[t] - unit_step
            found.append(((states[t] - states[t + 1]).norm() / gradient.norm()).item())
        assert found == pytest.approx(rates(recipe, 4), rel=1e-9), schedule


def _with(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    twin = InFloat64()
    twin.load_state_dict(state)
    return twin


def test_the_loss_of_the_first_step_is_that_of_the_masked_network():
    data = make_data((1, 3, 3), 3, sizes=(12, 6, 6))
    model = InFloat64()
    mask = half(model)
    run = fit(model, data, pai.Recipe(epochs=1, batch_size=12), mask=mask)
    mask.apply_(model)
    loss = nn.functional.cross_entropy(model(data.normalize(data.train.images)), data.train.labels)
    assert run.history["train_loss"][0] == pytest.approx(loss.item(), rel=1e-6)


def test_every_epoch_shows_every_image_once_in_another_order(noise, model):
    seen = watch(model)
    fit(model, noise)
    assert len(seen) == STEPS
    images = noise.normalize(noise.train.images).flatten(1)
    orders = []
    for epoch in range(4):
        shown = torch.cat([inputs for _, inputs in seen[4 * epoch : 4 * epoch + 4]]).flatten(1)
        orders.append(torch.cdist(shown.double(), images.double()).argmin(1).tolist())
        assert sorted(orders[-1]) == list(range(64))
        assert torch.allclose(shown, images[orders[-1]])
    assert len({tuple(order) for order in orders}) == 4


def test_augmentation_shifts_by_up_to_four_pixels_and_flips(noise, model):
    seen = watch(model)
    fit(model, noise, replace(QUICK, epochs=1, augment=True))
    shown = torch.cat([inputs for _, inputs in seen]).flatten(1)
    images = noise.train.images
    padded = [
        noise.normalize(nn.functional.pad(images, (4, 4, 4, 4))),
        nn.functional.pad(noise.normalize(images), (4, 4, 4, 4)),
    ]
    places = [(i, j) for i in range(9) for j in range(9)]
    variants, shifts, flips = [], [], []
    for whole in padded:
        for i, j in places:
            window = whole[:, :, i : i + 8, j : j + 8]
            for flip, image in enumerate((window, window.flip(3))):
                variants.append(image.flatten(1))
                shifts += [(i, j)] * len(images)
                flips += [flip] * len(images)
    distance, index = torch.cdist(shown, torch.cat(variants)).min(1)
    assert (distance < 1e-2).all()
    assert len({shifts[i] for i in index.tolist()}) > 20
    assert {flips[i] for i in index.tolist()} == {0, 1}


# Removed weights


def test_trap_removed_weights_stay_zero_after_the_last_step(noise, model):
    """prospr, open_lth and GraSP leave removed weights non-zero after `step()`."""
    mask = pai.keep_top(pai.magnitude(model), 0.8)
    seen = watch(model)
    run = fit(model, noise, mask=mask)
    states = [state for state, _ in seen] + [weights(run.model)]
    assert len(states) == STEPS + 1
    for step, state in enumerate(states):
        for name in mask:
            assert not state[name][~mask[name]].any(), f"{name} before step {step}"
    for name in mask:
        assert (states[-1][name][mask[name]] != states[0][name][mask[name]]).all(), name


def test_trap_weights_masked_before_the_forward_pass_only_come_back(noise, model):
    """The last step moves removed weights too, and nothing sets them to zero again."""
    mask = pai.keep_top(pai.magnitude(model), 0.8)
    found = pai.prunable_parameters(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mask.apply_(model)
    inputs, targets = noise.batch(per_class=2)
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    alive = sum(int((w[~mask[name]] != 0).sum()) for name, w in found.items())
    assert alive > 0.5 * (mask.size - mask.kept)


def test_all_that_is_not_masked_is_trained(noise, model):
    before, after = weights(model), weights(fit(model, noise, mask=half(model)).model)
    assert before.keys() == after.keys(), "no hooks, no extra names"
    for name in before:
        assert not torch.equal(before[name], after[name]), name
    assert after["1.num_batches_tracked"] == STEPS


def test_a_dense_mask_changes_nothing(noise, model):
    dense = fit(model, noise, mask=pai.Mask.dense(model))
    assert same_weights(weights(dense.model), weights(fit(model, noise).model))


def test_a_mask_that_does_not_fit_is_refused(noise, model):
    name = next(iter(pai.prunable_parameters(model)))
    mask = pai.Mask({**pai.Mask.dense(model), name: torch.ones(2, 2) > 0})
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        fit(model, noise, mask=mask)


def test_trap_deepcopy_after_torch_prune_in_fit(noise, model):
    half(model).attach(model)
    with pytest.raises(ValueError, match=r"prune\.remove"):
        fit(model, noise)


# Reproducibility


@pytest.mark.parametrize("augment", [False, True])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(noise, dropout_model, augment):
    recipe = replace(QUICK, augment=augment)
    mask = half(dropout_model)
    torch.manual_seed(1)
    first = fit(dropout_model, noise, recipe, mask=mask, seed=3)
    torch.manual_seed(2)
    second = fit(dropout_model, noise, recipe, mask=mask, seed=3)
    assert same_weights(weights(first.model), weights(second.model))
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)
    other = fit(dropout_model, noise, recipe, mask=mask, seed=4)
    assert not same_weights(weights(first.model), weights(other.model))
    default = fit(dropout_model, noise, recipe)
    zero = fit(dropout_model, noise, recipe, seed=0)
    assert same_weights(weights(default.model), weights(zero.model))


def test_the_seed_decides_dropout_too(noise, dropout_model):
    """With one full batch the order does not matter beyond rounding; dropout does."""
    recipe = replace(QUICK, epochs=1, batch_size=64)
    first, second = (weights(fit(dropout_model, noise, recipe, seed=s).model) for s in (0, 1))
    assert not torch.allclose(first["12.weight"], second["12.weight"], atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_fit_leaves_the_model_and_the_generators_as_found(noise, dropout_model, training):
    dropout_model.train(training)
    for parameter in dropout_model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with unchanged(dropout_model):
        run = fit(dropout_model, noise, replace(QUICK, augment=True), mask=half(dropout_model))
    assert run.model is not dropout_model


def test_a_model_in_eval_mode_is_trained_all_the_same(noise, dropout_model):
    first = fit(dropout_model.train(), noise)
    second = fit(dropout_model.eval(), noise)
    assert same_weights(weights(first.model), weights(second.model))


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 15, 16])
def test_stop_at_gives_the_weights_after_that_many_steps(noise, dropout_model, steps):
    mask = half(dropout_model)
    whole = copy.deepcopy(dropout_model)
    seen = watch(whole)
    run = fit(whole, noise, mask=mask)
    states = [state for state, _ in seen] + [weights(run.model)]
    stopped = fit(dropout_model, noise, mask=mask, stop_at=steps)
    assert same_weights(weights(stopped.model), states[steps])


@pytest.mark.parametrize("steps", [-1, STEPS + 1])
def test_stop_at_beyond_the_recipe_is_refused(noise, model, steps):
    with pytest.raises(ValueError, match="stop_at"):
        fit(model, noise, stop_at=steps)


# Checkpoints


def interrupted(model: nn.Module, data: pai.Data, step: int, **options) -> None:
    """Run a copy of the model up to an interruption before that step."""
    twin = copy.deepcopy(model)
    watch(twin, stop_at=step)
    with pytest.raises(KeyboardInterrupt):
        fit(twin, data, **options)


@pytest.mark.parametrize("step", [2, 4, 8, 11, 15])
def test_an_interrupted_run_resumes_to_the_same_weights(noise, dropout_model, tmp_path, step):
    recipe = replace(QUICK, augment=True)
    options = {"recipe": recipe, "mask": half(dropout_model), "seed": 5}
    whole = fit(dropout_model, noise, **options)
    path = tmp_path / "run.pt"
    interrupted(dropout_model, noise, step, checkpoint=path, **options)
    torch.manual_seed(77)
    seen = watch(dropout_model)
    with unchanged(dropout_model):
        resumed = fit(dropout_model, noise, checkpoint=path, **options)
    assert len(seen) == STEPS - step // 4 * 4, "whole epochs are not trained twice"
    assert same_weights(weights(whole.model), weights(resumed.model))
    pd.testing.assert_frame_equal(whole.history, resumed.history, check_exact=True)
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("schedule", ["cosine", "step", "one-cycle"])
def test_the_schedule_of_a_resumed_run_goes_on_where_it_was(noise, model, tmp_path, schedule):
    recipe, path = replace(QUICK, schedule=schedule), tmp_path / "run"
    interrupted(model, noise, 6, recipe=recipe, checkpoint=path)
    resumed = fit(model, noise, recipe, checkpoint=path)
    assert resumed.history["lr"].tolist() == pytest.approx(rates(recipe, STEPS)[3::4], rel=1e-9)


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 10])
def test_one_cycle_has_a_rate_for_every_step_of_a_short_recipe(epochs):
    data = make_data((1, 3, 3), 3, sizes=(12, 6, 6))
    recipe = pai.Recipe(epochs=epochs, batch_size=12, lr=0.2, schedule="one-cycle")
    lrs = fit(InFloat64(), data, recipe).history["lr"].tolist()
    assert lrs == pytest.approx(rates(recipe, epochs), rel=1e-9)


def test_a_run_interrupted_twice_resumes_to_the_same_weights(noise, dropout_model, tmp_path):
    whole = fit(dropout_model, noise)
    interrupted(dropout_model, noise, 6, checkpoint=tmp_path / "run")
    interrupted(dropout_model, noise, 5, checkpoint=str(tmp_path / "run"))
    resumed = fit(dropout_model, noise, checkpoint=tmp_path / "run")
    assert same_weights(weights(whole.model), weights(resumed.model))


def test_a_finished_run_is_read_and_not_trained_again(noise, model, tmp_path):
    first = fit(model, noise, checkpoint=tmp_path / "run")
    seen = watch(model)
    second = fit(model, noise, checkpoint=tmp_path / "run")
    assert seen == []
    assert same_weights(weights(first.model), weights(second.model))
    pd.testing.assert_frame_equal(first.history, second.history, check_exact=True)


@pytest.mark.parametrize(
    "change", ["seed", "recipe", "epochs", "mask", "weights", "labels", "images", "test"]
)
def test_the_checkpoint_of_another_run_is_refused(noise, model, tmp_path, change):
    path = tmp_path / "run.pt"
    arguments = {"model": model, "data": noise, "recipe": QUICK, "mask": half(model), "seed": 0}
    fit(**arguments, checkpoint=path)
    content = path.read_bytes()
    flipped, inverted = noise.train.labels.flip(0), 255 - noise.train.images
    other = {
        "seed": lambda: {"seed": 1},
        "recipe": lambda: {"recipe": replace(QUICK, lr=0.05)},
        "epochs": lambda: {"recipe": replace(QUICK, epochs=5)},
        "mask": lambda: {"mask": pai.shuffle(half(model))},
        "weights": lambda: {"model": pai.build_model("small-conv", noise, seed=1)},
        "labels": lambda: {"data": replace(noise, train=replace(noise.train, labels=flipped))},
        "images": lambda: {"data": replace(noise, train=replace(noise.train, images=inverted))},
        # The same weights come out, but the reported accuracies would be those of other images.
        "test": lambda: {"data": make_data((1, 8, 8), 10, sizes=(64, 20, 21))},
    }[change]()
    with pytest.raises(ValueError, match=r"run\.pt"):
        fit(**{**arguments, **other}, checkpoint=path)
    assert path.read_bytes() == content


class Attack:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["truncated", "empty", "garbage", "foreign", "tensor", "attack"])
def test_a_damaged_checkpoint_is_refused_with_the_remedy(noise, model, tmp_path, how):
    path, trace = tmp_path / "run.pt", tmp_path / "trace"
    fit(model, noise, checkpoint=path)
    content = path.read_bytes()
    if how == "foreign":
        torch.save({"some": torch.ones(3)}, path)
    elif how == "tensor":
        torch.save(torch.ones(3), path)
    elif how == "attack":
        torch.save({"model": Attack(trace)}, path)
    else:
        path.write_bytes(
            {
                "truncated": content[: len(content) // 2],
                "empty": b"",
                "garbage": b"no checkpoint",
            }[how]
        )
    with pytest.raises(ValueError, match=r"(?i)(delete|remove|another)") as caught:
        fit(model, noise, checkpoint=path)
    assert "run.pt" in str(caught.value)
    assert not trace.exists()


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(noise, tmp_path):
    model = pai.build_model("lenet-300-100", noise)
    path = tmp_path / "run"
    whole = fit(model, noise)
    interrupted(model, noise, 6, checkpoint=path)
    content = path.read_bytes()
    with full_disk(len(content) // 2), pytest.raises((OSError, RuntimeError)):
        fit(model, noise, checkpoint=path)
    assert [p.name for p in tmp_path.iterdir()] == ["run"], "nothing half-written"
    assert path.read_bytes() == content
    resumed = fit(model, noise, checkpoint=path)
    assert same_weights(weights(whole.model), weights(resumed.model))


# What a run reports


def test_fit_learns_the_digits(digits):
    model = pai.build_model("small-conv", digits)
    mask = pai.prune(model, "snip", digits.batch(), sparsity=0.7)
    for kept in (None, mask):
        run = fit(model, digits, pai.Recipe(epochs=4, batch_size=64), mask=kept)
        assert run.test_accuracy > 0.9
        assert pai.accuracy(model, digits) < 0.3


def test_a_run_reports_one_row_an_epoch(noise, model):
    run = fit(model, noise)
    columns = {"epoch", "lr", "train_loss", "validation_accuracy", "test_accuracy"}
    assert columns <= set(run.history.columns)
    assert run.history["epoch"].tolist() == [1, 2, 3, 4]
    assert np.isfinite(run.history["train_loss"]).all()
    assert run.test_accuracy == run.history["test_accuracy"].iloc[-1]
    assert run.test_accuracy == pai.accuracy(run.model, noise)
    assert run.history["validation_accuracy"].iloc[-1] == pai.accuracy(
        run.model, noise, "validation"
    )
    assert run.seconds > 0
    assert not run.model.training
    constant = fit(model, noise, replace(QUICK, schedule="constant")).history["lr"]
    assert constant.tolist() == [0.1] * 4
    assert run.history["lr"].is_monotonic_decreasing


def test_the_best_test_accuracy_is_chosen_on_the_validation_split():
    history = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "lr": 0.1,
            "train_loss": 1.0,
            "validation_accuracy": [0.5, 0.8, 0.7],
            "test_accuracy": [0.9, 0.6, 0.65],
        }
    )
    run = pai.Run(model=nn.Linear(1, 1), history=history, seconds=1.0)
    assert run.best_test_accuracy == 0.6
    assert run.test_accuracy == 0.65


class Constant(nn.Module):
    """Always answers the same class; BatchNorm and dropout make its mode matter."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer
        self.fc, self.bn, self.dropout = nn.Linear(64, 10), nn.BatchNorm1d(10), nn.Dropout(0.9)

    def forward(self, x: Tensor) -> Tensor:
        noise = self.dropout(self.bn(self.fc(x.flatten(1))))
        wanted = nn.functional.one_hot(torch.full((len(x),), self.answer), 10)
        return 1e-3 * noise + wanted


def test_accuracy_by_hand(noise):
    model = Constant(3)
    with unchanged(model):
        for split in ("train", "validation", "test"):
            labels = getattr(noise, split).labels
            expected = (labels == 3).double().mean().item()
            assert pai.accuracy(model, noise, split) == pytest.approx(expected)


def test_an_unknown_split_lists_the_known(noise, model):
    with pytest.raises(ValueError, match=r"train.*validation.*test"):
        pai.accuracy(model, noise, "tset")


def test_the_progress_bar_can_be_switched_off(noise, model, capsys, monkeypatch):
    fit(model, noise)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    pai.fit(model, noise, QUICK)
    assert capsys.readouterr() == ("", "")
    monkeypatch.delenv("TQDM_DISABLE")
    pai.fit(model, noise, QUICK)
    assert "".join(capsys.readouterr()) != ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -0.1},
        {"schedule": "cosin"},
    ],
)
def test_a_recipe_that_trains_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", ".")):
        pai.Recipe(**wrong)


def test_data_that_does_not_fit_the_model_is_refused(noise, model):
    for data in (make_data((3, 8, 8), 10), make_data((1, 8, 8), 12)):
        with pytest.raises(ValueError, match=r"(?i)class|shape|image|channel|output"):
            fit(model, data)


def test_data_on_another_device_than_the_model_is_refused(noise, model):
    with pytest.raises(ValueError, match=r"model is on meta, the data on cpu.*to\('meta'\)"):
        fit(model.to("meta"), noise)


def test_the_best_test_accuracy_needs_a_validation_split(model):
    run = fit(model, make_data((1, 8, 8), 10, sizes=(20, 0, 10)))
    with pytest.raises(ValueError, match=r"validation split is empty.*validation=0\.1"):
        _ = run.best_test_accuracy


def test_the_setting_of_a_machine_without_gpu():
    setting = pai.setting()
    expected = ("cuda", "cifar10", "resnet20") if torch.cuda.is_available() else None
    expected = expected or ("cpu", "digits", "small-conv")
    assert (setting.device, setting.data, setting.model) == expected
    assert isinstance(setting.recipe, pai.Recipe)
    assert len(set(setting.seeds)) == len(setting.seeds)
    assert len(setting.seeds) >= (1 if setting.device == "cuda" else 3)


def test_a_setting_without_gpu_says_how_to_get_one():
    here = replace(pai.setting(), device="cpu")
    assert str(here).startswith(f"The training cells use {here.data} and {here.model} on the CPU.")
    assert "T4 GPU" in str(here)
    assert "T4 GPU" not in str(replace(here, device="cuda"))


# The sweep


@pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")
def test_a_sweep_compares_runs_of_one_seed_on_equal_terms(noise):
    methods, sparsities, seeds = ["dense", "random", "magnitude", "snip"], [0.0, 0.5], [0, 1]
    before = rng_state()
    frame = pai.sweep(
        noise, "small-conv", methods, sparsities, seeds=seeds, recipe=QUICK, per_class=2
    )
    assert rng_state() == before
    assert len(frame) == 2 * (1 + 3 * 2), "dense runs once a seed"
    assert not frame.duplicated(["method", "sparsity", "seed"]).any()
    assert frame["reached"].tolist() == pytest.approx(frame["sparsity"].tolist(), abs=1e-4)
    for seed in seeds:
        # At sparsity 0 every method trains the same weights in the same order.
        rows = frame[(frame["seed"] == seed) & (frame["sparsity"] == 0)]
        model = pai.build_model("small-conv", noise, seed=seed)
        expected = fit(model, noise, seed=seed).test_accuracy
        assert rows["test_accuracy"].tolist() == [expected] * 4
        pruned = frame.query("method == 'magnitude' and sparsity == 0.5 and seed == @seed")
        mask = pai.prune(model, "magnitude", sparsity=0.5)
        expected = fit(model, noise, mask=mask, seed=seed).test_accuracy
        assert pruned["test_accuracy"].tolist() == [expected]


def test_a_sweep_with_an_unknown_method_is_refused_before_it_trains(noise):
    with pytest.raises(ValueError, match="snpi"):
        pai.sweep(
            noise, "small-conv", ["dense", "snpi"], [0.5], seeds=[0], recipe=pai.Recipe(epochs=9999)
        )
