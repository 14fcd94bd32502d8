"""Networks trained in groups on a GPU, each group as large as its memory allows."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import torch
from torch import nn

from pai_lite.data import Data
from pai_lite.lockstep import Lockstep
from pai_lite.masks import copy_model
from pai_lite.precision import choose_format
from pai_lite.trainer import Trainer
from pai_lite.training import Run, cuda_devices, finish

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 32  # networks a group: as many streams as PyTorch has
SHARE = 0.8  # of the free memory, since what a step measures is not all that it takes


def fit_in_groups(
    items: Sequence[Item], build: Callable[[Item], Trainer], size: int | None = None
) -> Generator[tuple[Item, Run], None, None]:
    """Train networks on a GPU in groups, and yield each item with the run of its network.

    Args:
        build: makes the trainer of an item.
        size: networks a group; by default as many as the free memory holds.

    Raises:
        torch.OutOfMemoryError: there is not memory enough for one network.
    """
    size = size or group_size(free_bytes(), step_bytes(build(items[0])))
    return in_groups(lambda group: fit_together([build(item) for item in group]), items, size)


def fit_together(trainers: Sequence[Trainer]) -> list[Run]:
    """Train all networks in lockstep."""
    lockstep = Lockstep(trainers)
    while not lockstep.done:
        lockstep.train_epoch()
    return [finish(trainer) for trainer in trainers]


def in_groups(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int
) -> Generator[tuple[Item, Result], None, None]:
    """Call a function on groups of items, and yield each item with its result.

    Where the memory does not suffice, groups become half as large from there on.

    Raises:
        torch.OutOfMemoryError: it does not suffice for one item.
    """
    done = 0
    while done < len(items):
        group = items[done : done + size]
        release_memory()
        try:
            results = function(group)
        except torch.OutOfMemoryError:
            if len(group) == 1:
                raise
            size = len(group) // 2
            continue
        yield from zip(group, results, strict=True)
        done += len(group)


def release_memory() -> None:
    """Give back to the device what no tensor uses; optimizers are in reference cycles."""
    gc.collect()
    torch.cuda.empty_cache()


def group_size(free: int, needed: int) -> int:
    """Return how many networks to train together, where each needs so many bytes."""
    return max(1, min(MOST, int(SHARE * free / max(needed, 1))))


def free_bytes() -> int:
    """Return the free memory of the GPU."""
    release_memory()
    return torch.cuda.mem_get_info()[0]


def step_bytes(trainer: Trainer) -> int:
    """Return the most memory that a step of a network takes on a GPU, its own state included."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer.update(*next(trainer.minibatches()))
    state = sum(tensor.nbytes for tensor in trainer.tensors())
    return torch.cuda.max_memory_allocated() - before + state


@torch.no_grad()
def draws_random_numbers(model: nn.Module, data: Data) -> bool:
    """Say whether the model draws random numbers in train mode, as dropout does."""
    form, model = choose_format(model, data, "float32"), copy_model(model).train()
    inputs = form.inputs(data, data.train.images[:2])
    with torch.random.fork_rng(devices=cuda_devices(data.device)):
        before = random_state(data.device)
        form.outputs(model, inputs)
        return not torch.equal(before, random_state(data.device))


def random_state(device: torch.device) -> torch.Tensor:
    """Return the state of the generator from which a network on that device draws."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
