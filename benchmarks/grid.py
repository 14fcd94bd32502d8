"""A grid against its networks one by one, by the clock: ``python -m benchmarks.grid --data F.npz``.

LeNet-300-100 with 8 methods, 6 sparsities and 3 seeds, one epoch each. One by one means what is
common: a process with two threads scores and trains one network after another and shares nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import torch

import pai_lite as pai
from pai_lite.sweep import run_task

GRID = """
data = "{data}"
model = "lenet-300-100"
methods = ["random", "magnitude", "snip", "force", "grasp", "synflow", "prospr", "magnitude-after"]
sparsities = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995]
seeds = [0, 1, 2]
recipe = {{ epochs = 1 }}
"""
CORES = 2


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid")
    parser.add_argument("--data", default="mnist", help="a name or an .npz file")
    parser.add_argument("--limit", type=int, help="only so many networks")
    options = parser.parse_args()
    warnings.simplefilter("ignore", pai.LayerCollapseWarning)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "grid.toml"
        settings.write_text(GRID.format(data=options.data), encoding="utf8")
        grid = pai.read_grid(settings)
        together = seconds_together(grid, Path(folder) / "results.csv", options.limit)
    count = options.limit or len(grid.cells)
    alone = seconds_alone(grid, count)
    print(f"{count} networks as a grid on {CORES} cores: {together:.1f} s")
    print(f"the same one by one, two threads:    {alone:.1f} s")
    print(f"ratio: {alone / together:.2f}")


def seconds_together(grid: pai.Grid, out: Path, limit: int | None) -> float:
    """Return the seconds that the grid takes, from the start of its processes to its last row."""
    begin = time.perf_counter()
    rows = pai.run_grid(grid, out, workers=CORES, limit=limit, progress=False)
    seconds = time.perf_counter() - begin
    assert len(rows) == (limit or len(grid.cells))
    print(pai.summarize(pai.read_results(out)).round(4).to_string(index=False))
    return seconds


def seconds_alone(grid: pai.Grid, count: int) -> float:
    """Return the seconds of the same networks, each from nothing."""
    torch.set_num_threads(CORES)
    data = pai.load_data(grid.data)
    begin = time.perf_counter()
    for cell in grid.cells[:count]:
        for _ in run_task([cell], grid.experiment, data):
            pass
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
