"""Criteria against oracles in float64, and what they leave behind."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from conftest import (
    INPUT_SHAPE,
    NETWORKS,
    make_batch,
    make_data,
    make_network,
    rng_state,
    unchanged,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

import pai_lite as pai

Batch = tuple[Tensor, Tensor]


def loss_of(model: nn.Module, batches: list[Batch]) -> Tensor:
    """Return the cross-entropy, averaged over the batches."""
    losses = [nn.functional.cross_entropy(model(inputs), targets) for inputs, targets in batches]
    return torch.stack(losses).mean()


@torch.no_grad()
def derivative_in_mask(
    model: nn.Module, batches: list[Batch], *, train: bool, step: float = 1e-4
) -> dict[str, Tensor]:
    """Differentiate the loss of w * c in each entry of c at 1, by central differences."""
    model = copy.deepcopy(model).train(train)
    derivatives = {}
    for name, parameter in pai.prunable_parameters(model).items():
        weight = parameter.view(-1)
        derivative = torch.zeros_like(weight)
        for i, value in enumerate(weight.tolist()):
            weight[i] = value * (1 + step)
            above = loss_of(model, batches)
            weight[i] = value * (1 - step)
            below = loss_of(model, batches)
            weight[i] = value
            derivative[i] = (above - below) / (2 * step)
        derivatives[name] = derivative.view_as(parameter)
    return derivatives


def gradients(model: nn.Module, batches: list[Batch], *, train: bool = True) -> dict[str, Tensor]:
    """Return the gradient of the averaged loss, by plain autograd on a copy."""
    model = copy.deepcopy(model).train(train)
    found = pai.prunable_parameters(model)
    grads = torch.autograd.grad(loss_of(model, batches), list(found.values()))
    return dict(zip(found, grads, strict=True))


def assert_scores(scores: pai.Scores, expected: dict[str, Tensor], rtol: float = 1e-10) -> None:
    assert list(scores) == list(expected)
    for name in expected:
        torch.testing.assert_close(
            scores[name], expected[name], rtol=rtol, atol=1e-11, msg=lambda m, name=name: name + m
        )


# SNIP


@pytest.mark.parametrize("entry_mode", [True, False])
@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_claim_snip_product(network, batchnorm, entry_mode):
    """The derivative in a multiplicative mask at 1 is weight times gradient (mark B.2)."""
    network.train(entry_mode)
    batch = make_batch()
    scores = pai.snip(network, batch, batchnorm=batchnorm)
    expected = derivative_in_mask(network, [batch], train=batchnorm == "train")
    assert_scores(scores, {name: d.abs() for name, d in expected.items()}, rtol=1e-6)
    signed = [d.min() < 0 for d in expected.values()]
    assert all(signed), "every layer has a negative product, so that the absolute value counts"


def test_batchnorm_modes_give_other_scores_only_with_batchnorm():
    batch = make_batch()
    for kind in NETWORKS:
        model = make_network(kind)
        train, evaluation = (
            pai.snip(model, batch, batchnorm=mode).flat() for mode in ("train", "eval")
        )
        assert torch.allclose(train, evaluation) == (kind == "mlp")
        assert torch.equal(pai.snip(model, batch).flat(), train), "train is the default"


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_snip_of_several_batches_averages_gradients_not_scores(network, batchnorm):
    # One label a batch, so that the gradients pull against each other.
    batches = [(make_batch(label)[0], torch.full((8,), label)) for label in range(3)]
    weights = pai.prunable_parameters(network)
    grads = gradients(network, batches, train=batchnorm == "train")
    expected = {name: (weights[name] * grads[name]).abs().detach() for name in grads}
    scores = pai.snip(network, batches, batchnorm=batchnorm)
    assert_scores(scores, expected)

    singles = [pai.snip(network, batch, batchnorm=batchnorm).flat() for batch in batches]
    mean_of_scores = torch.stack(singles).mean(0)
    assert (scores.flat() <= mean_of_scores + 1e-12).all(), "the triangle inequality"
    assert scores.flat().sum() < 0.9 * mean_of_scores.sum()


def test_snip_of_opposite_gradients_is_zero():
    """Equal logits and one image under both labels: the two gradients cancel."""
    model = nn.Linear(1, 2, bias=False).double()
    model.weight.data.fill_(0.7)
    image = torch.full((1, 1), 2.0, dtype=torch.float64)
    batches = [(image, torch.tensor([0])), (image, torch.tensor([1]))]
    # One batch: p = 1/2, so |w g| = 0.7 * 2 * 1/2.
    assert_scores(
        pai.snip(model, batches[0]), {"weight": torch.full((2, 1), 0.7, dtype=torch.float64)}
    )
    assert_scores(pai.snip(model, batches), {"weight": torch.zeros(2, 1, dtype=torch.float64)})


def test_each_batch_counts_the_same_whatever_its_size(network):
    batches = [make_batch(0, size=4), make_batch(1, size=12)]
    weights = pai.prunable_parameters(network)
    grads = gradients(network, batches)
    expected = {name: (weights[name] * grads[name]).abs().detach() for name in grads}
    assert_scores(pai.snip(network, batches), expected)


def test_batches_come_in_any_iterable(network):
    batches = [make_batch(seed) for seed in range(2)]
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = pai.snip(network, batches).flat()
    forms = {
        "tuple": tuple(batches),
        "generator": (batch for batch in batches),
        "lists": [list(batch) for batch in batches],
        "loader": DataLoader(list(zip(inputs, targets, strict=True)), batch_size=8),
    }
    for form, given in forms.items():
        torch.testing.assert_close(pai.snip(network, given).flat(), expected, msg=form)
    single = pai.snip(network, batches[0]).flat()
    assert torch.equal(pai.snip(network, list(batches[0])).flat(), single)
    assert torch.equal(pai.snip(network, [batches[0]]).flat(), single)


@pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")
def test_claim_snip_topk():
    """Of all masks with k weights, the k largest |w g| keep the most sensitivity (force eq. 3)."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    batch = torch.randn(6, 3, dtype=torch.float64), torch.arange(6) % 2
    scores = pai.snip(model, batch)
    sensitivity = torch.cat(
        [d.flatten() for d in derivative_in_mask(model, [batch], train=True).values()]
    ).abs()
    n = len(sensitivity)
    assert n == 10
    masks = torch.tensor(list(itertools.product([False, True], repeat=n)))
    sums = masks.double() @ sensitivity
    for k in range(1, n + 1):
        mask = pai.keep_top(scores, 1 - k / n)
        chosen = torch.cat([tensor.flatten() for tensor in mask.values()])
        candidates = masks[masks.sum(1) == k]
        winner = candidates[sums[masks.sum(1) == k].argmax()]
        assert torch.equal(chosen, winner), k


