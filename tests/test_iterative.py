"""Schedules and iterative pruning: exact counts, revival, and one step as the known case."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import combinations, pairwise

import pandas as pd
import pytest
import torch
from conftest import make_batch, make_network
from hypothesis import given, settings
from hypothesis import strategies as st

import pai_lite as pai
from pai_lite.gradients import mean_gradient
from pai_lite.scores import keep_count

ITERATIVE = [name for name, method in pai.METHODS.items() if (method.steps or 1) > 1]
pytestmark = pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")


@pytest.mark.parametrize("schedule", ["linear", "exponential"])
@given(n=st.integers(10, 10**6), sparsity=st.floats(0, 0.9), steps=st.integers(1, 50))
def test_claim_force_schedule(schedule: str, n: int, sparsity: float, steps: int) -> None:
    counts = pai.schedule_counts(n, sparsity, steps=steps, schedule=schedule)
    k = round((1 - sparsity) * n)
    assert len(counts) == steps
    assert counts[-1] == k
    assert all(a >= b for a, b in zip([n, *counts], counts, strict=False))
    for t, count in enumerate(counts, start=1):
        line = n + (k - n) * t / steps
        curve = n * (k / n) ** (t / steps)
        assert abs(count - (line if schedule == "linear" else curve)) <= 0.5 + 1e-6 * n


def test_exponential_keeps_a_constant_share_and_linear_a_constant_number() -> None:
    curve = pai.schedule_counts(10**6, 0.999, steps=3, schedule="exponential")
    assert curve == [100_000, 10_000, 1_000]
    line = pai.schedule_counts(1000, 0.9, steps=3, schedule="linear")
    assert line == [700, 400, 100]
    assert pai.schedule_counts(10, 0.999, steps=1, schedule="exponential") == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"schedule": "exponental"}, "Did you mean 'exponential'"),
        ({"sparsity": 1.0}, "sparsity is 1.0"),
        ({"sparsity": 0.999}, "keeps none of 10"),
        ({"sparsity": 0.999, "steps": 2}, "keeps none of 10"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(change: dict, message: str) -> None:
    options = {"sparsity": 0.5, "steps": 3, "schedule": "linear", **change}
    with pytest.raises(ValueError, match=message):
        pai.schedule_counts(10, **options)


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
@pytest.mark.parametrize("name", ["force", "iter-snip"])
def test_claim_force_one(kind: str, name: str) -> None:
    model, batch = make_network(kind), make_batch()
    for sparsity in (0.3, 0.9):
        once = pai.prune(model, name, batch, sparsity=sparsity, steps=1)
        assert once == pai.prune(model, "snip", batch, sparsity=sparsity)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
@pytest.mark.parametrize("name", ITERATIVE)
def test_exactly_k_weights_stay(name: str, kind: str, sparsity: float) -> None:
    model = make_network(kind)
    mask = pai.prune(model, name, make_batch(), sparsity=sparsity, steps=7)
    assert mask.kept == round((1 - sparsity) * mask.size)


def by_hand(model, batch, counts: list[int], regrow: bool) -> list[torch.Tensor]:
    """Return the mask after each step, by a loop over flat vectors."""
    weights = pai.prunable_parameters(model)
    w = torch.cat([p.detach().flatten() for p in weights.values()])
    m, masks = torch.ones_like(w, dtype=torch.bool), []
    for count in counts:
        parts = (m * w).split([p.numel() for p in weights.values()])
        pruned = make_network("conv")
        for p, part in zip(pai.prunable_parameters(pruned).values(), parts, strict=True):
            p.data = part.view_as(p)
        g = torch.cat([x.flatten() for x in mean_gradient(pruned, batch).values()])
        z = (w * g).abs()
        if not regrow:
            z[~m] = -1.0
        m = torch.zeros_like(m)
        m[z.argsort(descending=True, stable=True)[:count]] = True
        masks.append(m)
    return masks


@pytest.mark.parametrize(("name", "regrow"), [("force", True), ("iter-snip", False)])
def test_each_step_is_that_of_a_loop_by_hand(name: str, regrow: bool) -> None:
    model, batch = make_network("conv"), make_batch()
    n = pai.Mask.dense(model).size
    k = round(0.2 * n)
    counts = [round(n * (k / n) ** (t / 5)) for t in range(1, 6)]
    masks = by_hand(model, batch, counts, regrow)
    mask = pai.prune(model, name, batch, sparsity=0.8, steps=5)
    assert torch.equal(torch.cat([t.flatten() for t in mask.values()]), masks[-1])
    returned = sum(int((b & ~a).sum()) for a, b in pairwise(masks))
    assert (returned > 0) is regrow


def test_claim_force_saliency() -> None:
    """The sum over kept weights of abs(w g) at the pruned network grows when pruned in steps.

    The preprint's FORCE, whose figure 4 shows this, never lets a weight return: iter-snip.
    """
    data = pai.load_data("digits")
    for seed in range(2):
        model, batch = pai.build_model("small-conv", data, seed=seed), data.batch(seed=seed)

        def saliency(mask: pai.Mask, model=model, batch=batch) -> float:
            scores = pai.snip(model, batch, mask=mask)
            return sum(float(scores[name][mask[name]].sum()) for name in mask)

        for sparsity, factor in ((0.9, 1.1), (0.98, 2.0)):
            once = saliency(pai.prune(model, "snip", batch, sparsity=sparsity))
            in_steps = saliency(pai.prune(model, "iter-snip", batch, sparsity=sparsity))
            assert in_steps > factor * once


@pytest.mark.parametrize("seed", range(2))
def test_claim_force_iter_grasp(seed: int) -> None:
    """One-shot GraSP spares both ends when much is removed, not when little is (figure 10a)."""
    data = pai.load_data("digits")
    scores = pai.grasp(pai.build_model("resnet20", data, seed=seed), data.batch(seed=seed))
    little, much = (pai.keep_top(scores, sparsity).layer_density() for sparsity in (0.1, 0.9))
    assert little.idxmin() == little.index[0]
    assert max(little.iloc[0], little.iloc[-1]) < 0.9
    assert min(much.iloc[0], much.iloc[-1]) > 3 * 0.1


def test_batches_from_an_iterator_serve_every_step() -> None:
    model = make_network("mlp")
    batches = [make_batch(seed) for seed in range(2)]
    for steps in (2, 4):
        from_list = pai.prune(model, "force", batches, sparsity=0.8, steps=steps)
        assert pai.prune(model, "force", iter(batches), sparsity=0.8, steps=steps) == from_list


def test_schedule_and_regrow_replace_those_of_the_method() -> None:
    model, batch = make_network("conv"), make_batch()
    options = {"sparsity": 0.8, "steps": 5}
    force, fixed = (pai.prune(model, name, batch, **options) for name in ("force", "iter-snip"))
    assert force != fixed
    assert pai.prune(model, "iter-snip", batch, regrow=True, **options) == force
    assert pai.prune(model, "force", batch, regrow=False, **options) == fixed
    steps = pai.prune_steps(model, "force", batch, schedule="linear", **options)
    n = pai.Mask.dense(model).size
    expected = pai.schedule_counts(n, **options, schedule="linear")
    assert [step.mask.kept for step in steps] == expected


@pytest.mark.parametrize("name", ["random", "random-erk", "magnitude"])
def test_steps_that_would_change_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="leave steps out"):
        pai.prune(make_network("mlp"), name, make_batch(), sparsity=0.5, steps=2)


def saliency_of(w: torch.Tensor, kept: set[int], batch) -> float:
    """Return the sum over the kept weights of abs(w g), with g at the pruned linear layer."""
    inputs, targets = batch
    c = torch.zeros_like(w)
    c[sorted(kept)] = 1
    pruned = (w * c).requires_grad_()
    loss = torch.nn.functional.cross_entropy(inputs @ pruned.view(3, 4).T, targets)
    (g,) = torch.autograd.grad(loss, pruned)
    return float((c * w * g).abs().sum())


def best_exchange(w: torch.Tensor, before: set[int], after: set[int], p: int, batch) -> float:
    """Return by how much exchanging p kept weights for p just removed can raise the saliency."""
    exchanged = [
        saliency_of(w, (after - set(out)) | set(back), batch)
        for out in combinations(sorted(after), p)
        for back in combinations(sorted(before - after), p)
    ]
    return max(exchanged) - saliency_of(w, after, batch)


@pytest.mark.parametrize("seed", range(5))
def test_claim_force_local(seed: int) -> None:
    """No exchange of p weights gains more than 2 lambda p max(w)^2 |c_t| (theorem 1).

    The network is one linear layer: the second derivatives of its cross-entropy are at most a
    quarter of mean(|x_i| |x_j|), which gives lambda. The weights are small, so that the bound,
    which falls with their square, leaves no room for any choice but the best.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    batch, layer = (x, torch.arange(6) % 3), torch.nn.Linear(4, 3, bias=False).double()
    layer.weight.data = 1e-3 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    w = layer.weight.detach().flatten()
    smoothness = float((x.abs().T @ x.abs() / len(x)).max()) / 4
    lowest = pai.prune(layer, "snip", batch, sparsity=0.6, invert=True)
    for step in pai.prune_steps(layer, "iter-snip", batch, sparsity=0.6, steps=3):
        kept = [
            set(m["weight"].flatten().nonzero().flatten().tolist())
            for m in (step.before, step.mask)
        ]
        for p in (1, 2):
            if p <= min(len(kept[1]), len(kept[0] - kept[1])):
                bound = 2 * smoothness * p * float(w.abs().max()) ** 2 * len(kept[0])
                assert best_exchange(w, *kept, p, batch) <= bound
    wrong = set(lowest["weight"].flatten().nonzero().flatten().tolist())
    bound = 2 * smoothness * float(w.abs().max()) ** 2 * 12
    assert best_exchange(w, set(range(12)), wrong, 1, batch) > bound, "the lowest scores are not"


