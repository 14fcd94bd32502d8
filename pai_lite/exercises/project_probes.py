"""What the checks of the project call a student's functions on.

Each returns a word: the first rule that is broken, or "none".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pai_lite import criteria
from pai_lite.exercises.engine import or_value, returned
from pai_lite.masks import prunable_parameters
from pai_lite.scores import Scores, keep_top

Criterion = Callable[[nn.Module, tuple[Tensor, Tensor]], Mapping[str, Tensor]]
Controls = Callable[[dict[str, Tensor], float, int], Mapping[str, Mapping[str, Tensor]]]

KNOWN = ("magnitude", "snip", "grad_norm", "grasp", "grasp_abs", "synflow")


def small_network(seed: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """Return a network with all that a criterion may meet, and a batch of two classes."""
    generator = torch.Generator().manual_seed(seed)
    norm, layers = nn.BatchNorm2d(6), [nn.Conv2d(1, 6, 2), nn.ReLU(), nn.Conv2d(6, 4, 2)]
    body = nn.Sequential(layers[0], norm, nn.ReLU(), layers[2])
    model = nn.Sequential(body, nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 2))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(0.4 * torch.randn(tensor.shape, generator=generator))
    model[3].bias.grad = torch.ones(2)
    norm.eval()
    inputs = torch.randn(12, 1, 5, 5, generator=generator)
    return model, (inputs, torch.arange(12) % 2)


def state(model: nn.Module) -> dict[str, list[Any]]:
    """Return what a criterion has to leave alone, by the name of the rule."""
    weights = list(model.parameters())
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()]
    return {
        "weights": [tensor.detach().clone() for tensor in weights],
        "gradients": [None if w.grad is None else w.grad.clone() for w in weights],
        "statistics": [tensor.clone() for tensor in model.buffers()],
        "modes": [module.training for module in model.modules()],
        "flags": [tensor.requires_grad for tensor in weights],
        "hooks": hooks + [len(tensor._backward_hooks or ()) for tensor in weights],
        "generator": [torch.get_rng_state()],
    }


def unchanged(before: list[Any], after: list[Any]) -> bool:
    """Say whether a part of a state, of tensors or other values, is as it was."""
    tensors = [[isinstance(entry, Tensor) for entry in part] for part in (before, after)]
    both = zip(before, after, tensors[0], strict=False)
    return tensors[0] == tensors[1] and all(torch.equal(a, b) if t else a == b for a, b, t in both)


def close(a: Tensor, b: Tensor) -> bool:
    """Say whether two tensors are equal up to rounding, however small their entries are."""
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


def broken_form(scores: Any, model: nn.Module) -> str | None:
    """Return the rule about the scores that is broken, if one is."""
    weights = prunable_parameters(model)
    if not isinstance(scores, Mapping):
        return "mapping"
    if scores.keys() != weights.keys():
        biases = scores.keys() == dict(model.named_parameters()).keys()
        return "all parameters" if biases else "names"
    if any(scores[name].shape != w.shape for name, w in weights.items()):
        return "shapes"
    if not all(bool(z.isfinite().all()) for z in scores.values()):
        return "finite"
    if any(z.requires_grad for z in scores.values()):
        return "graph"
    return "constant" if any(len(z.unique()) < 2 for z in scores.values()) else None


def broken_repeat(criterion: Criterion, scores: Mapping[str, Tensor], density: float) -> str | None:
    """Return the rule about calls on this and on other networks that is broken, if one is."""
    model, batch = small_network(1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        again = criterion(*small_network(0))
    if any(not close(again[name], z) for name, z in scores.items()):
        return "repeat"
    other = criterion(model, batch)
    if any(close(other[name], z) for name, z in scores.items()):
        return "blind"
    mine, rules = keep_top(Scores(other), 1 - density), [getattr(criteria, name) for name in KNOWN]
    masks = [keep_top(rule(model, batch), 1 - density) for rule in rules]
    return "known" if any(mine.overlap(mask) > 0.95 for mask in masks) else None


@or_value
def first_broken(criterion: Any) -> str:
    """Return the first rule of the criterion that an answer breaks; a word passes as it is."""
    model, batch = small_network(0)
    before = state(model)
    scores = returned(criterion, model, batch)
    form, after = broken_form(scores, model), state(model)
    traces = [name for name in before if not unchanged(before[name], after[name])]
    return form or (traces or [broken_repeat(criterion, scores, 0.3) or "none"])[0]


#: Two layers with ties between them and within them.
SCORES = {
    "a": torch.tensor([[3.0, -1.0, 2.0], [2.0, 0.0, 2.0]], dtype=torch.float64),
    "b": torch.tensor([[2.0, -4.0], [5.0, 0.0], [-1.0, 1.0], [0.0, 0.0]], dtype=torch.float64),
}
DENSITY, DRAWS = 0.33, 60
CHANCE = ("shuffled", "shuffled within units", "random")

#: What is determined of the six masks, by hand: k = round(0.33 * 14) = 5.
KEPT = {
    "form": True,
    "chosen": {"a": [0, 2, 3, 5], "b": [2]},
    "inverted": {"a": [1, 4], "b": [1, 3, 4]},
    "inverted within layers": {"a": [1, 2, 3, 4], "b": [1]},
    "shuffled": ["[4, 1]"],
    "shuffled within units": ["[2, 2, 0, 1, 0, 0]"],
    "random": ["5"],
    "drawn anew": [True, True, True],
}
#: What else has to hold.
FREE = ("free in layers", "free in units", "free in all")
KEPT |= dict.fromkeys((*FREE, "seeded", "generator", "scores"), True)

#: What is found where a likely mistake was made.
LIKELY = {
    "every tie": ("chosen", {"a": [0, 2, 3, 5], "b": [0, 2]}),
    "last tie": ("chosen", {"a": [0, 3, 5], "b": [0, 2]}),
    "rounded down": ("chosen", {"a": [0, 2, 3], "b": [2]}),
    "each layer alone": ("chosen", {"a": [0, 2], "b": [0, 2, 5]}),
    "absolute": ("chosen", {"a": [0, 2, 3], "b": [1, 2]}),
    "lowest": ("chosen", {"a": [1, 4], "b": [1, 3, 4]}),
    "inverse": ("inverted", {"a": [4], "b": [3, 5, 6, 7]}),
    "last lowest": ("inverted", {"a": [1], "b": [1, 4, 6, 7]}),
}


def places(mask: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the places that each layer keeps, in the order of flatten."""
    kept = {name: torch.as_tensor(mask[name]).flatten().nonzero().flatten() for name in SCORES}
    return {name: found.tolist() for name, found in kept.items()}


