"""ProsPr's meta-gradient against explicit Jacobians, real training, and its own two forms.

Two oracles, which share no code with the package or with each other: the product of the transposed
Jacobians of every step of SGD, written out as matrices, and central differences in the mask through
training with torch.optim.SGD.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from conftest import make_batch, make_network, unchanged
from torch import Tensor, nn
from torch.func import functional_call

import pai_lite as pai
from pai_lite.meta_gradients import first_order_gradient, meta_gradient, unrolled_meta_gradient

pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")

KINDS = ["mlp", "conv", "residual"]
OPTIONS: dict[str, dict] = {
    "plain": {"lr": 0.5},
    "decay": {"lr": 0.5, "weight_decay": 0.2},
    "momentum": {"lr": 0.3, "momentum": 0.9},
    "dampening": {"lr": 0.3, "momentum": 0.9, "dampening": 0.4},
    "dampening without momentum": {"lr": 0.5, "dampening": 0.4},
    "nesterov": {"lr": 0.3, "momentum": 0.9, "nesterov": True},
    "all but nesterov": {"lr": 0.3, "momentum": 0.8, "dampening": 0.4, "weight_decay": 0.2},
    "all but dampening": {"lr": 0.3, "momentum": 0.8, "nesterov": True, "weight_decay": 0.2},
}
REFERENCE = {"lr": 0.5, "momentum": 0.9}  # what the reference's README recommends

Batch = tuple[Tensor, Tensor]


def some_batches(count: int) -> list[Batch]:
    return [make_batch(seed) for seed in range(count)]


def some_mask(model: nn.Module) -> pai.Mask:
    """Remove half of the weights."""
    return pai.keep_top(pai.random(model, seed=3), 0.5)


def flat(tensors: pai.Scores | dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors.values()])


def initial(model: nn.Module) -> Tensor:
    return flat(pai.prunable_parameters(model))


def assert_close(found: Tensor, expected: Tensor, rtol: float) -> None:
    """Compare relative to the largest entry."""
    assert (found - expected).abs().max() <= rtol * expected.abs().max()


class Unrolled:
    """SGD written as a map of one vector of all parameters and one of momentum, with its Jacobians.

    Attributes:
        moves: 1 where training moves a parameter, 0 at removed weights.
        prunable: marks the prunable weights in the vector of all parameters.
    """

    def __init__(
        self, model: nn.Module, mask: pai.Mask | None = None, batchnorm: str = "train"
    ) -> None:
        self.model = copy.deepcopy(model).train(batchnorm == "train")
        self.shapes = {n: p.shape for n, p in model.named_parameters()}
        weights = pai.prunable_parameters(model)
        self.prunable = flat({n: torch.full(s, n in weights) for n, s in self.shapes.items()})
        self.moves = torch.ones(len(self.prunable), dtype=torch.float64)
        if mask is not None:
            self.moves[self.prunable] = flat(mask).double()
        self.start = self.moves * flat(dict(model.named_parameters()))

    def loss(self, w: Tensor, batch: Batch) -> Tensor:
        parts = w.split([shape.numel() for shape in self.shapes.values()])
        pairs = zip(self.shapes.items(), parts, strict=True)
        state = {name: part.view(shape) for (name, shape), part in pairs}
        state |= {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        return F.cross_entropy(functional_call(self.model, state, (batch[0],)), batch[1])

    def gradient(self, w: Tensor, batch: Batch) -> Tensor:
        return torch.func.grad(self.loss)(w, batch).detach()

    def hessian(self, w: Tensor, batch: Batch) -> Tensor:
        # Not torch.func.hessian: its forward mode is wrong where BatchNorm uses batch statistics.
        return torch.func.jacrev(torch.func.grad(self.loss))(w, batch).detach()

    def trajectory(self, batches: list[Batch], lr: float) -> list[Tensor]:
        """Return the weights before and after each step of plain SGD."""
        path = [self.start]
        for batch in batches:
            path.append(path[-1] - lr * self.moves * self.gradient(path[-1], batch))
        return path

    def jacobians(
        self, batches: list[Batch], *, lr: float, momentum=0.0, dampening=0.0, nesterov=False,
        weight_decay=0.0, detach_first=False,
    ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
        """Return the last weights, and each step's Jacobian in (weights, momentum buffer)."""
        n, found = len(self.start), []
        one, zero = torch.eye(n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
        w, u = self.start, torch.zeros_like(self.start)
        for t, batch in enumerate(batches):
            g = self.gradient(w, batch) + weight_decay * w
            dg = self.hessian(w, batch) + weight_decay * one
            if detach_first and t == 0:
                dg = zero
            # d... are the derivatives in (w, u): the buffer, the direction, the new weights.
            share = 1.0 if t == 0 else 1.0 - dampening
            carry = 0.0 if t == 0 else momentum
            u = carry * u + share * g
            du = torch.cat([share * dg, carry * one], dim=1)
            dg = torch.cat([dg, zero], dim=1)
            if momentum == 0.0:
                step, dstep = g, dg
            elif nesterov:
                step, dstep = g + momentum * u, dg + momentum * du
            else:
                step, dstep = u, du
            w = w - lr * self.moves * step
            dw = torch.cat([one, zero], dim=1) - lr * self.moves[:, None] * dstep
            found.append(torch.cat([dw, du]))
        return w, found

    def meta_gradient(self, batches: list[Batch], steps: int, **options) -> Tensor:
        """Return dL(w_M)/dw_0 at the prunable weights, by transposed Jacobians."""
        last, jacobians = self.jacobians(batches[:steps], **options)
        g = self.gradient(last, batches[steps])
        both = torch.cat([g, torch.zeros_like(g)])
        for jacobian in reversed(jacobians):
            both = jacobian.T @ both
        return both[: len(g)][self.prunable]


class Trained:
    """The loss after training a copy with torch.optim.SGD, as a function of the mask c."""

    def __init__(
        self, model: nn.Module, batches: list[Batch], steps: int, mask: pai.Mask | None = None,
        batchnorm: str = "train", **options,
    ) -> None:  # fmt: skip
        self.model = model
        self.batches, self.steps = batches, steps
        self.train = batchnorm == "train"
        self.c = flat(mask or pai.Mask.dense(model)).double()
        self.options = options

    def run(self, c: Tensor) -> tuple[nn.Module, Tensor]:
        """Train from c * w; where the mask is 0 a weight stays what it was at the start."""
        model = copy.deepcopy(self.model).train(self.train)
        weights = list(pai.prunable_parameters(model).values())
        sizes = [w.numel() for w in weights]
        for w, part in zip(weights, c.split(sizes), strict=True):
            w.data *= part.view_as(w)
        held = [w.detach().clone() for w in weights]
        gone = [part == 0 for part in self.c.split(sizes)]
        optimizer = torch.optim.SGD(model.parameters(), **self.options)
        for inputs, targets in self.batches[: self.steps]:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            for w, start, removed in zip(weights, held, gone, strict=True):
                w.data.view(-1)[removed] = start.view(-1)[removed]
        optimizer.zero_grad()
        inputs, targets = self.batches[self.steps]
        return model, F.cross_entropy(model(inputs), targets)

    def slope(self, i: int, eps: float = 1e-5) -> float:
        """Return the derivative of the outer loss in c_i, by central differences."""
        e = torch.zeros_like(self.c)
        e[i] = eps
        above, below = (self.run(self.c + sign * e)[1].detach() for sign in (1, -1))
        return float(above - below) / (2 * eps)

    def last_gradient(self) -> Tensor:
        """Return the gradient in the weights after training, at the prunable weights."""
        model, loss = self.run(self.c)
        gradients = torch.autograd.grad(loss, list(pai.prunable_parameters(model).values()))
        return torch.cat([g.flatten() for g in gradients])


# The oracles against each other


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_explicit_hessian_is_the_slope_of_the_gradient(kind, batchnorm):
    oracle, batch, eps = Unrolled(make_network(kind), batchnorm=batchnorm), make_batch(), 1e-5
    hessian = oracle.hessian(oracle.start, batch)
    for i in range(0, len(oracle.start), 23):
        e = torch.zeros_like(oracle.start)
        e[i] = eps
        above, below = (oracle.gradient(oracle.start + s * e, batch) for s in (1, -1))
        assert torch.allclose(hessian[i], (above - below) / (2 * eps), rtol=0, atol=1e-8)


def sampled(model: nn.Module, mask: pai.Mask | None) -> list[int]:
    """Return places in the vector of weights, with removed ones among them, from every layer."""
    ends = torch.tensor([w.numel() for w in pai.prunable_parameters(model).values()]).cumsum(0)
    places = [int(end) - back for end in ends for back in (1, 4)]
    if mask is not None:
        keep = flat(mask)
        places += keep.nonzero().flatten()[:2].tolist() + (~keep).nonzero().flatten()[:2].tolist()
    return places


# The meta-gradient


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_meta_gradient_is_the_product_of_transposed_jacobians(kind, options, masked):
    model, batches, options = make_network(kind), some_batches(4), OPTIONS[options]
    mask = some_mask(model) if masked else None
    oracle = Unrolled(model, mask)
    for steps in (1, 3):
        expected = oracle.meta_gradient(batches, steps, **options)
        found = meta_gradient(model, batches, steps=steps, mask=mask, **options)
        assert list(found) == list(pai.prunable_parameters(model))
        assert_close(flat(found), expected, rtol=1e-10)
        first = flat(first_order_gradient(model, batches, steps=steps, mask=mask, **options))
        assert (first - expected).abs().max() > 0.01 * expected.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_claim_prospr_chain(kind):
    """Equation 15: the last gradient times (I - lr H) of every step, times the initial weights."""
    model, batches, lr = make_network(kind), some_batches(4), 0.4
    oracle = Unrolled(model)
    path = oracle.trajectory(batches[:3], lr)
    g, identity = oracle.gradient(path[-1], batches[3]), torch.eye(len(path[0]))
    for w, batch in zip(path[-2::-1], batches[2::-1], strict=True):
        g = (identity - lr * oracle.hessian(w, batch)) @ g
    scores = pai.prospr(model, batches, steps=3, lr=lr)
    assert_close(scores.flat(), (initial(model) * g[oracle.prunable]).abs(), rtol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", ["plain", "all but nesterov", "all but dampening"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_slope_in_the_mask_of_the_loss_after_training(kind, options, masked):
    """Equation 12, at removed weights too: there c_i moves away from 0 and training keeps it."""
    model, batches, options = make_network(kind), some_batches(4), OPTIONS[options]
    mask = some_mask(model) if masked else None
    trained = Trained(model, batches, 3, mask, **options)
    signed = initial(model) * flat(meta_gradient(model, batches, steps=3, mask=mask, **options))
    scores = pai.prospr(model, batches, steps=3, mask=mask, **options).flat()
    assert torch.equal(scores, signed.abs())
    for i in [int(scores.argmax()), *sampled(model, mask)]:
        slope = pytest.approx(trained.slope(i), rel=1e-6, abs=1e-9)
        assert signed[i].item() == slope


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("entry_mode", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_batchnorm_uses_the_batch_or_the_running_statistics_as_asked(kind, entry_mode, batchnorm):
    model, batches = make_network(kind).train(entry_mode), some_batches(3)
    options = {"steps": 2, **OPTIONS["all but dampening"]}
    expected = Unrolled(model, batchnorm=batchnorm).meta_gradient(batches, **options)
    found = flat(meta_gradient(model, batches, batchnorm=batchnorm, **options))
    assert_close(found, expected, rtol=1e-10)
    if batchnorm == "train":
        assert torch.equal(flat(meta_gradient(model, batches, **options)), found), "the default"
    trained = Trained(model, batches, batchnorm=batchnorm, **options)
    first = flat(first_order_gradient(model, batches, batchnorm=batchnorm, **options))
    assert_close(first, trained.last_gradient(), rtol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_reverse_sweep_equals_the_unrolled_graph(kind, steps, masked):
    model, batches = make_network(kind), some_batches(steps + 1)
    mask = some_mask(model) if masked else None
    for batchnorm in ("train", "eval"):
        for options in OPTIONS.values():
            given = {"steps": steps, "mask": mask, "batchnorm": batchnorm, **options}
            sweep = meta_gradient(model, batches, **given)
            unrolled = unrolled_meta_gradient(model, batches, **given)
            assert list(sweep) == list(unrolled)
            assert_close(flat(sweep), flat(unrolled), rtol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_order_gradient_is_that_after_training_with_torch(kind, options, masked):
    model, batches, options = make_network(kind), some_batches(6), OPTIONS[options]
    mask = some_mask(model) if masked else None
    for steps in (1, 5):
        expected = Trained(model, batches, steps, mask, **options).last_gradient()
        found = first_order_gradient(model, batches, steps=steps, mask=mask, **options)
        assert_close(flat(found), expected, rtol=1e-10)
        scores = pai.prospr_first_order(model, batches, steps=steps, mask=mask, **options)
        assert torch.equal(scores.flat(), (initial(model) * flat(found)).abs())
        assert list(scores) == list(pai.prunable_parameters(model))


@pytest.mark.parametrize("batchnorm", ["train", "eval"])
@pytest.mark.parametrize("kind", KINDS)
def test_claim_prospr_zero(kind, batchnorm):
    model, batch = make_network(kind), make_batch()
    for mask in (None, some_mask(model)):
        expected = pai.snip(model, batch, mask=mask, batchnorm=batchnorm).flat()
        for criterion in (pai.prospr, pai.prospr_first_order):
            for batches in (batch, [batch], some_batches(3)):
                options = {"mask": mask, "batchnorm": batchnorm, **REFERENCE}
                scores = criterion(model, batches, steps=0, **options).flat()
                assert_close(scores, expected, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "weight_decay": 0.1}])
@pytest.mark.parametrize("kind", KINDS)
def test_claim_prospr_first(kind, options):
    """The two scores differ by a multiple of the learning rate, as the rate tends to 0."""
    model, batches = make_network(kind), some_batches(4)

    def difference(lr: float) -> float:
        full = pai.prospr(model, batches, steps=3, lr=lr, **options).flat()
        first = pai.prospr_first_order(model, batches, steps=3, lr=lr, **options).flat()
        return float((full - first).norm())

    assert difference(0.0) == 0.0
    assert 9 < difference(1e-4) / difference(1e-5) < 11


def test_the_meta_gradient_by_hand():
    """One weight a class, one image, p = softmax: two steps with numbers on paper."""
    model = nn.Linear(1, 2, bias=False).double()
    model.weight.data = torch.tensor([[0.3], [-0.2]], dtype=torch.float64)
    batch = torch.full((1, 1), 2.0, dtype=torch.float64), torch.tensor([0])
    # The loss depends on z = 2 (a - b): f = log(1 + exp(-z)); df/da = -df/db = -2 s, s = 1/(1+e^z).
    difference, lr, shrink = 0.5, 0.1, 1.0
    for _ in range(2):
        s = 1 / (1 + torch.exp(torch.tensor(2 * difference, dtype=torch.float64)))
        shrink *= 1 - lr * 8 * s * (1 - s)  # a - b grows by 4 lr s, whose slope is -8 lr s (1-s)
        difference = float(difference + lr * 4 * s)
    s = 1 / (1 + torch.exp(torch.tensor(2 * difference, dtype=torch.float64)))
    expected = -2 * float(s) * float(shrink)
    found = meta_gradient(model, [batch] * 3, steps=2, lr=lr)["weight"].flatten().tolist()
    assert found == pytest.approx([expected, -expected], rel=1e-12)


# What a criterion leaves behind

FUNCTIONS: dict[str, Callable] = {
    "prospr": pai.prospr,
    "first order": pai.prospr_first_order,
    "sweep": meta_gradient,
    "unrolled": unrolled_meta_gradient,
}


@pytest.mark.parametrize("training", [True, False, None])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_found(kind, name, training):
    model = make_network(kind)
    for i, module in enumerate(model.modules()):
        module.training = i % 2 == 0 if training is None else training
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    next(model.parameters()).requires_grad_(False)
    batches = some_batches(3)
    before = [(x.clone(), y.clone()) for x, y in batches]
    for mask in (None, some_mask(model)):
        with torch.no_grad(), unchanged(model):
            found = FUNCTIONS[name](model, batches, steps=2, mask=mask, **REFERENCE)
        with torch.enable_grad(), unchanged(model):
            again = FUNCTIONS[name](model, batches, steps=2, mask=mask, **REFERENCE)
        assert torch.equal(flat(found), flat(again)), "gradient mode does not matter"
        assert not any(tensor.requires_grad for tensor in found.values())
    for (inputs, targets), (x, y) in zip(batches, before, strict=True):
        assert torch.equal(inputs, x)
        assert torch.equal(targets, y)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_share_no_memory_with_the_model(name):
    model = make_network("conv")
    for steps in (0, 2):
        with unchanged(model):
            for tensor in FUNCTIONS[name](model, some_batches(3), steps=steps).values():
                tensor.zero_()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_failure_leaves_the_model_as_found_too(name):
    model = make_network("conv").eval()
    batches = some_batches(3)
    batches[2] = batches[2][0], batches[2][1] + 9
    with unchanged(model), pytest.raises(ValueError, match="classes"):
        FUNCTIONS[name](model, batches, steps=2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_dropout_is_off(name):
    plain = make_network("conv")
    dropped = nn.Sequential(*plain[:3], nn.Dropout(0.5), *plain[3:]).train()
    expected = flat(FUNCTIONS[name](plain, some_batches(3), steps=2))
    with unchanged(dropped):
        found = flat(FUNCTIONS[name](dropped, some_batches(3), steps=2))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_frozen_model_scores_the_same(name):
    model = make_network("conv")
    expected = flat(FUNCTIONS[name](model, some_batches(3), steps=2))
    model.requires_grad_(False)
    assert torch.equal(flat(FUNCTIONS[name](model, some_batches(3), steps=2)), expected)


class WithUnused(nn.Module):
    """A network with a layer and a bias that its output does not depend on."""

    def __init__(self, used: nn.Module) -> None:
        super().__init__()
        self.used = used
        self.unused = nn.Linear(2, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_layer_that_is_not_in_use_scores_zero(name):
    used, batches, options = make_network("conv"), some_batches(3), OPTIONS["all but dampening"]
    expected = FUNCTIONS[name](used, batches, steps=2, **options)
    found = dict(FUNCTIONS[name](WithUnused(used), batches, steps=2, **options))
    assert not found.pop("unused.weight").any()
    assert torch.equal(flat(found), flat(expected))


# Bad input


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"lr": -0.1}, "lr is -0.1"),
        ({"momentum": -0.5}, "momentum is -0.5"),
        ({"weight_decay": -0.5}, "weight_decay is -0.5"),
        ({"nesterov": True}, r"(?i)nesterov.*momentum"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, r"(?i)nesterov.*dampening"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"batchnorm": "running"}, "batchnorm is 'running'"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[name](make_network("mlp"), some_batches(4), **options)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("given", [0, 1, 2, 3])
def test_too_few_batches_are_counted(name, given):
    """Three steps need three batches, and the outer loss one more."""
    model = make_network("mlp")
    message = rf"4\b.*\b{given}\b|\b{given}\b.*\b4\b" if given else r"(?i)batch"
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[name](model, iter(some_batches(given)))
    if given == 1:
        with pytest.raises(ValueError, match=message):
            FUNCTIONS[name](model, make_batch(), steps=3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_mask_of_another_network_is_refused(name):
    with pytest.raises(ValueError, match="mask"):
        FUNCTIONS[name](
            make_network("mlp"), some_batches(4), mask=pai.Mask.dense(make_network("conv"))
        )


def test_training_that_diverges_names_a_layer():
    """The scores overflow; the message says where."""
    with pytest.raises(ValueError, match=r"[\w.]+\.weight"):
        pai.prospr(make_network("mlp"), some_batches(6), steps=5, lr=1e200, weight_decay=1e200)


# Traps: what the public implementation gets wrong, or leaves open


@pytest.mark.parametrize("kind", KINDS)
def test_trap_the_first_momentum_buffer_is_part_of_the_graph(kind):
    """Detached, one step with momentum 0.9 makes the full meta-gradient the first-order one."""
    model, batches = make_network(kind), some_batches(2)
    oracle = Unrolled(model)
    first = flat(first_order_gradient(model, batches, steps=1, **REFERENCE))
    detached = oracle.meta_gradient(batches, 1, detach_first=True, **REFERENCE)
    assert_close(detached, first, rtol=1e-10)

    full = flat(meta_gradient(model, batches, steps=1, **REFERENCE))
    assert_close(full, oracle.meta_gradient(batches, 1, **REFERENCE), rtol=1e-10)
    assert (full - first).norm() > 0.05 * full.norm()
    # Momentum has nothing to carry into the first step.
    plain = flat(meta_gradient(model, batches, steps=1, lr=REFERENCE["lr"]))
    assert torch.equal(full, plain)


@pytest.mark.parametrize("kind", KINDS)
def test_trap_a_detached_first_buffer_chooses_other_weights_after_three_steps(kind):
    model, batches = make_network(kind), some_batches(4)
    oracle, w = Unrolled(model), initial(model)
    right = (w * oracle.meta_gradient(batches, 3, **REFERENCE)).abs()
    wrong = (w * oracle.meta_gradient(batches, 3, detach_first=True, **REFERENCE)).abs()
    scores = pai.prospr(model, batches, steps=3, **REFERENCE)
    assert_close(scores.flat(), right, rtol=1e-10)
    assert overlap_of_top(right, wrong, 0.8) < 0.8
    assert overlap_of_top(right, scores.flat(), 0.8) == 1.0


def overlap_of_top(first: Tensor, second: Tensor, sparsity: float) -> float:
    """Return the Jaccard overlap of the weights that two vectors of scores keep."""
    k = round((1 - sparsity) * len(first))
    a, b = (set(scores.argsort(descending=True)[:k].tolist()) for scores in (first, second))
    return len(a & b) / len(a | b)


def test_trap_dampening_does_not_act_on_the_first_step_or_without_momentum():
    model, batches = make_network("conv"), some_batches(3)

    def of(steps: int, **options) -> Tensor:
        return flat(meta_gradient(model, batches, steps=steps, lr=0.5, **options))

    assert torch.equal(of(1, momentum=0.9, dampening=0.4), of(1))
    assert torch.equal(of(2, dampening=0.4), of(2))
    assert not torch.allclose(of(2, momentum=0.9, dampening=0.4), of(2, momentum=0.9), rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_trap_biases_and_batchnorm_are_trained_in_the_inner_loop(kind):
    """They have no score, but the weights' gradients pass through them."""
    model, batches, lr = make_network(kind), some_batches(4), 0.5
    for mask in (None, some_mask(model)):
        oracle = Unrolled(model, mask)
        found = flat(meta_gradient(model, batches, steps=3, lr=lr, mask=mask))
        assert_close(found, oracle.meta_gradient(batches, 3, lr=lr), rtol=1e-10)
        oracle.moves *= oracle.prunable  # the variant that trains weights only
        wrong = oracle.meta_gradient(batches, 3, lr=lr)
        assert (wrong - found).norm() > 0.02 * found.norm()


@pytest.mark.parametrize("kind", ["conv", "residual"])
def test_trap_batchnorm_is_in_train_mode_unless_asked_otherwise(kind):
    model, batches = make_network(kind).eval(), some_batches(4)
    scores = {mode: pai.prospr(model, batches, batchnorm=mode).flat() for mode in ("train", "eval")}
    assert torch.equal(pai.prospr(model, batches).flat(), scores["train"])
    assert overlap_of_top(scores["train"], scores["eval"], 0.8) < 0.9


@pytest.mark.parametrize("name", FUNCTIONS)
def test_trap_every_step_has_a_fresh_batch_and_the_outer_loss_another(name):
    """The reference's command line reuses one batch; in the paper there are M + 1, in order."""
    model, batches = make_network("conv"), some_batches(4)

    def of(given) -> Tensor:
        return flat(FUNCTIONS[name](model, given, steps=3, lr=0.5))

    found = of(batches)
    b0, b1, b2, b3 = batches
    others = [[b0] * 4, [b0, b1, b2, b2], [b3, b2, b1, b0], [b1, b0, b2, b3], [b0, b2, b1, b3]]
    for other in others:
        assert not torch.allclose(of(other), found, rtol=1e-3)
    expected = Unrolled(model).meta_gradient(batches, 3, lr=0.5)
    if name in ("sweep", "unrolled"):
        assert_close(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_trap_batches_beyond_the_outer_one_are_not_drawn(name):
    model = make_network("mlp")

    def endless() -> Iterator[Batch]:
        yield from some_batches(3)
        raise AssertionError("a batch was drawn that no step needs")

    found = flat(FUNCTIONS[name](model, endless(), steps=2))
    assert torch.equal(found, flat(FUNCTIONS[name](model, some_batches(5), steps=2)))
    assert torch.equal(found, flat(FUNCTIONS[name](model, tuple(some_batches(3)), steps=2)))


def test_trap_the_defaults_are_three_plain_steps_at_a_tenth():
    """The reference's command line and README disagree, and the paper gives no learning rate."""
    model, batches = make_network("conv"), some_batches(4)
    options = {"steps": 3, "lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0}
    for function in (*FUNCTIONS.values(), first_order_gradient):
        named = function(model, batches, nesterov=False, **options)
        assert torch.equal(flat(function(model, batches)), flat(named))
    expected = Unrolled(model).meta_gradient(batches, 3, lr=0.1)
    assert_close(pai.prospr(model, batches).flat(), (initial(model) * expected).abs(), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_trap_readme_command_line_and_paper_choose_other_weights(kind):
    """README: large steps with momentum; command line: small ones on one batch; paper: fresh."""
    model, batches = make_network(kind), some_batches(4)
    readme = pai.prospr(model, batches, steps=3, **REFERENCE).flat()
    command_line = pai.prospr(model, batches[:1] * 4, steps=3, lr=0.1).flat()
    paper = pai.prospr(model, batches, steps=3, lr=0.1).flat()
    for first, second in itertools.combinations((readme, command_line, paper), 2):
        assert overlap_of_top(first, second, 0.8) < 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_trap_removed_weights_stay_zero_through_the_inner_steps(kind):
    """Masked before each forward pass only, or not at all, a step would bring them back."""
    model, batches = make_network(kind), some_batches(4)
    mask, options = some_mask(model), OPTIONS["all but dampening"]
    pruned = copy.deepcopy(model)
    mask.apply_(pruned)
    found = flat(first_order_gradient(model, batches, steps=3, mask=mask, **options))
    assert_close(found, Trained(model, batches, 3, mask, **options).last_gradient(), rtol=1e-10)
    revived = Trained(pruned, batches, 3, **options).last_gradient()
    assert (revived - found).norm() > 0.05 * found.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_trap_a_removed_weight_is_scored_with_its_initial_value(kind):
    """So that it may return: the derivative at the pruned network, times the dense weight."""
    model, batches = make_network(kind), some_batches(4)
    mask = some_mask(model)
    removed = ~flat(mask)
    pruned = copy.deepcopy(model)
    mask.apply_(pruned)
    for criterion in (pai.prospr, pai.prospr_first_order):
        scores = criterion(model, batches, mask=mask).flat()
        # All of them but those that lead to a unit from which nothing leads on.
        assert (scores[removed] > 0).double().mean() > 0.6
        of_pruned = criterion(pruned, batches, mask=mask).flat()
        assert not of_pruned[removed].any()
        assert torch.equal(of_pruned[~removed], scores[~removed])
