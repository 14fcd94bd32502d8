"""More than one process: ``torchrun`` starts them, and they act as one.

Each process, a rank, holds the whole network and looks at its own batches. Gradients are averaged
over the ranks before a score is formed, so that every rank chooses the same mask; in training the
batch of a step is dealt out, and its gradient is put together again. Alone, a process does neither.

Ranks wait for each other: what scores or trains has to be called on all of them.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def process_group(device: str | torch.device = "cpu") -> Iterator[None]:
    """Join the processes that ``torchrun`` started; the first of them alone prints.

    With "cuda" each process takes the GPU of its local rank. Without ``torchrun`` this does
    nothing.

    Args:
        device: where the network will be.

    Raises:
        ValueError: there are more processes on this machine than GPUs.
    """
    if not dist.is_torchelastic_launched():
        yield
        return
    cuda = torch.device(device).type == "cuda"
    if cuda:
        select_gpu()
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        with redirect_stdout(sys.stdout if rank() == 0 else io.StringIO()), catch_warnings():
            # Said of every convolution on images of one channel, where it means nothing.
            filterwarnings("ignore", "Grad strides do not match")
            yield
    finally:
        dist.destroy_process_group()


def select_gpu() -> None:
    """Make the GPU of the local rank the current one.

    Raises:
        ValueError: there is none for it.
    """
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= gpus:
        raise ValueError(
            f"torchrun started more processes than the {gpus} GPUs of this machine; use "
            f"--nproc-per-node {gpus}, or --device cpu."
        )
    torch.cuda.set_device(local)


def rank() -> int:
    """Return the number of this process, from 0; alone it is 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def ranks() -> int:
    """Return the number of processes that act as one; alone it is 1."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def on_first_rank(function: Callable[..., None], *arguments: Any) -> None:
    """Call the function on the first rank, while the others wait for it."""
    if rank() == 0:
        function(*arguments)
    if ranks() > 1:
        dist.barrier()


def mean_over_ranks(totals: dict[str, Tensor], count: int = 1) -> dict[str, Tensor]:
    """Return the sum of all ranks' totals over the sum of their counts, the same on every rank.

    Args:
        totals: sums over the batches of this rank; the same names and shapes on every rank.
        count: how many batches they were.
    """
    if ranks() > 1:
        first = next(iter(totals.values()))
        counts = torch.tensor(count, device=first.device)
        flat = torch.cat([total.flatten() for total in totals.values()])
        dist.all_reduce(counts)
        dist.all_reduce(flat)
        parts = flat.split([total.numel() for total in totals.values()])
        pairs = zip(totals.items(), parts, strict=True)
        totals, count = {n: part.view_as(total) for (n, total), part in pairs}, int(counts)
    return totals if count == 1 else {name: total / count for name, total in totals.items()}


def share(rows: Tensor) -> Tensor:
    """Return the rows of a batch that are this rank's: together the ranks have each of them once.

    Where that would leave a rank fewer than two rows, which BatchNorm needs, each has all of them.
    """
    return rows[rank() :: ranks()] if len(rows) >= 2 * ranks() else rows


def data_parallel(model: nn.Module) -> nn.Module:
    """Return the model as it is to be called in training: each backward pass averages over ranks.

    The ranks start from the weights and buffers of the first. Alone this is the model itself.
    """
    return DistributedDataParallel(model) if ranks() > 1 else model


def shared_loss(network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return this rank's part of the mean cross-entropy of a batch that all ranks hold.

    Over the ranks the parts average to the mean over the batch, and so do their gradients,
    also where the batch cannot be dealt out evenly. BatchNorm normalises each part by itself.
    """
    own = share(targets)
    loss = F.cross_entropy(network(share(inputs)), own)
    return loss if len(own) == len(targets) else loss * (len(own) * ranks() / len(targets))


def mean_loss(losses: list[Tensor]) -> float:
    """Return the mean over steps and ranks of what :func:`shared_loss` gave."""
    return float(mean_over_ranks({"loss": torch.stack(losses).mean()})["loss"])


def copy_buffers(model: nn.Module) -> None:
    """Give every rank the buffers of the first, BatchNorm's running statistics among them."""
    if ranks() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
