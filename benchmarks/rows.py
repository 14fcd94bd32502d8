"""The rows of the table: what is measured, on which network, and what it may cost at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

import pai_lite as pai
from benchmarks import plain
from benchmarks.measure import Call, peak_bytes, ratio, times
from pai_lite.scores import top_k

CLASSES, INPUT_SHAPE = 10, (3, 32, 32)
SPARSITY = 0.95
SGD = {"lr": 0.01, "momentum": 0.9}  # of ProsPr's inner steps
FIRST_ORDER_STEPS = 3  # the default
FLAT = 0.01  # passes by which memory may grow with each of ProsPr's steps, beside its weights


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        what: was measured.
        network: name and batch size, or empty.
        measured: the number.
        unit: "u", times of one forward and backward pass; "passes", memory of one; "x", times of
            what it is compared with; "%".
        at_most: the target; None where the number is for information.
    """

    what: str
    network: str
    measured: float
    unit: str
    at_most: float | None = None

    @property
    def met(self) -> str:
        """Whether the target is met: yes, no, or empty where there is none."""
        return "" if self.at_most is None else "yes" if self.measured <= self.at_most else "no"


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        networks: batch size by name. FORCE runs on the first, SynFlow against the loop on the last.
        rounds: in which the calls that are compared take turns.
        inner_steps: the M of ProsPr.
        total_steps: at least so many steps of ProsPr are timed for every M.
        force_steps, synflow_steps: how many steps of FORCE there are, of SynFlow are timed.
        scores: how many exact-k chooses from.
    """

    networks: dict[str, int]
    rounds: int
    inner_steps: tuple[int, ...]
    total_steps: int
    force_steps: int
    synflow_steps: int
    scores: int


# VGG-16 has a smaller batch so that the whole takes minutes; the ratios hardly depend on it.
FULL = Scale({"resnet20": 128, "vgg16": 32}, 5, (1, 3, 5, 10), 10, 60, 5, 15_000_000)
QUICK = Scale({"small-conv": 8}, 1, (1, 2), 1, 2, 2, 100_000)


@dataclass(frozen=True)
class Work:
    """A network and a batch of noise, which costs what images cost."""

    network: str
    model: nn.Module
    batch: tuple[Tensor, Tensor]
    device: str

    def one_pass(self) -> object:
        """Do what is the unit of time and memory."""
        return plain.one_pass(self.model, self.batch)

    def batches(self, steps: int) -> list[tuple[Tensor, Tensor]]:
        """Return a batch for each of ProsPr's steps and one for the loss after them."""
        return [self.batch] * (steps + 1)

    def prune(self, method: str) -> pai.Mask:
        """Return the mask of a method."""
        return pai.prune(self.model, method, self.batch, sparsity=SPARSITY, progress=False)


def make_work(name: str, size: int, device: str) -> Work:
    """Build the network and the batch."""
    torch.manual_seed(0)
    model = pai.MODELS[name](INPUT_SHAPE, CLASSES).to(device)
    batch = torch.randn(size, *INPUT_SHAPE), torch.randint(0, CLASSES, (size,))
    moved = batch[0].to(device), batch[1].to(device)
    return Work(f"{name}, batch {size}", model, moved, device)


def all_rows(scale: Scale, device: str) -> Iterator[Row]:
    """Measure and yield one row after another."""
    works = [make_work(name, size, device) for name, size in scale.networks.items()]
    yield from chain.from_iterable(criteria_rows(work, scale) for work in works)
    yield from synflow_rows(works, scale)
    yield from force_rows(works[0], scale)
    yield from exact_k_rows(scale, device)
    yield from chain.from_iterable(meta_gradient_rows(work, scale) for work in works)
    yield from chain.from_iterable(memory_rows(work, scale) for work in works)


def criteria_rows(work: Work, scale: Scale) -> Iterator[Row]:
    """Compare what looks at the data once with one pass."""
    model, batch, steps = work.model, work.batch, FIRST_ORDER_STEPS
    first_order = partial(pai.prospr_first_order, steps=steps, **SGD)
    calls: dict[str, tuple[Call, float | None]] = {
        "snip": (partial(pai.snip, model, batch), 1.1),
        "snip with exact-k selection": (partial(work.prune, "snip"), None),
        "grad_norm": (partial(pai.grad_norm, model, batch), None),
        "magnitude with exact-k selection": (partial(work.prune, "magnitude"), None),
        "grasp, one batch": (partial(pai.grasp, model, batch), 3.6),
        "plain grasp, two passes": (partial(plain.grasp, model, batch), None),
        f"prospr first-order, M = {steps}": (
            partial(first_order, model, work.batches(steps)),
            steps + 1.3,
        ),
    }
    timed = {"unit": work.one_pass, **{what: call for what, (call, _) in calls.items()}}
    found = times(timed, scale.rounds, work.device)
    for what, (_, at_most) in calls.items():
        yield Row(what, work.network, ratio(found[what], found["unit"]), "u", at_most)
    compared = ratio(found["grasp, one batch"], found["plain grasp, two passes"])
    yield Row("grasp over plain grasp", work.network, compared, "x", 1 / 1.4)


