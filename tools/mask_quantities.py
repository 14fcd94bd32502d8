"""What is measured on a mask before any training: one number a quantity, nothing fitted.

A quantity that cannot be computed is NaN, for example a ratio to 0; it becomes an empty cell.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from pai_lite.ablations import shuffle
from pai_lite.analysis import emptied_units
from pai_lite.gradients import Batch, mean_gradient
from pai_lite.masks import Mask, prunable_parameters
from pai_lite.paths import effective_mask
from pai_lite.scores import Scores, keep_top

#: All quantities, in the order of the columns.
QUANTITIES = (
    *("saliency", "gradient_norm"),
    *("emptied_units", "emptied_layers", "lowest_layer_density", "lowest_layer_kept"),
    *("output_density", "output_rank", "top_density", "shortcut_density"),
    *("effective", "effective_shuffled", "connected"),
)

#: What the 1x1 convolutions of shortcuts are called, here and in torchvision.
SHORTCUTS = ("shortcut", "downsample")


class Reference:
    """What masks of one network are compared with: its dense gradient and one-shot SNIP.

    Attributes:
        model: with its initial weights.
        batch: the pair (inputs, targets) of all gradients.
    """

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.weights = {n: w.detach() for n, w in prunable_parameters(model).items()}
        gradients = mean_gradient(model, batch)
        self.sensitivity = Scores({n: (w * gradients[n]).abs() for n, w in self.weights.items()})
        self.norm = sum(float(g.double().square().sum()) for g in gradients.values())
        self.snip_saliency: dict[float, float] = {}

    def totals(self, mask: Mask) -> tuple[float, float]:
        """Return the kept saliency and the squared gradient norm of a mask, from one gradient.

        They are those of :func:`pai_lite.kept_saliency` and :func:`pai_lite.squared_gradient_norm`,
        but that a gradient which is not finite at a removed weight does not matter.
        """
        gradients = mean_gradient(self.model, self.batch, mask=mask)
        kept = [(self.weights[n][m].double(), gradients[n][m].double()) for n, m in mask.items()]
        saliency = sum(float((w * g).abs().sum()) for w, g in kept)
        return saliency, sum(float(g.square().sum()) for _, g in kept)

    def saliency_of_snip(self, sparsity: float) -> float:
        """Return the kept saliency of one-shot SNIP, computed once a sparsity."""
        if sparsity not in self.snip_saliency:
            mask = keep_top(self.sensitivity, sparsity)
            self.snip_saliency[sparsity] = self.totals(mask)[0]
        return self.snip_saliency[sparsity]


def measure(reference: Reference, mask: Mask, sparsity: float, seed: int) -> dict[str, float]:
    """Return all quantities of a mask.

    Args:
        sparsity: that was asked for, at which one-shot SNIP is compared.
        seed: of the shuffle within layers.

    Raises:
        ValueError: the mask does not fit the network.
    """
    return {
        **gradient_quantities(reference, mask, sparsity),
        **layer_quantities(mask),
        "shortcut_density": shortcut_density(mask),
        **path_quantities(reference, mask, seed),
    }


def gradient_quantities(reference: Reference, mask: Mask, sparsity: float) -> dict[str, float]:
    """Return the kept saliency over that of one-shot SNIP, and g'g over the dense network's.

    Source: de Jorge et al. 2021, figures 4a and 6b.
    """
    saliency, norm = reference.totals(mask)
    return {
        "saliency": ratio(saliency, reference.saliency_of_snip(sparsity)),
        "gradient_norm": ratio(norm, reference.norm),
    }


def layer_quantities(mask: Mask) -> dict[str, float]:
    """Return the share of emptied units, and how the kept weights are spread over the layers.

    The rank of the output layer is 1 where no layer is denser. The top layers are the last third,
    in the order of the modules, of all layers but the output.
    """
    density, counts = mask.layer_density(), mask.layer_counts()
    hidden = list(mask)[:-1]
    top = hidden[-math.ceil(len(hidden) / 3) :] if hidden else []
    return {
        "emptied_units": float(emptied_units(mask).mean()),
        "emptied_layers": sum(count == 0 for count in counts.values()),
        "lowest_layer_density": float(density.min()),
        "lowest_layer_kept": min(counts.values()),
        "output_density": float(density.iloc[-1]),
        "output_rank": 1 + int((density > density.iloc[-1]).sum()),
        "top_density": pooled_density([mask[name] for name in top]),
    }


def shortcut_density(mask: Mask) -> float:
    """Return the density of the 1x1 shortcuts over that of the 3x3 convolutions beside them.

    NaN where the network has no such shortcut.

    Source: Frankle et al. 2021, appendix J.
    """
    shortcuts = [n for n, m in mask.items() if is_shortcut(n) and m.shape[2:] == (1, 1)]
    blocks = tuple(n[: n.index(f".{s}") + 1] for n in shortcuts for s in SHORTCUTS if f".{s}" in n)
    beside = [n for n, m in mask.items() if n.startswith(blocks) and m.shape[2:] == (3, 3)]
    short, block = (pooled_density([mask[n] for n in names]) for names in (shortcuts, beside))
    return ratio(short, block)


def is_shortcut(name: str) -> bool:
    """Say whether a parameter belongs to a shortcut."""
    return any(f".{word}" in name for word in SHORTCUTS)


def path_quantities(reference: Reference, mask: Mask, seed: int) -> dict[str, float]:
    """Return the effective weights over the kept ones, and what a shuffle does to their number.

    Source: Frankle et al. 2021, appendix M and figure 16.
    """
    effective, shuffled = (
        effective_mask(reference.model, reference.batch, m).kept
        for m in (mask, shuffle(mask, seed=seed))
    )
    return {
        "effective": ratio(effective, mask.kept),
        "effective_shuffled": ratio(shuffled, effective),
        "connected": int(effective > 0),
    }


def common_share(mask: Mask, other: Mask) -> float:
    """Return the share of the weights that a mask keeps which the other keeps, too."""
    return ratio(sum(int((m & other[n]).sum()) for n, m in mask.items()), mask.kept)


def pooled_density(tensors: list[Tensor]) -> float:
    """Return the density of several layers taken together, NaN of none."""
    return ratio(sum(int(t.sum()) for t in tensors), sum(t.numel() for t in tensors))


def ratio(part: float, whole: float) -> float:
    """Return part / whole, NaN where it is not finite."""
    return part / whole if whole and math.isfinite(part) and math.isfinite(whole) else math.nan
