"""Checks of the project, on designing a criterion and its controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pai_lite import criteria
from pai_lite.exercises.engine import Exercise, Mistake, returned
from pai_lite.masks import prunable_parameters
from pai_lite.scores import Scores, keep_top

PREFIX = "project"

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


def first_broken(criterion: Any) -> str:
    """Return the first rule of the criterion that an answer breaks; a word passes as it is."""
    if not callable(criterion):
        return criterion
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


def first_wrong(controls: Any) -> str:
    """Return the likely mistake, or else the first fact, that is wrong; a word passes as it is."""
    if not callable(controls):
        return controls
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


def first_off(answer: Any) -> str:
    """Return what is wrong with an answer on two controls; a word passes as it is."""
    if not callable(answer):
        return answer
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


BROKEN_RULES = {
    "mapping": "A dictionary is wanted, from the name of each prunable weight to its scores.",
    "all parameters": "You score biases and BatchNorm's parameters too, which are not pruned.",
    "names": "The names are not those of pai.prunable_parameters(model). Take them from there.",
    "shapes": "A tensor of scores has another shape than its weight.",
    "finite": "Some scores are NaN or infinite. Look for a division by zero, and for logarithms.",
    "graph": "Your scores carry a graph, and keep all of the network alive: detach them.",
    "constant": "In one layer all scores are equal: a shuffle would change nothing there.",
    "weights": "The weights of the model have changed. Work on a copy (copy.deepcopy).",
    "gradients": "The gradients of the model have changed: backward() adds to .grad. Use "
    "torch.autograd.grad, or a copy of the model.",
    "statistics": "BatchNorm's running statistics have changed, as in every forward pass in train "
    "mode. Send the batch through a copy of the model.",
    "modes": "A module is not in the mode in which it was: here BatchNorm alone was in eval mode.",
    "flags": "requires_grad of a parameter has changed.",
    "hooks": "A hook has stayed behind: remove it, or use a copy of the model.",
    "generator": "PyTorch's global generator has moved. Dropout in train mode draws from it, as "
    "does torch.rand without a generator.",
    "repeat": "Two calls with the same model and batch differ: noise from the global generator?",
    "blind": "Another network with another batch gets the same scores in a layer: your criterion "
    "looks at neither weights nor data there.",
    "known": "Your mask is nearly that of a criterion of the package. A score that orders the "
    "weights as another does, for example its square, gives the same mask.",
}

WRONG_MASKS = {
    "every tie": "More than k weights are kept. Of those equal to the k-th score the first stay.",
    "last tie": "Of equal scores the last are kept; argsort(descending=True, stable=True) has the "
    "first first.",
    "rounded down": "One weight is missing: k = round(density * n), here round(4.62) = 5.",
    "each layer alone": "The k largest are taken over all layers together, not layer by layer.",
    "absolute": "You have taken absolute values. A score of -4 is a low one.",
    "lowest": "You keep the lowest scores: a larger score means keep.",
    "inverse": "1 / score does not reverse the order of signed scores; zeros become infinite.",
    "last lowest": "The first of equal scores is taken here too: the order of the largest, read "
    "backwards, has the last of them first.",
    "ties": "Only the ties are wrong: of equal scores the first is taken. torch.topk and argsort, "
    "unless stable=True, promise no order.",
    "form": "A mask is no bool tensor, or has another shape than its scores.",
    "chosen": "'chosen' is not right for [[3, -1, 2], [2, 0, 2]] and "
    "[[2, -4], [5, 0], [-1, 1], [0, 0]] at a density of 0.33.",
    "inverted": "'inverted' does not keep the five lowest scores. Equal ones: the first is taken.",
    "inverted within layers": "'inverted within layers' keeps in each layer as many weights as "
    "'chosen' does, those of the lowest scores of the layer.",
    "shuffled": "'shuffled' has not as many weights in each layer as 'chosen', for every seed.",
    "shuffled within units": "The units of 'shuffled within units' have not as many weights as "
    "those of 'chosen'. A unit is mask[name][u]; permute each by itself.",
    "random": "'random' has not exactly k weights for every seed. A mask drawn weight by weight "
    "with probability d has k of them only on average.",
    "drawn anew": "A mask of chance is the same for all seeds: nothing was drawn, or the seed is "
    "not used.",
    "free in layers": "Over many seeds 'shuffled' reaches few masks of a layer. Permute all its "
    "weights as one list, not whole rows or columns.",
    "free in units": "All units of a layer are permuted in the same way. Draw an order for each.",
    "free in all": "'random' has the same layer counts for all seeds: leave them free.",
    "seeded": "The same seed gives different masks: draw from a torch.Generator made inside.",
    "generator": "The global generator has moved. Draw from a torch.Generator of your own.",
    "scores": "The scores that were passed in have changed.",
}

WRONG_ROWS = {
    "shape": "An array of shape (controls, 4) is wanted, here (2, 4).",
    "missing": "There is NaN in the first row. Leave out the seeds in which a run is missing.",
    "pairs": "The first control has four pairs, whatever the other control lacks.",
    "sign": "The sign is turned: the difference is control minus criterion.",
    "fractions": "These are fractions, not percentage points.",
    "denominator": "The denominator of S_D is N - 1; NumPy's default is N.",
    "normal": "1.96 is for many seeds; for four pairs the quantile is 3.18.",
    "5% a side": "This leaves 5% on either side; a 95% interval leaves 2.5%.",
    "freedom": "N pairs have N - 1 degrees of freedom.",
    "root": "The standard deviation of a mean is S_D over the root of N.",
    "row": "[0.91, 0.78, 0.80, 0.99, 0.88], where chosen is [0.90, 0.80, 0.85, nan, 0.88], has "
    "a mean of -1.5 points, and its interval goes from -5.71 to 2.71.",
    "single": "One pair has no spread. The row of a single 5 points is [5, -inf, inf, 1].",
    "inputs": "An array that was handed in has changed: -= and assignments work in place.",
}

EXERCISES: dict[int, Exercise] = {
    1: Exercise(
        right="none",
        praise="On the network of this check no rule is broken.",
        hint="A rule of the list is broken; go through it from the top.",
        probe=first_broken,
        mistakes=tuple(Mistake(rule, rule, reason) for rule, reason in BROKEN_RULES.items()),
    ),
    4: Exercise(
        right="none",
        praise="Form, counts, places and seeds are as described, on an example with 60 seeds.",
        hint="Compute the six masks of the example in the question by hand first.",
        probe=first_wrong,
        mistakes=tuple(Mistake(fact, fact, reason) for fact, reason in WRONG_MASKS.items()),
    ),
    5: Exercise(
        right="none",
        praise="Pairs, direction, quantile and missing runs are right.",
        hint="Work through the example of the question by hand first.",
        probe=first_off,
        mistakes=tuple(Mistake(fact, fact, reason) for fact, reason in WRONG_ROWS.items()),
    ),
}
