"""Effects in a reader's units and words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tools.claims import Check
from tools.evidence import Effect


@dataclass(frozen=True)
class Quantity:
    """How a column of the results is shown.

    Attributes:
        words: what it is.
        percent: whether it is a fraction that reads better times 100.
    """

    words: str
    percent: bool = False


QUANTITIES = {
    "test_accuracy": Quantity("test accuracy", percent=True),
    "best_test_accuracy": Quantity("best test accuracy", percent=True),
    "saliency": Quantity("kept saliency over one-shot SNIP's"),
    "gradient_norm": Quantity("squared gradient norm over the dense network's"),
    "emptied_units": Quantity("units emptied", percent=True),
    "emptied_layers": Quantity("layers emptied"),
    "lowest_layer_density": Quantity("density of the emptiest layer", percent=True),
    "lowest_layer_kept": Quantity("weights kept in the emptiest layer"),
    "output_density": Quantity("density of the output layer", percent=True),
    "output_rank": Quantity("rank of the output layer, 1 the densest"),
    "top_density": Quantity("density of the top layers", percent=True),
    "shortcut_density": Quantity("density of shortcuts over that of their blocks"),
    "effective": Quantity("effective weights over kept weights"),
    "effective_shuffled": Quantity("effective weights, shuffled over unshuffled"),
    "connected": Quantity("masks with a path left", percent=True),
    "overlap_batch": Quantity("kept with another batch too", percent=True),
    "reached": Quantity("sparsity reached", percent=True),
}


@dataclass(frozen=True)
class Shown:
    """An effect in the units that it is shown in, and the range that the claim gives it."""

    mean: float
    low: float
    high: float
    least: float
    most: float
    outcome: str


def quantity_of(check: Check) -> Quantity:
    """Return how the quantity of a check is shown."""
    return QUANTITIES.get(check.quantity, Quantity(check.quantity.replace("_", " ")))


def shown(effect: Effect, check: Check) -> Shown:
    """Return an effect in the units that it is shown in; a share lies between 0 and 100%."""
    share = quantity_of(check).percent
    factor = 100.0 if share else 1.0
    least, most = check.holds_in
    low, high = factor * effect.low, factor * effect.high
    if share and not check.against:
        low, high = max(low, 0.0), min(high, 100.0)
    return Shown(
        factor * effect.mean,
        low,
        high,
        -math.inf if least is None else factor * least,
        math.inf if most is None else factor * most,
        effect.outcome,
    )


def unit(check: Check) -> str:
    """Return the unit behind a number: "points", "%", or none."""
    if not quantity_of(check).percent:
        return ""
    return " points" if check.against else "%"


def axis_label(check: Check) -> str:
    """Return what a picture's axis says about the quantity of a check."""
    words, behind = quantity_of(check).words, unit(check).strip()
    words = f"difference in {words}" if check.against else words
    return f"{words} ({behind})" if behind else words


def effect_words(effect: Effect, check: Check) -> str:
    """Return the mean and its interval, as "+1.3 [0.4, 2.2] points"; of equal values, the value."""
    found = shown(effect, check)
    if found.low == found.high:
        style = "+.6g" if check.against and found.mean else ".6g"
        return f"{found.mean:{style}}{unit(check)} each time".replace("-", "−")
    places = decimals(found.high - found.low)
    low, high = number(found.low, places), number(found.high, places)
    return f"{number(found.mean, places, bool(check.against))} [{low}, {high}]{unit(check)}"


def decimals(width: float) -> int:
    """Return how many decimals an interval of this width is worth: two digits of its half."""
    if not 0 < width < math.inf:
        return 2
    return min(6, max(0, 1 - math.floor(math.log10(width / 2))))


def number(value: float, places: int, signed: bool = False) -> str:
    """Return a number with a true minus sign, and in powers of ten where it is long.

    What rounds to zero has no sign.
    """
    style = f".{places}f" if abs(value) < 1e5 else ".2e"
    text = format(value, ("+" if signed else "") + style)
    return text.replace("-", "−") if float(text) else text.lstrip("+-")


def range_words(check: Check) -> str:
    """Return the range in which the claim puts the effect, as "at least −2"."""
    factor = 100.0 if quantity_of(check).percent else 1.0
    least, most = (None if end is None else f"{factor * end:.6g}" for end in check.holds_in)
    if (least, most) in (("0", None), (None, "0")):
        return "above 0" if most is None else "below 0"
    if least == most:
        text = f"exactly {least}"
    elif most is None:
        text = f"at least {least}"
    elif least is None:
        text = f"at most {most}"
    else:
        text = f"from {least} to {most}"
    return text.replace("-", "−") + unit(check)
