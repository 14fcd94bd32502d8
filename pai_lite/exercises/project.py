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


def equal(a: Any, b: Any) -> bool:
    """Say whether two entries of a state are the same."""
    return (
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b
    )


def unchanged(before: list[Any], after: list[Any]) -> bool:
    """Say whether a part of a state is as it was."""
    return len(before) == len(after) and all(map(equal, before, after))


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
    "a": torch.tensor([[3.0, -1.0, 2.0], [2.0, 0.0, 1.0]], dtype=torch.float64),
    "b": torch.tensor([[2.0, -4.0], [5.0, 0.0], [-1.0, 2.0], [0.0, 0.0]], dtype=torch.float64),
}
DENSITY, DRAWS = 0.33, 30
CHANCE = ("shuffled", "shuffled within units", "random")

#: What is determined of the six masks, by hand: k = round(0.33 * 14) = 5.
KEPT = {
    "chosen": {"a": [0, 2, 3], "b": [0, 2]},
    "inverted": {"a": [1, 4], "b": [1, 3, 4]},
    "inverted within layers": {"a": [1, 4, 5], "b": [1, 4]},
    "shuffled": ["[3, 2]"],
    "shuffled within units": ["[2, 1, 1, 1, 0, 0]"],
    "random": ["5"],
    "drawn anew": [True, True, True],
    "seeded": True,
    "scores": True,
}
#: What is found where a likely mistake was made.
LIKELY = {
    "every tie": ("chosen", {"a": [0, 2, 3], "b": [0, 2, 5]}),
    "last tie": ("chosen", {"a": [0, 3], "b": [0, 2, 5]}),
    "rounded down": ("chosen", {"a": [0, 2, 3], "b": [2]}),
    "each layer alone": ("chosen", {"a": [0, 2], "b": [0, 2, 5]}),
    "absolute": ("chosen", {"a": [0, 2, 3], "b": [1, 2]}),
    "lowest": ("chosen", {"a": [1, 4], "b": [1, 3, 4]}),
    "inverse": ("inverted", {"a": [4], "b": [3, 6, 7]}),
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


def facts(controls: Controls) -> dict[str, Any]:
    """Return what is determined of the masks that an answer draws with many seeds."""
    given = {name: z.clone() for name, z in SCORES.items()}
    found = [returned(controls, given, DENSITY, seed) for seed in range(DRAWS)]
    again = controls(given, DENSITY, 3)
    drawn = {name: [masks[name] for masks in found] for name in CHANCE}
    return {
        **{name: places(found[0][name]) for name in KEPT if name.startswith(("chosen", "inv"))},
        **{name: sorted({counts(m, name) for m in masks}) for name, masks in drawn.items()},
        "drawn anew": [len({str(places(m)) for m in masks}) > 2 for masks in drawn.values()],
        "seeded": all(places(again[name]) == places(found[3][name]) for name in CHANCE),
        "scores": all(torch.equal(given[name], z) for name, z in SCORES.items()),
    }


def first_wrong(controls: Any) -> str:
    """Return the likely mistake, or else the first fact, that is wrong; a word passes as it is."""
    if not callable(controls):
        return controls
    found = facts(controls)
    wrong = [name for name in KEPT if found[name] != KEPT[name]]
    likely = [
        n for n, (part, value) in LIKELY.items() if wrong[:1] == [part] and found[part] == value
    ]
    return (likely or wrong or ["none"])[0]


CHOSEN = np.array([0.90, 0.80, 0.85, np.nan, 0.88])
OTHERS = np.array([[0.91, 0.78, 0.80, 0.99, 0.88], [0.95, np.nan, np.nan, 0.5, np.nan]])
#: Of the first row: the differences are 1, -2, -5 and 0.
MEAN, HALF = -1.5, 4.20998


def rows(answer: Any) -> Any:
    """Return the rows of an answer on two controls as lists; a list passes as it is."""
    if not callable(answer):
        return answer
    value = np.asarray(returned(answer, CHOSEN.copy(), OTHERS.copy()), dtype=float)
    return [[float(number) for number in row] for row in value]


def table(mean: float, half: float, single: float = 5.0) -> list[list[float]]:
    """Return the two rows: four pairs, and a single one."""
    return [[mean, mean - half, mean + half, 4.0], [single, -math.inf, math.inf, 1.0]]


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
    "statistics": "BatchNorm's running statistics have changed: a forward pass in train mode "
    "updates them, with or without a gradient. Send the batch through a copy of the model.",
    "modes": "A module is not in the mode in which it was. Here BatchNorm alone was in eval mode; "
    "model.train() at the end puts it into train mode. Use a copy.",
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
    "every tie": "A mask keeps more than k weights: all that are not below the k-th score. Of "
    "those equal to it only as many stay as are missing, the first of them.",
    "last tie": "Of equal scores the last are kept. The rule is the first; "
    "argsort(descending=True, stable=True) has them in this order.",
    "rounded down": "One weight is missing: k = round(density * n), here round(4.62) = 5.",
    "each layer alone": "The k largest are taken over all layers together, not layer by layer.",
    "absolute": "You have taken absolute values. A score of -4 is a low one.",
    "lowest": "You keep the lowest scores: a larger score means keep.",
    "inverse": "1 / score does not reverse the order of signed scores; zeros become infinite.",
    "last lowest": "The first of equal scores is taken here too: the order of the largest, read "
    "backwards, has the last of them first.",
    "chosen": "'chosen' is not right for [[3, -1, 2], [2, 0, 1]] and "
    "[[2, -4], [5, 0], [-1, 2], [0, 0]] at a density of 0.33.",
    "inverted": "'inverted' does not keep the five lowest scores. Equal ones: the first is taken.",
    "inverted within layers": "'inverted within layers' keeps in each layer as many weights as "
    "'chosen' does, those of the lowest scores of the layer.",
    "shuffled": "'shuffled' has not as many weights in each layer as 'chosen', for every seed.",
    "shuffled within units": "The units of 'shuffled within units' have not as many weights as "
    "those of 'chosen'. A unit is mask[name][u]; permute each by itself.",
    "random": "'random' has not exactly k weights for every seed. A mask drawn weight by weight "
    "with probability d has k of them only on average.",
    "drawn anew": "A mask of chance is the same for all seeds: nothing was drawn, or the seed is "
    "not used. Assigning to a loop variable changes no tensor.",
    "seeded": "The same seed gives different masks: draw from a torch.Generator made inside.",
    "scores": "The scores that were passed in have changed.",
}