def meta_gradient_rows(work: Work, scale: Scale) -> Iterator[Row]:
    """Compare the times of the reverse sweep and of the plain unroll."""
    for steps in scale.inner_steps:
        calls = meta_gradients(work, steps)
        found = times(calls, -(-scale.total_steps // steps), work.device)
        measured = ratio(found["sweep"], found["unroll"])
        yield Row(f"prospr over plain unroll, M = {steps}", work.network, measured, "x", 1.15)


def memory_rows(work: Work, scale: Scale) -> Iterator[Row]:
    """Compare the memory of the reverse sweep and of the plain unroll with that of one pass."""
    unit = peak_bytes(work.one_pass, work.device)
    weights = sum(p.numel() * p.element_size() for p in work.model.parameters()) / unit
    few, many = scale.inner_steps[0], scale.inner_steps[-1]
    beside = {}
    for steps in (few, many):
        calls = meta_gradients(work, steps)
        peak = {name: peak_bytes(call, work.device) / unit for name, call in calls.items()}
        beside[steps] = peak["sweep"] - steps * weights
        what = f"memory of prospr beside M copies of the weights, M = {steps}"
        yield Row(what, work.network, beside[steps], "passes", 3.2)
        yield Row(f"memory of plain unroll, M = {steps}", work.network, peak["unroll"], "passes")
    growth = (beside[many] - beside[few]) / (many - few)
    yield Row("memory of prospr, growth for one more step", work.network, growth, "passes", FLAT)


def meta_gradients(work: Work, steps: int) -> dict[str, Call]:
    """Return the two ways to ProsPr's exact meta-gradient."""
    ways = {"sweep": pai.meta_gradient, "unroll": pai.unrolled_meta_gradient}
    options = {"steps": steps, **SGD}
    return {n: partial(way, work.model, work.batches(steps), **options) for n, way in ways.items()}


def force_rows(work: Work, scale: Scale) -> Iterator[Row]:
    """Find the time of FORCE that is not spent in forward and backward passes."""
    options = {"sparsity": SPARSITY, "steps": scale.force_steps}
    steps = pai.prune_steps(work.model, "force", work.batch, **options)
    calls = {"step": partial(next, steps), "pass": work.one_pass}
    found = times(calls, scale.force_steps, work.device)
    beside = 100 * (ratio(found["step"], found["pass"]) - 1)
    yield Row(f"force, {scale.force_steps} steps, beside the passes", work.network, beside, "%", 3)


def synflow_rows(works: list[Work], scale: Scale) -> Iterator[Row]:
    """Compare a step of SynFlow with that of a plain loop, and the whole with one pass."""
    first, last = works[0], works[-1]
    calls = {"synflow": partial(first.prune, "synflow"), "unit": first.one_pass}
    found = times(calls, scale.rounds, first.device)
    measured = ratio(found["synflow"], found["unit"])
    yield Row("synflow, 100 steps", first.network, measured, "u")
    steps = pai.prune_steps(last.model, "synflow", last.batch, sparsity=SPARSITY)
    loop = plain.synflow(last.model, last.batch, SPARSITY)
    calls = {"step": partial(next, steps), "loop": partial(next, loop)}
    found = times(calls, scale.synflow_steps, last.device)
    measured = ratio(found["step"], found["loop"])
    yield Row("synflow over plain loop, one of 100 steps", last.network, measured, "x", 1 / 3)


def exact_k_rows(scale: Scale, device: str) -> Iterator[Row]:
    """Compare the choice of exactly k with ``torch.topk``, which breaks ties as it likes."""
    scores = (torch.randn(scale.scores) * torch.randn(scale.scores)).abs().to(device)
    for dtype in (torch.float32, torch.float64):
        values = scores.to(dtype)
        for share in (0.05, 0.001):
            k = int(share * scale.scores)
            calls = {"ours": partial(top_k, values, k), "topk": partial(torch.topk, values, k)}
            found = times(calls, scale.rounds, device)
            name = f"exact-k over torch.topk, {share:.1%} of {scale.scores:,}, {dtype}"
            yield Row(
                name.replace("torch.f", "f"), "", ratio(found["ours"], found["topk"]), "x", 0.2
            )