# Steps one by one


def test_the_steps_tell_what_happened():
    model, batch = make_network("conv"), make_batch()
    steps = list(pai.prune_steps(model, "force", batch, sparsity=0.9, steps=6))
    rows = pd.DataFrame(step.row() for step in steps)
    assert steps[-1].mask == pai.prune(model, "force", batch, sparsity=0.9, steps=6)
    assert list(rows.step) == [1, 2, 3, 4, 5, 6]
    masks = [torch.cat([t.flatten() for t in s.mask.values()]) for s in steps]
    before = [torch.ones_like(masks[0]), *masks]
    for i, step in enumerate(steps):
        flat = torch.cat([t.flatten() for t in step.scores.values()])
        assert rows.density[i] == pytest.approx(masks[i].double().mean().item())
        share = flat[masks[i]].sum() / flat.sum()
        assert rows.kept_share[i] == pytest.approx(share.item())
        assert rows.revived[i] == (masks[i] & ~before[i]).sum()
        assert rows.empty_layers[i] == sum(not t.any() for t in step.mask.values())
    assert rows.revived.sum() > 0
    assert rows.revived[0] == 0


def test_kept_share_of_signed_scores_counts_their_size():
    model, batch = make_network("mlp"), make_batch()
    (step,) = pai.prune_steps(model, "grasp", batch, sparsity=0.5)
    z, kept = step.scores.flat(), torch.cat([t.flatten() for t in step.mask.values()])
    assert step.kept_share == pytest.approx((z[kept].abs().sum() / z.abs().sum()).item())