def counts(mask: Mapping[str, Tensor], what: str) -> str:
    """Return how many weights are kept: by each layer, by each unit, or in all."""
    layers = [int(mask[name].sum()) for name in SCORES]
    units = [int(unit.sum()) for name in SCORES for unit in mask[name]]
    return str({"shuffled": layers, "random": sum(layers)}.get(what, units))


def freedom(drawn: Mapping[str, list[Mapping[str, Tensor]]]) -> dict[str, bool]:
    """Return whether the draws reach more than a dependent choice could reach at most.

    Shuffled in rows alone, or by whole rows and columns, layer a has at most 9 masks of 15, and b
    4 of 8; with one order for all units a has 3 of 9; with the counts of layers fixed, random has
    one for a.
    """
    reached = {w: [len({str(places(m)[n]) for m in drawn[w]}) for n in SCORES] for w in CHANCE}
    layers = reached["shuffled"][0] > 9 and reached["shuffled"][1] > 4
    first = {int(mask["a"].sum()) for mask in drawn["random"]}
    units = reached["shuffled within units"][0] > 6
    return dict(zip(FREE, (layers, units, len(first) > 2), strict=True))


def facts(controls: Controls) -> dict[str, Any]:
    """Return what is determined of the masks that an answer draws with many seeds."""
    given, before = {name: z.clone() for name, z in SCORES.items()}, torch.get_rng_state()
    found = [returned(controls, given, DENSITY, seed) for seed in range(DRAWS)]
    again = controls(given, DENSITY, 3)
    drawn = {name: [masks[name] for masks in found] for name in CHANCE}
    return {
        "form": all(m[n].dtype == torch.bool for m in again.values() for n in SCORES)
        and all(m[n].shape == z.shape for m in again.values() for n, z in SCORES.items()),
        **{name: places(found[0][name]) for name in KEPT if name.startswith(("chosen", "inv"))},
        **{name: sorted({counts(m, name) for m in masks}) for name, masks in drawn.items()},
        "drawn anew": [len({str(places(m)) for m in masks}) > 2 for masks in drawn.values()],
        **freedom(drawn),
        "seeded": all(places(again[name]) == places(found[3][name]) for name in CHANCE),
        "generator": torch.equal(before, torch.get_rng_state()),
        "scores": all(torch.equal(given[name], z) for name, z in SCORES.items()),
    }