def test_snip_scores_are_at_least_zero_and_not_all_the_same(network):
    flat = pai.snip(network, make_batch()).flat()
    assert (flat >= 0).all()
    assert flat.std() > 0


def test_snip_knows_no_order_within_a_batch(network):
    inputs, targets = make_batch()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        pai.snip(network, (inputs[order], targets[order])).flat(),
        pai.snip(network, (inputs, targets)).flat(),
    )


def test_trap_naver_force_takes_the_nll_of_raw_logits(network):
    batch = make_batch()
    model = copy.deepcopy(network).train()
    found = pai.prunable_parameters(model)
    nll = nn.functional.nll_loss(model(batch[0]), batch[1])
    products = [
        (w * g).abs().flatten()
        for w, g in zip(found.values(), torch.autograd.grad(nll, list(found.values())), strict=True)
    ]
    assert not torch.allclose(pai.snip(network, batch).flat(), torch.cat(products), rtol=0.1)


def test_trap_eval_mode_changes_snip_mask():
    """Synaptic-Flow scores in eval mode: at initialization the masks hardly overlap."""
    data = make_data((3, 16, 16), 10, sizes=(100, 0, 0))
    model = pai.build_model("resnet20", data)
    batch = data.batch(per_class=4)
    train, evaluation = (
        pai.prune(model, "snip", batch, sparsity=0.95, batchnorm=mode) for mode in ("train", "eval")
    )
    assert train.kept == evaluation.kept
    assert train.overlap(evaluation) < 0.5


