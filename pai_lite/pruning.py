"""Pruning by name: scores, then a mask, once or along a schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pai_lite.gradients import Batches, repeatable
from pai_lite.lookup import look_up
from pai_lite.masks import Mask
from pai_lite.methods import METHODS, Method
from pai_lite.progress import progress_bar
from pai_lite.schedules import schedule_counts
from pai_lite.scores import Scores, check_sparsity, keep_count, keep_top_per_layer
from pai_lite.scores import invert as inverted
from pai_lite.structured import ChannelMask, prune_channels

StepBatches = Batches | Callable[[int], Batches]

GRANULARITIES = ("weight", "channel")


@dataclass(frozen=True, eq=False)
class Step:
    """One step of iterative pruning.

    Attributes:
        number: of the step, from 1.
        scores: that the step chose from.
        mask: that it chose.
        before: the mask that it started from.
    """

    number: int
    scores: Scores
    mask: Mask
    before: Mask

    @property
    def kept_share(self) -> float:
        """The share of the sum of absolute scores that the kept weights hold."""
        kept = sum(float(z[self.mask[name]].abs().sum()) for name, z in self.scores.items())
        return kept / (sum(float(z.abs().sum()) for z in self.scores.values()) or 1.0)

    @property
    def revived(self) -> int:
        """The number of weights that were removed before and are kept now."""
        return sum(int((kept & ~self.before[name]).sum()) for name, kept in self.mask.items())

    def row(self) -> dict[str, float]:
        """Return the step as a row of a table."""
        return {
            "step": self.number,
            "density": self.mask.density,
            "kept_share": self.kept_share,
            "revived": self.revived,
            "empty_layers": sum(count == 0 for count in self.mask.layer_counts().values()),
        }


def prune(
    model: nn.Module,
    method: str | Method,
    batches: StepBatches | None = None,
    *,
    sparsity: float,
    granularity: str = "weight",
    progress: bool = True,
    **options: Any,
) -> Mask | ChannelMask:
    """Return the mask that a method chooses; the model stays as it is.

    Args:
        method: a name in :data:`~pai_lite.methods.METHODS`, or a :class:`Method` of your own.
        batches: one pair (inputs, targets) or an iterable of pairs; may be left out where the
            method looks at no data. All of them are used in every step. A function from the
            number of the step, 0 for the first, to either gives every step its own batches.
        sparsity: the fraction of prunable weights, or of channels, to remove, in [0, 1).
        granularity: "weight", or "channel" to remove whole channels with
            :func:`prune_channels`, which takes other options and needs a batch always.
        progress: show a progress bar where there are several steps.
        options: those of :func:`prune_steps`, and those of the method's criterion, for example
            ``seed=1`` for "random".

    Warns:
        LayerCollapseWarning: a layer keeps no weight.

    Raises:
        ValueError: the method is unknown or prunes a trained network, the sparsity is outside
            [0, 1), the granularity is neither of the two, the data is missing or does not fit
            the model, a score is not finite, or several steps are asked of a method that they
            cannot change.
    """
    if granularity not in GRANULARITIES:
        raise ValueError(f"granularity is {granularity!r}; it must be one of {GRANULARITIES}.")
    if granularity == "channel":
        return prune_channels(model, method, batches, sparsity=sparsity, **options)
    options["progress"] = progress
    for step in prune_steps(model, method, batches, sparsity=sparsity, **options):
        mask = step.mask
    mask.warn_if_collapsed()
    return mask


def prune_steps(
    model: nn.Module,
    method: str | Method,
    batches: StepBatches | None = None,
    *,
    sparsity: float,
    steps: int | None = None,
    schedule: str | None = None,
    regrow: bool | None = None,
    invert: bool = False,
    progress: bool = False,
    **options: Any,
) -> Iterator[Step]:
    """Yield the steps of :func:`prune` one by one; the last holds the mask that it returns.

    Score at the pruned network, keep a little less, and repeat along the schedule. A table of all
    steps is ``pd.DataFrame(step.row() for step in pai.prune_steps(...))``.

    Source: de Jorge et al. 2021, algorithm 1.

    Args:
        model, method, batches, sparsity, progress: as for :func:`prune`.
        steps: their number, if not the method's own. For "prospr" and "prospr-first-order", which
            score once, it is the number of training steps before the score.
        schedule, regrow: other than the method's own; see :class:`Method`.
        invert: keep the weights of lowest score, as a control (Frankle et al. 2021, section 5).
        options: of the method's criterion.

    Raises:
        ValueError: as :func:`prune`.
    """
    preset = method if isinstance(method, Method) else look_up(METHODS, method, "method")
    check_sparsity(sparsity)
    if preset.steps is None and steps is not None:
        options["steps"], steps = steps, None
    given = {"steps": steps, "schedule": schedule, "regrow": regrow}
    preset = replace(preset, **{name: value for name, value in given.items() if value is not None})
    check_method(preset, method, batches)
    mask, rounds = Mask.dense(model), 1 if preset.steps is None else preset.steps
    if rounds > 1 and not callable(batches):
        batches = repeatable(batches)
    counts = schedule_counts(mask.size, sparsity, steps=rounds, schedule=preset.schedule)
    with progress_bar(progress and rounds > 1, iterable=counts, unit="step") as bar:
        for t, count in enumerate(bar):
            at = {"mask": mask} if t > 0 else {}
            data = batches(t) if callable(batches) else batches
            scores = preset.criterion(model, data, **at, **options)
            scores, before = inverted(scores) if invert else scores, mask
            mask = choose(preset, scores, count, sparsity, mask if t > 0 else None)
            yield Step(t + 1, scores, mask, before)


def choose(
    preset: Method, scores: Scores, count: int, sparsity: float, before: Mask | None
) -> Mask:
    """Return the mask of one step: so many weights in all, or a number in each layer."""
    if preset.allocation is not None:
        return keep_top_per_layer(scores, preset.allocation(scores, sparsity))
    return keep_count(scores, count, among=None if preset.regrow else before)


def check_method(preset: Method, name: str | Method, batches: StepBatches | None) -> None:
    """Raise a ``ValueError`` where a method cannot do what is asked of it."""
    if preset.prune_at != 0:
        raise ValueError(
            f"{name!r} prunes a trained network; use "
            f"pai.prune_later(model, {name!r}, data, recipe, sparsity=...)."
        )
    if preset.batches and batches is None:
        raise ValueError(f"{name!r} needs data; pass batches, for example data.batch().")
    if preset.steps is not None and preset.steps > 1 and not preset.batches:
        raise ValueError(
            f"{name!r} scores a weight whatever else is removed, so steps={preset.steps} would "
            "choose the same weights as one step; leave steps out."
        )
