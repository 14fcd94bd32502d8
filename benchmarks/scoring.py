"""Cost of scoring, as a ratio to one forward and backward pass of the same model and batch.

    python benchmarks/scoring.py

The two are timed in turn in one process on one thread, and the medians are compared, so that the
speed of the machine cancels.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F

import pai_lite as pai

REPEATS = 7
BATCH = 128


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def ratio(run: Callable[[], object], unit: Callable[[], object]) -> float:
    """Return the median time of one call over that of the other, timed in turn."""
    run(), unit()
    pairs = [(seconds(run), seconds(unit)) for _ in range(REPEATS)]
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", pai.LayerCollapseWarning)  # on random images layers collapse
    classes, shape = 10, (3, 32, 32)
    model = pai.MODELS["resnet20"](shape, classes)
    batch = torch.randn(BATCH, *shape), torch.randint(0, classes, (BATCH,))

    def one_pass() -> None:
        model.zero_grad()
        F.cross_entropy(model(batch[0]), batch[1]).backward()

    rows = {
        "snip, scores": lambda: pai.snip(model, batch),
        "snip, with exact-k selection": lambda: pai.prune(model, "snip", batch, sparsity=0.95),
        "grasp, one batch": lambda: pai.grasp(model, batch),
        "grad_norm": lambda: pai.grad_norm(model, batch),
        "synflow, 100 steps": lambda: pai.prune(model, "synflow", batch, sparsity=0.95),
        "magnitude, with exact-k selection": lambda: pai.prune(model, "magnitude", sparsity=0.95),
    }
    print(f"ResNet-20, batch {BATCH}, one thread; u = one forward and backward pass")
    for name, run in rows.items():
        print(f"{name:36s}{ratio(run, one_pass):6.2f} u")


if __name__ == "__main__":
    main()
