"""Checks of the project, on designing a criterion and its controls."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise, Mistake
from pai_lite.exercises.project_probes import first_broken, first_off, first_wrong

PREFIX = "project"

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
