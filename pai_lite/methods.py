"""The methods of the papers as presets: what scores a weight, when to prune, how many to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pai_lite import criteria
from pai_lite.scores import Scores, erk_counts, uniform_counts

Criterion = Callable[..., Scores]


@dataclass(frozen=True)
class Method:
    """A method of the literature: what scores a weight, when to prune, how many to keep where.

    Attributes:
        criterion: function ``(model, batches, **options) -> Scores``.
        source: where the method was proposed or is described.
        batches: how many batches the criterion needs; 0 where it looks at no data.
        allocation: function ``(scores, sparsity) -> counts`` that fixes how many weights each
            layer keeps; None lets all layers compete for the same k places.
        steps: how often the network is scored; 1 is one-shot pruning. None is one-shot pruning
            by a criterion that counts steps of its own, as ProsPr's steps of training.
        schedule: of the numbers kept, where there are several steps.
        regrow: whether removed weights are scored again, with their initial value, and may return.
        prune_at: the step of training at which the network is scored; None is after the last.
        rewind_to: the step whose weights the pruned network is trained from; None is prune_at.
    """

    criterion: Criterion
    source: str
    batches: int = 1
    allocation: Callable[[Mapping[str, Any], float], dict[str, int]] | None = None
    steps: int | None = 1
    schedule: str = "exponential"
    regrow: bool = False
    prune_at: int | None = 0
    rewind_to: int | None = None

    def batches_with(self, options: Mapping[str, Any]) -> int:
        """Return how many batches the method needs with these options.

        A criterion that trains takes one batch a step and one more for the loss at the end.
        """
        trains = self.steps is None and "steps" in options
        return max(options["steps"], 0) + 1 if trains else self.batches


FORCE = "de Jorge et al. 2021"
MARK = "Frankle et al. 2021"
PROSPR = "Alizadeh et al. 2022"
ERK = "Evci et al. 2020, section 3"

#: The methods of the papers by name.
METHODS: dict[str, Method] = {
    "random": Method(criteria.random, f"{MARK}, section 3", batches=0),
    "random-uniform": Method(
        criteria.random,
        f"{ERK}, but the first layer is pruned like the others",
        batches=0,
        allocation=uniform_counts,
    ),
    "random-erk": Method(criteria.random, ERK, batches=0, allocation=erk_counts),
    "magnitude": Method(criteria.magnitude, f"{MARK}, section 3", batches=0),
    "snip": Method(criteria.snip, "Lee et al. 2019"),
    "iter-snip": Method(criteria.snip, f"{FORCE}, eq. 7", steps=60),
    "force": Method(criteria.snip, f"{FORCE}, eq. 5 and 6", steps=60, regrow=True),
    "grasp": Method(criteria.grasp, "Wang et al. 2020"),
    "grasp-abs": Method(criteria.grasp_abs, f"{MARK}, appendix H"),
    "iter-grasp": Method(criteria.grasp, f"{FORCE}, appendix E.2", steps=60),
    "grasp-it": Method(criteria.grad_norm, f"{FORCE}, appendix E.1", steps=60),
    "synflow": Method(criteria.synflow, "Tanaka et al. 2020", steps=100),
    "prospr": Method(criteria.prospr, f"{PROSPR}, eq. 3 to 12", batches=4, steps=None),
    "prospr-first-order": Method(
        criteria.prospr_first_order, f"{PROSPR}, eq. 13 to 17", batches=4, steps=None
    ),
    "magnitude-after": Method(
        criteria.magnitude, f"{MARK}, section 3; Renda et al. 2020", batches=0, prune_at=None
    ),
    "lottery-ticket": Method(
        criteria.magnitude,
        "Frankle and Carbin 2019; Frankle et al. 2020",
        batches=0,
        prune_at=None,
        rewind_to=0,
    ),
}
