"""Units: the channels of a network that can only be removed together.

A unit is a set of output rows of layers, tied to each other by residual connections, and of the
input columns of the layers that read them. Torch-Pruning's dependency graph finds the ties; it
takes every operation that it does not know for one that leaves channels apart, so what it finds is
checked here: with the columns of a unit at zero, its rows must have no gradient at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch_pruning.dependency import Dependency

from pai_lite.gradients import scoring_mode
from pai_lite.masks import copy_model, prunable_parameters

REMEDY = "Prune single weights of this model, or write it so that every channel keeps its place."


@dataclass(frozen=True)
class Units:
    """Which rows and columns go with which unit; units are numbered group after group.

    Attributes:
        groups: the number of units of each group of tied layers, by the first layer's weight.
        rows: by weight, the unit of each output row; -1 where the row is no unit's and stays.
        columns: by weight, the unit of each input column; -1 where it stays.
        between: by layer, the unit of each channel of what stands between, such as BatchNorm.
        shapes: of the prunable weights.
        positions: by weight, how often its layer applies it to one input: 1 for a linear layer,
            the number of output pixels for a convolution.
    """

    groups: dict[str, int]
    rows: dict[str, Tensor]
    columns: dict[str, Tensor]
    between: dict[str, Tensor]
    shapes: dict[str, torch.Size]
    positions: dict[str, int]

    @property
    def size(self) -> int:
        """The number of units."""
        return sum(self.groups.values())

    def total_rows(self, values: dict[str, Tensor]) -> Tensor:
        """Return for each unit the sum of the values of its rows, one value a row and layer."""
        return self._total(self.rows, values)

    def total_columns(self, values: dict[str, Tensor]) -> Tensor:
        """Return for each unit the sum of the values of its columns, one a column and layer."""
        return self._total(self.columns, values)

    def _total(self, places: dict[str, Tensor], values: dict[str, Tensor]) -> Tensor:
        """Add up values by unit; what belongs to none falls into a last place, dropped."""
        like = next(iter(values.values()))
        total = like.new_zeros(self.size + 1)
        for name, units in places.items():
            # A negative index counts from the end in indexing, but not in index_add_.
            total.index_add_(0, units.to(like.device) % (self.size + 1), values[name])
        return total[:-1]

    def multiply_adds(self) -> Tensor:
        """Return for each unit the multiply-adds for one input that its removal alone saves."""
        total = torch.zeros(self.size + 1, dtype=torch.float64)
        for name, (rows, columns, *kernel) in self.shapes.items():
            row, column = (
                torch.bincount(units[name] % (self.size + 1), minlength=self.size + 1)
                for units in (self.rows, self.columns)
            )
            entries = row * columns + column * rows - row * column
            total += self.positions[name] * torch.Size(kernel).numel() * entries
        return total[:-1]


def find_units(model: nn.Module, inputs: Tensor) -> Units:
    """Return the units of a model, by following a few inputs through it.

    The rows of the last layer are the classes and no units; neither are channels that are added
    to the inputs or to the outputs. Depthwise convolutions are cut along with their channels.

    Args:
        inputs: a few inputs of the model, shape (n, channels, ...).

    Raises:
        ValueError: a convolution has groups, or the channels of a layer cannot be matched with
            the columns that read them; the message names the layer and the operations.
    """
    check_groups(model)
    tracer = Tracer(model, inputs)
    units = tracer.units()
    name = still_read(model, units, inputs)
    if name is not None:
        raise ValueError(tracer.mismatch(name))
    return units


def check_groups(model: nn.Module) -> None:
    """Raise a ``ValueError`` for a convolution in groups of more than one channel each."""
    for name in prunable_parameters(model):
        layer = model.get_submodule(name.rpartition(".")[0])
        groups = getattr(layer, "groups", 1)
        if groups > 1 and not groups == layer.in_channels == layer.out_channels:
            raise ValueError(
                f"{name} belongs to a convolution in {groups} groups, whose channels cannot be "
                f"removed one at a time. {REMEDY}"
            )


def still_read(model: nn.Module, units: Units, inputs: Tensor) -> str | None:
    """Return a layer whose rows have a gradient though the columns of their units are zero.

    A random half of the units is tried, and then the other half.
    """
    half = torch.rand(units.size, generator=torch.Generator().manual_seed(0)) < 0.5
    for removed in (half, ~half):
        # The last entry is that of the places -1, which belong to no unit.
        gone = torch.cat([removed, torch.tensor([False])])
        gradients = gradients_without(model, {n: gone[c] for n, c in units.columns.items()}, inputs)
        for name, gradient in gradients.items():
            rows = gone[units.rows[name]].to(gradient.device)
            # Where the network overflows there is nothing to see; its scores will say so.
            if gradient[rows].nan_to_num(0.0, 0.0, 0.0).any():
                return name
    return None


def gradients_without(
    model: nn.Module, columns: dict[str, Tensor], inputs: Tensor
) -> dict[str, Tensor]:
    """Return the gradients of the summed squares of the outputs, with the given columns at zero."""
    with scoring_mode(model, "eval"), torch.enable_grad():
        weights = {n: w.detach().clone() for n, w in prunable_parameters(model).items()}
        for name, weight in weights.items():
            weight[:, columns[name].to(weight.device)] = 0.0
            weight.requires_grad_()
        buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        outputs = functional_call(model, {**weights, **buffers}, (inputs,))
        found = torch.autograd.grad(
            outputs.square().sum(), list(weights.values()), materialize_grads=True
        )
    return dict(zip(weights, found, strict=True))


class _Entry(_BatchNorm):
    """Stands for the inputs in the graph, which does not see them: what is added to them stays.

    Its parameters need gradients, so that frozen layers are in the graph as well.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept inputs of any number of dimensions."""


class Tracer:
    """The dependency graph of a copy of a model, read off as units."""

    def __init__(self, model: nn.Module, inputs: Tensor) -> None:
        """Run a copy of the model once, in eval mode.

        Raises:
            ValueError: the graph cannot be built.
        """
        copied = copy_model(model).eval()
        self.names = {module: name for name, module in copied.named_modules()}
        self.weights = {name: w.detach() for name, w in prunable_parameters(copied).items()}
        self.layers = {n: copied.get_submodule(n.rpartition(".")[0]) for n in self.weights}
        self.entry = _Entry(inputs.shape[1]).to(inputs)
        self.positions = dict.fromkeys(self.layers, 0)
        self.count(copied, inputs)
        self.graph = self.follow(copied, inputs)

    def count(self, model: nn.Module, inputs: Tensor) -> None:
        """Count at how many positions each layer is applied to one input."""

        def add(name: str, _layer: nn.Module, _inputs: tuple[Tensor], outputs: Tensor) -> None:
            self.positions[name] += outputs.numel() // (len(inputs) * len(self.weights[name]))

        hooks = [
            layer.register_forward_hook(partial(add, name)) for name, layer in self.layers.items()
        ]
        with torch.no_grad():
            model(inputs)
        for hook in hooks:
            hook.remove()

    def follow(self, model: nn.Module, inputs: Tensor) -> tp.DependencyGraph:
        """Return the dependency graph of the model behind its entry."""
        with torch.enable_grad():
            try:
                # A tuple: of a bare tensor the library would pass each input as an argument.
                return tp.DependencyGraph().build_dependency(
                    nn.Sequential(self.entry, model).eval(), (inputs,), verbose=False
                )
            except Exception as error:
                raise ValueError(
                    f"Torch-Pruning cannot follow {type(model).__name__}: "
                    f"{type(error).__name__}: {error}. {REMEDY}"
                ) from error

    def group(self, name: str, rows: list[int]) -> list[tuple[Dependency, dict[int, int]]]:
        """Return all that goes with the given rows of a layer, each index with its row."""
        layer = self.layers[name]
        cut = self.graph.get_pruner_of_module(layer).prune_out_channels
        items = self.graph.get_pruning_group(layer, cut, rows)
        return [(it.dep, dict(zip(it.idxs, it.root_idxs, strict=True))) for it in items]

    def units(self) -> Units:
        """Return the units, group after group in the order of the layers.

        Raises:
            ValueError: a row or column would belong to two units.
        """
        rows = {name: torch.full((w.shape[0],), -1) for name, w in self.weights.items()}
        columns = {name: torch.full((w.shape[1],), -1) for name, w in self.weights.items()}
        shapes = {name: w.shape for name, w in self.weights.items()}
        units = Units({}, rows, columns, {}, shapes, self.positions)
        for name, layer in self.layers.items():
            free = (rows[name] < 0).nonzero().flatten().tolist()
            if layer in self.graph.module2node and free:
                self.add_group(units, name, self.group(name, free))
        return units

    def add_group(
        self, units: Units, name: str, group: list[tuple[Dependency, dict[int, int]]]
    ) -> None:
        """Number the units of a group, unless they are tied to the inputs or the outputs."""
        fixed = {root for dep, places in group if self.stays(dep) for root in places.values()}
        roots = sorted(set(group[0][1].values()) - fixed)
        if not roots:
            return
        numbers = dict(zip(roots, range(units.size, units.size + len(roots)), strict=True))
        units.groups[name] = len(roots)
        for dep, places in group:
            vector = self.places(units, dep)
            for index, root in places.items() if vector is not None else ():
                if root in numbers:
                    self.enter(vector, index, numbers[root], name)

    def stays(self, dep: Dependency) -> bool:
        """Say whether these channels are the model's outputs, or those of its inputs."""
        is_end = not dep.target.outputs and self.graph.is_out_channel_pruning_fn(dep.handler)
        return is_end or dep.target.module is self.entry

    def places(self, units: Units, dep: Dependency) -> Tensor | None:
        """Return the vector in which the units of these channels are entered, if they have one."""
        layer, is_out = dep.target.module, self.graph.is_out_channel_pruning_fn(dep.handler)
        if isinstance(layer, nn.Parameter):
            raise ValueError(
                f"A parameter of shape {tuple(layer.shape)} acts on channels and belongs to no "
                f"layer that can be cut. {REMEDY}"
            )
        if layer not in self.names:
            return None
        name = self.names[layer]
        weight = f"{name}.weight" if name else "weight"
        if weight in self.layers:
            return (units.rows if is_out else units.columns)[weight]
        channels = self.graph.get_out_channels(layer)
        if channels is None:
            return None
        return units.between.setdefault(name, torch.full((channels,), -1))

    def enter(self, vector: Tensor, index: int, unit: int, name: str) -> None:
        """Note that an index belongs to a unit, and to no other."""
        if index >= len(vector) or vector[index] not in (-1, unit):
            raise ValueError(self.mismatch(name))
        vector[index] = unit

    def mismatch(self, name: str) -> str:
        """Return the message that the channels of a layer cannot be followed."""
        return (
            f"The channels of {name} cannot be matched with the input columns that read them: "
            f"after {name} stand {', '.join(self.operations(name))}, and one of them mixes, "
            f"moves or repeats channels. {REMEDY}"
        )

    def operations(self, name: str) -> list[str]:
        """Return the names of the operations that the channels of a layer pass through."""
        found = {}
        for dep, _ in self.group(name, list(range(len(self.weights[name])))):
            operation = dep.target.module
            # What has no inputs is a transposed weight.
            if operation not in self.layers.values() and dep.target.inputs:
                label = getattr(operation, "_grad_fn", type(operation).__name__)
                found[re.sub(r"^_|Backward\d*$|Op$", "", label)] = None
        return list(found)