def kept_scores(found: Mapping[str, list[int]]) -> list[float]:
    """Return the scores at the places of a mask, in order of size."""
    return sorted(float(SCORES[name].flatten()[i]) for name, at in found.items() for i in at)


@or_value
def first_wrong(controls: Any) -> str:
    """Return the likely mistake, or else the first fact, that is wrong; a word passes as it is."""
    found = facts(controls)
    wrong = [name for name in KEPT if found[name] != KEPT[name]]
    same = [n for n, (part, value) in LIKELY.items() if found[part] == value]
    likely = [name for name in same if wrong[:1] == [LIKELY[name][0]]]
    if wrong[:1] in (["chosen"], ["inverted"]) and not likely:
        likely = ["ties"] * (kept_scores(found[wrong[0]]) == kept_scores(KEPT[wrong[0]]))
    return (likely or wrong or ["none"])[0]


CHOSEN = np.array([0.90, 0.80, 0.85, np.nan, 0.88])
OTHERS = np.array([[0.91, 0.78, 0.80, 0.99, 0.88], [0.95, np.nan, np.nan, 0.5, np.nan]])
#: Mean and half-width of the first row, whose differences are 1, -2, -5 and 0, as they are and as
#: likely mistakes have them. The second row has a single pair.
MEAN, HALF = -1.5, 4.20998
HALVES = {"denominator": 3.64595, "normal": 2.59284, "5% a side": 3.11321, "freedom": 3.67289}
HALVES |= {"none": HALF, "root": 8.41996}
ROWS = {"sign": (-MEAN, HALF), "fractions": (MEAN / 100, HALF / 100)}
ROWS |= {name: (MEAN, half) for name, half in HALVES.items()}


@or_value
def first_off(answer: Any) -> str:
    """Return what is wrong with an answer on two controls; a word passes as it is."""
    given = CHOSEN.copy(), OTHERS.copy()
    value = np.asarray(returned(answer, *given), dtype=float)
    if value.shape != (2, 4):
        return "shape"
    first, single = value
    if np.isnan(first).any() or first[3] != 4:
        return "missing" if np.isnan(first).any() else "pairs"
    wanted = {name: (mean, mean - half, mean + half) for name, (mean, half) in ROWS.items()}
    row = [name for name, three in wanted.items() if np.allclose(first[:3], three, rtol=2e-3)]
    if row != ["none"]:
        return (row or ["row"])[0]
    kept = all(map(np.array_equal, given, (CHOSEN, OTHERS), (True, True)))
    alone = np.allclose(single, [5, -math.inf, math.inf, 1])
    return "single" if not alone else "none" if kept else "inputs"