# The gradient's norm


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_grad_norm_is_the_squared_gradient(network, batchnorm):
    batches = [make_batch(seed) for seed in range(2)]
    grads = gradients(network, batches, train=batchnorm == "train")
    expected = {name: gradient**2 for name, gradient in grads.items()}
    assert_scores(pai.grad_norm(network, batches, batchnorm=batchnorm), expected)


# Magnitude and random


def test_magnitude_is_the_absolute_value(network):
    expected = {name: p.detach().abs() for name, p in pai.prunable_parameters(network).items()}
    scores = pai.magnitude(network)
    assert_scores(scores, expected, rtol=0)
    assert not any(score.requires_grad for score in scores.values())


def test_scores_share_no_memory_with_the_model(network):
    for score in (pai.magnitude(network), pai.snip(network, make_batch())):
        with unchanged(network):
            for tensor in score.values():
                tensor.zero_()


def layer_densities(model: nn.Module, method: str, sparsity: float):
    return pai.prune(model, method, sparsity=sparsity).layer_density()


def test_claim_mark_variance():
    """With every layer at variance 1 magnitude is random; with Kaiming's it is not (mark 5)."""
    data = make_data((1, 12, 12), 10)
    for name in ("lenet-300-100", "resnet20"):
        model = pai.build_model(name, data)
        sizes = pai.Mask.dense(model).layer_counts()
        kaiming = layer_densities(model, "magnitude", 0.9)
        # Kaiming's standard deviations differ, so the thin layers keep several times as much.
        assert kaiming.max() > 4 * kaiming.min()
        generator = torch.Generator().manual_seed(0)
        for weight in pai.prunable_parameters(model).values():
            weight.data.normal_(0, 1, generator=generator)
        equal = layer_densities(model, "magnitude", 0.9)
        noise = layer_densities(model, "random", 0.9)
        for layer, size in sizes.items():
            deviation = 4.5 * (0.9 * 0.1 / size) ** 0.5
            assert abs(equal[layer] - 0.1) < deviation, layer
            assert abs(noise[layer] - 0.1) < deviation, layer
            if size > 1000:
                assert abs(kaiming[layer] - 0.1) > deviation, layer


def test_random_is_uniform_noise_drawn_from_its_seed(network):
    model = nn.Linear(200, 200)
    scores = pai.random(model).flat()
    assert 0 <= scores.min() < 0.01
    assert 0.99 < scores.max() <= 1
    assert abs(scores.double().mean() - 0.5) < 5 / (12 * 40_000) ** 0.5

    torch.manual_seed(5)
    first = pai.random(network, seed=1).flat()
    torch.manual_seed(6)
    assert torch.equal(first, pai.random(network, seed=1).flat())
    assert not torch.equal(first, pai.random(network, seed=2).flat())
    assert not torch.equal(pai.random(network).flat(), pai.random(network, seed=1).flat())
    assert torch.equal(pai.random(network).flat(), pai.random(network, seed=0).flat())


def test_random_noise_is_the_same_in_every_precision():
    model = nn.Linear(20, 20)
    single, double = pai.random(model).flat(), pai.random(model.double()).flat()
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert torch.equal(single, double.float())
    assert not torch.equal(single.double(), double), "drawn in double precision"


def test_random_layers_of_one_shape_get_other_noise():
    model = nn.Sequential(nn.Linear(9, 9), nn.Linear(9, 9))
    first, second = pai.random(model).values()
    assert not torch.equal(first, second)


