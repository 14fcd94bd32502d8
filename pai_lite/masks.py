"""Masks: which weights of a network stay.

A mask holds one boolean tensor per prunable parameter; True means that the weight is kept.
Prunable are the weights of linear and convolutional layers.
Biases and BatchNorm's parameters are never pruned and never counted.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from pai_lite.files import whole_file

PRUNABLE_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LayerCollapseWarning(UserWarning):
    """A layer has lost all its weights, so that no signal passes through it."""


def prunable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the prunable weights of a model by parameter name, in the order of its modules.

    Raises:
        ValueError: the model has no linear or convolutional layer, or a layer carries a mask of
            ``torch.nn.utils.prune``, whose weight is not a parameter any more.
    """
    weights: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        if isinstance(module, PRUNABLE_LAYERS):
            full_name = f"{name}.weight" if name else "weight"
            if torch_prune.is_pruned(module):
                raise ValueError(
                    f"{full_name} carries a mask of torch.nn.utils.prune. "
                    "Remove it with torch.nn.utils.prune.remove(module, 'weight'), "
                    "or start from a model without masks."
                )
            weights[full_name] = module.weight
    if not weights:
        raise ValueError(
            f"{type(model).__name__} has no prunable layer: "
            "it needs at least one Linear or Conv layer."
        )
    return weights


def copy_model(model: nn.Module) -> nn.Module:
    """Return a deep copy that shares no memory with the model.

    Raises:
        ValueError: as :func:`prunable_parameters`; PyTorch cannot copy a model that carries
            masks of ``torch.nn.utils.prune``.
    """
    prunable_parameters(model)
    return copy.deepcopy(model)


@contextmanager
def preserved_modes(model: nn.Module) -> Iterator[None]:
    """Restore the train or eval mode of every module afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def check_fit(tensors: Mapping[str, Tensor], model: nn.Module, what: str) -> None:
    """Raise a ``ValueError`` where names or shapes differ from the model's prunable weights."""
    weights = prunable_parameters(model)
    missing, unknown = weights.keys() - tensors.keys(), tensors.keys() - weights.keys()
    if missing or unknown:
        raise ValueError(
            f"The {what} does not fit the model: it lacks {sorted(missing) or 'nothing'} "
            f"and has {sorted(unknown) or 'nothing'} too many. "
            f"Make it from a model of the same architecture."
        )
    for name, weight in weights.items():
        if tensors[name].shape != weight.shape:
            raise ValueError(
                f"The {what} of {name} has shape {tuple(tensors[name].shape)}; "
                f"the weight has shape {tuple(weight.shape)}."
            )


class NamedTensors(Mapping[str, Tensor]):
    """Tensors by parameter name, in the order of the layers; not to be changed."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold the given tensors.

        Raises:
            ValueError: there is no tensor.
        """
        if not tensors:
            raise ValueError(f"{type(self).__name__} needs at least one tensor; none was given.")
        self._tensors = dict(tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __eq__(self, other: object) -> bool:
        """Say whether the other has the same names and, bit for bit, the same tensors."""
        if not isinstance(other, NamedTensors):
            return NotImplemented
        same_names = list(self) == list(other)
        return same_names and all(torch.equal(self[name], other[name]) for name in self)

    __hash__ = None


class Mask(NamedTensors):
    """A mapping from parameter name to a boolean tensor of the weight's shape; True = keep."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold the given tensors.

        Raises:
            ValueError: there is no tensor, or one is not boolean.
        """
        super().__init__(tensors)
        for name, tensor in self.items():
            if tensor.dtype != torch.bool:
                raise ValueError(
                    f"The mask of {name} has dtype {tensor.dtype}; "
                    "it must be torch.bool, for example scores > threshold."
                )

    @classmethod
    def dense(cls, model: nn.Module) -> Mask:
        """Return the mask that keeps every weight of the model."""
        weights = prunable_parameters(model)
        return cls({name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()})

    def __repr__(self) -> str:
        return (
            f"Mask({len(self)} layers, {self.kept:,} of {self.size:,} weights kept, "
            f"sparsity {self.sparsity:.2%})"
        )

    @property
    def size(self) -> int:
        """The number of prunable weights."""
        return sum(tensor.numel() for tensor in self.values())

    @property
    def kept(self) -> int:
        """The number of weights kept."""
        return sum(self.layer_counts().values())

    @property
    def density(self) -> float:
        """The fraction of prunable weights kept."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """The fraction of prunable weights removed."""
        return 1.0 - self.density

    def layer_counts(self) -> dict[str, int]:
        """Return the number of weights kept in each layer."""
        return {name: int(tensor.sum()) for name, tensor in self.items()}

    def layer_density(self) -> pd.Series:
        """Return the fraction of weights kept in each layer, indexed by parameter name."""
        counts = self.layer_counts()
        return pd.Series({n: counts[n] / t.numel() for n, t in self.items()}, name="density")

    def overlap(self, other: Mask) -> float:
        """Return the Jaccard overlap of two masks: kept by both, over kept by either.

        Raises:
            ValueError: the masks are of different networks.
        """
        if {n: t.shape for n, t in self.items()} != {n: t.shape for n, t in other.items()}:
            raise ValueError("The masks differ in names or shapes; compare masks of one network.")
        both = sum(int((self[n] & other[n]).sum()) for n in self)
        either = sum(int((self[n] | other[n]).sum()) for n in self)
        return both / either if either else 1.0

    def warn_if_collapsed(self) -> None:
        """Emit a :class:`LayerCollapseWarning` that names the layers without any weight."""
        empty = [name for name, count in self.layer_counts().items() if count == 0]
        few = f" {self.kept} weights cannot reach all {len(self)} layers; choose a lower sparsity."
        if empty:
            warnings.warn(
                f"All weights were removed from {', '.join(empty)}."
                + (few if self.kept < len(self) else ""),
                LayerCollapseWarning,
                stacklevel=3,
            )

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> Mask:
        """Set the removed weights of the model to zero, in place, and return the mask.

        Training moves them again unless the mask is applied after every step.

        Raises:
            ValueError: the mask does not fit the model.
        """
        check_fit(self, model, "mask")
        for name, weight in prunable_parameters(model).items():
            weight.masked_fill_(~self[name].to(weight.device), 0.0)
        return self

    def attach(self, model: nn.Module) -> Mask:
        """Attach the mask through ``torch.nn.utils.prune``, for anyone's training loop.

        The weight becomes ``weight_orig * weight_mask``, recomputed before each forward pass.

        Raises:
            ValueError: the mask does not fit the model.
        """
        check_fit(self, model, "mask")
        for name, weight in prunable_parameters(model).items():
            module = model.get_submodule(name.rpartition(".")[0])
            torch_prune.custom_from_mask(module, "weight", self[name].to(weight.device))
        return self

    def save(self, path: str | Path) -> None:
        """Write the mask as safetensors: the whole file or nothing.

        Raises:
            ValueError: the folder does not exist.
        """
        # Imported here so that scoring and training need nothing beyond torch.
        from safetensors.torch import save_file

        with whole_file(Path(path)) as temporary:
            save_file({n: t.cpu().contiguous() for n, t in self.items()}, temporary)

    @classmethod
    def load(cls, path: str | Path) -> Mask:
        """Read a mask that :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a mask.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not Path(path).exists():
            raise FileNotFoundError(f"There is no mask at {path}.")
        try:
            return cls(load_file(path))
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} does not hold a mask: {error}") from error
