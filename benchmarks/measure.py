"""Ratios of times and peaks of memory, such that the machine and its other users cancel."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]

os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # else the profiler writes to stderr


def seconds(call: Call, device: str) -> float:
    """Return how long one call takes: the time of the processor, or on a GPU that of the clock.

    With one thread the two are the same on a quiet machine; on a busy one the time of the
    processor leaves out the waiting for other programs.
    """
    if device == "cpu":
        begin = time.process_time()
        call()
        return time.process_time() - begin
    torch.cuda.synchronize()
    begin = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def times(calls: Mapping[str, Call], rounds: int, device: str) -> dict[str, list[float]]:
    """Return the seconds of every call in every round; the calls take turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(seconds(call, device))
    return found


def ratio(first: list[float], second: list[float]) -> float:
    """Return the median over the rounds of the one time over the other."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def peak_bytes(call: Call, device: str) -> int:
    """Return the most memory of tensors that one call holds at a time, in bytes.

    Tensors that were there before the call do not count, nor does their release.
    """
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    # Every allocation is an event of so many bytes, every release one of as many below zero.
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    changes.sort(key=lambda change: change[0])
    return max(accumulate((size for _, size in changes), initial=0))
