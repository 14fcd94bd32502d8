"""The smaller dense network that a channel mask stands for, and what it saves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import pandas as pd
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from pai_lite.gradients import pruned, scoring_mode
from pai_lite.masks import check_fit, copy_model
from pai_lite.structured import ChannelMask


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: their number, biases and BatchNorm's included.
        multiply_adds: of convolutions and matrix products in one forward pass of one input.
    """

    parameters: int
    multiply_adds: int


def shrink(model: nn.Module, channel_mask: ChannelMask, inputs: Tensor) -> nn.Module:
    """Return a copy of the model from which the removed channels are cut.

    Its outputs are those of the model under ``channel_mask.weights()``, in train and eval mode,
    up to the noise of dropout.

    Args:
        inputs: a few inputs of the model, with which this is checked in eval mode.

    Raises:
        ValueError: the mask does not fit the model, a group keeps no unit, or the smaller network
            does not give the same outputs.
    """
    check_fit(channel_mask.weights(), model, "channel mask")
    if empty := channel_mask.empty_groups():
        raise ValueError(
            f"{', '.join(empty)} would keep no channel, and a layer needs one; "
            "prune at a lower sparsity."
        )
    small = copy_model(model)
    cut(small, channel_mask)
    for name, parameter in model.named_parameters():
        small.get_parameter(name).requires_grad_(parameter.requires_grad)
    check_outputs(model, small, channel_mask, inputs)
    return small


def cut(model: nn.Module, channel_mask: ChannelMask) -> None:
    """Remove the rows and columns of the removed units, in place, with Torch-Pruning."""
    units, graph = channel_mask.units, tp.DependencyGraph()
    rows = {name.rpartition(".")[0]: places for name, places in units.rows.items()}
    columns = {name.rpartition(".")[0]: places for name, places in units.columns.items()}
    for name, places in {**rows, **units.between}.items():
        layer = model.get_submodule(name)
        graph.get_pruner_of_module(layer).prune_out_channels(layer, gone(channel_mask, places))
    for name, places in columns.items():
        layer = model.get_submodule(name)
        graph.get_pruner_of_module(layer).prune_in_channels(layer, gone(channel_mask, places))


def gone(channel_mask: ChannelMask, places: Tensor) -> list[int]:
    """Return the indices whose unit is removed."""
    return (~channel_mask.keeps(places)).nonzero().flatten().tolist()


def check_outputs(
    model: nn.Module, small: nn.Module, channel_mask: ChannelMask, inputs: Tensor
) -> None:
    """Raise a ``ValueError`` unless the smaller network does what the masked one does."""
    masked = pruned(model, channel_mask.weights())
    with scoring_mode(model, "eval"), scoring_mode(small, "eval"), torch.no_grad():
        wanted = functional_call(model, masked, (inputs,))
        try:
            found = small(inputs)
        except RuntimeError as error:
            raise ValueError(f"{type(model).__name__} cannot be made smaller: {error}.") from error
    # Rounding is far below this and a wrong channel far above.
    tolerance = float(wanted.abs().max()) * torch.finfo(wanted.dtype).eps ** 0.25
    if not torch.allclose(found, wanted, rtol=0.0, atol=tolerance, equal_nan=True):
        raise ValueError(
            f"The smaller {type(model).__name__} gives other outputs than the masked one: it moves "
            "channels in a way that cannot be followed. Train it with channel_mask.weights()."
        )


def cost(model: nn.Module, inputs: Tensor) -> Cost:
    """Return the number of parameters and of multiply-adds for one input.

    Args:
        inputs: a few inputs of the model, shape (n, ...).
    """
    with scoring_mode(model, "eval"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops() // (2 * len(inputs)))


def compare(
    dense: nn.Module, smaller: nn.Module, inputs: Tensor, *, repeats: int = 20
) -> pd.DataFrame:
    """Return a table of what two networks cost, and the ratio of dense to smaller.

    The columns are parameters, multiply-adds for one input, and the median of the seconds that a
    forward pass of all inputs takes, without gradients and in eval mode. The networks are timed
    in turn, so that both meet the same disturbances.

    Args:
        repeats: how many passes of each network are timed.

    Raises:
        ValueError: repeats is not positive.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; time at least one pass, for example 20.")
    models = [dense, smaller]
    # The first pass of each network pays for what later ones find prepared.
    passes = [[seconds_of(model, inputs) for model in models] for _ in range(repeats + 1)][1:]
    seconds = [median(times) for times in zip(*passes, strict=True)]
    costs = [cost(model, inputs) for model in models]
    rows = {
        name: [found.parameters, found.multiply_adds, second]
        for name, found, second in zip(["dense", "smaller"], costs, seconds, strict=True)
    }
    rows["ratio"] = [d / s for d, s in zip(rows["dense"], rows["smaller"], strict=True)]
    columns = ["parameters", "multiply-adds", "seconds"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


@torch.no_grad()
def seconds_of(model: nn.Module, inputs: Tensor) -> float:
    """Return the seconds that one forward pass takes, in eval mode."""
    with scoring_mode(model, "eval"):
        wait_for(inputs.device)
        start = time.perf_counter()
        model(inputs)
        wait_for(inputs.device)
        return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