@pytest.mark.parametrize("name", ["iter-snip", "force", "iter-grasp", "grasp-it"])
def test_every_step_may_have_batches_of_its_own(name):
    model, asked = make_network("conv"), []

    def fresh(step: int) -> list:
        asked.append(step)
        return [make_batch(10 * step), make_batch(10 * step + 1)]

    last = pai.prune(model, name, fresh, sparsity=0.8, steps=3)
    assert asked == [0, 1, 2]
    criterion, mask = pai.METHODS[name].criterion, pai.Mask.dense(model)
    for t, count in enumerate(pai.schedule_counts(mask.size, 0.8, steps=3, schedule="exponential")):
        scores = criterion(model, [make_batch(10 * t), make_batch(10 * t + 1)], mask=mask)
        among = None if pai.METHODS[name].regrow else mask
        mask = keep_count(scores, count, among=among)
    assert last == mask
    assert last != pai.prune(model, name, make_batch(0), sparsity=0.8, steps=3)


class Stream:
    """Batches made anew at every iteration, which fails while more than two are in memory."""

    def __init__(self) -> None:
        self.alive, self.made = weakref.WeakSet(), 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for seed in range(5):
            inputs, targets = make_batch(seed)
            self.alive.add(inputs)
            self.made += 1
            yield inputs, targets
            del inputs, targets
            assert len(self.alive) <= 2


@pytest.mark.parametrize(
    ("name", "options", "passes"),
    [("snip", {}, 1), ("grasp", {}, 2), ("force", {"steps": 3}, 3)],
)
def test_a_stream_is_read_again_rather_than_held(name, options, passes):
    stream, model = Stream(), make_network("mlp")
    mask = pai.prune(model, name, stream, sparsity=0.5, **options)
    assert 5 * passes <= stream.made <= 5 * passes + 2
    listed = [make_batch(seed) for seed in range(5)]
    assert mask == pai.prune(model, name, listed, sparsity=0.5, **options)


def test_a_progress_bar_shows_the_steps_and_can_be_hidden(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    model, batch = make_network("mlp"), make_batch()
    for steps in (2, 4):
        pai.prune(model, "force", batch, sparsity=0.5, steps=steps)
        assert f"{steps}/{steps}" in capsys.readouterr().err
    pai.prune(model, "force", batch, sparsity=0.5, steps=4, progress=False)
    pai.prune(model, "snip", batch, sparsity=0.5)
    list(pai.prune_steps(model, "force", batch, sparsity=0.5, steps=4))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["mlp", "conv", "residual"])
@given(sparsity=st.floats(0.1, 0.9), steps=st.integers(2, 5))
@settings(max_examples=10, deadline=None)
def test_masks_are_nested_where_no_weight_may_return(kind: str, sparsity: float, steps: int):
    model, batch = make_network(kind), make_batch()
    for name in ("iter-snip", "grasp-it", "iter-grasp", "synflow"):
        found = pai.prune_steps(model, name, batch, sparsity=sparsity, steps=steps)
        for step in found:
            assert step.revived == 0
            assert all((kept <= step.before[n]).all() for n, kept in step.mask.items())