# Criteria leave the model as they found it

CRITERIA: dict[str, Callable[[nn.Module, Batch], object]] = {
    "random": lambda model, batch: pai.random(model, batch),
    "magnitude": lambda model, batch: pai.magnitude(model, batch),
    "snip-train": lambda model, batch: pai.snip(model, batch, batchnorm="train"),
    "snip-eval": lambda model, batch: pai.snip(model, batch, batchnorm="eval"),
    **{
        f"prune-{method}": lambda model, batch, method=method: pai.prune(
            model, method, [batch] * 4, sparsity=0.3
        )
        for method, preset in pai.METHODS.items()
        if preset.prune_at == 0
    },
}


def set_modes(model: nn.Module, mode: str) -> None:
    model.train(mode == "train")
    if mode == "mixed":
        for i, module in enumerate(model.modules()):
            module.training = i % 2 == 0


@pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")
@pytest.mark.parametrize("mode", ["train", "eval", "mixed"])
@pytest.mark.parametrize("grads", ["none", "preset"])
@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_leave_the_model_as_found(network, name, grads, mode):
    set_modes(network, mode)
    if grads == "preset":
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, 7.0)
    first = next(network.parameters())
    first.requires_grad_(False)  # one frozen parameter, the others not
    with unchanged(network):
        CRITERIA[name](network, make_batch())


@pytest.mark.parametrize("broken", ["nan", "labels", "raises"])
def test_a_criterion_that_fails_leaves_the_model_as_found_too(broken):
    model = make_network("conv")
    set_modes(model, "mixed")
    inputs, targets = make_batch()

    def batches():
        yield inputs, targets
        if broken == "raises":
            raise OSError
        yield (inputs * float("nan"), targets) if broken == "nan" else (inputs, targets + 9)

    with unchanged(model), pytest.raises((ValueError, OSError)):
        pai.snip(model, batches())


def test_snip_of_a_frozen_model(network):
    expected = pai.snip(network, make_batch()).flat()
    network.requires_grad_(False)
    with unchanged(network):
        assert torch.equal(pai.snip(network, make_batch()).flat(), expected)


def test_snip_without_gradient_mode(network):
    expected = pai.snip(network, make_batch()).flat()
    with torch.no_grad(), unchanged(network):
        scores = pai.snip(network, make_batch())
    assert torch.equal(scores.flat(), expected)
    assert not any(score.requires_grad for score in scores.values())


class WithUnused(nn.Module):
    """A network with a layer that its output does not depend on."""

    def __init__(self, used: nn.Module) -> None:
        super().__init__()
        self.used, self.unused = used, nn.Linear(2, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("criterion", [pai.snip, pai.grad_norm, pai.grasp])
def test_a_layer_that_is_not_in_use_scores_zero(criterion):
    used, batches = make_network("conv"), [make_batch(seed) for seed in range(2)]
    scores = dict(criterion(WithUnused(used), batches))
    assert not scores.pop("unused.weight").any()
    assert torch.equal(pai.Scores(scores).flat(), criterion(used, batches).flat())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batchnorm", ["train", "eval"])
def test_snip_switches_dropout_off(batchnorm, training):
    plain = make_network("conv").train(training)
    dropped = nn.Sequential(*plain[:3], nn.Dropout(0.5), *plain[3:]).train(training)
    expected = pai.snip(plain, make_batch(), batchnorm=batchnorm).flat()
    for seed in range(2):
        torch.manual_seed(seed)
        with unchanged(dropped):
            scores = pai.snip(dropped, make_batch(), batchnorm=batchnorm)
        assert torch.equal(scores.flat(), expected)


def test_random_draws_nothing_from_the_global_generators():
    before = rng_state()
    pai.random(nn.Conv2d(*INPUT_SHAPE[:2], 3), seed=3)
    # Building the layer above drew from torch's generator; the rest must not have moved.
    assert rng_state()[1:] == before[1:]