WRONG_ROWS = {
    "The sign is turned: the difference is control minus criterion.": table(-MEAN, HALF, -5.0),
    "These are fractions, not percentage points.": table(MEAN / 100, HALF / 100, 0.05),
    "The denominator of S_D is N - 1; NumPy's default is N.": table(MEAN, 3.64595),
    "1.96 is for many seeds; for four pairs the quantile is 3.18.": table(MEAN, 2.59284),
    "This leaves 5% on either side; a 95% interval leaves 2.5%.": table(MEAN, 3.11321),
    "N pairs have N - 1 degrees of freedom.": table(MEAN, 3.67289),
    "The standard deviation of a mean is S_D over the root of N.": table(MEAN, 8.41996),
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
        praise="Counts, places and seeds are as described.",
        hint="Compute the six masks of the example in the question by hand first.",
        probe=first_wrong,
        mistakes=tuple(Mistake(fact, fact, reason) for fact, reason in WRONG_MASKS.items()),
    ),
    5: Exercise(
        right=table(MEAN, HALF),
        praise="Pairs, direction, quantile and missing runs are right.",
        hint="Try chosen = [0.90, 0.80, 0.85, nan, 0.88] and the controls "
        "[0.91, 0.78, 0.80, 0.99, 0.88] and [0.95, nan, nan, 0.5, nan]. The first has four pairs, "
        "with a mean of -1.5 points, the second one pair.",
        probe=rows,
        mistakes=tuple(Mistake(reason, wrong, reason) for reason, wrong in WRONG_ROWS.items()),
    ),
}
