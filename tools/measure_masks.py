"""Measure masks before any training, on networks as large as those of the papers.

    python -m tools.measure_masks GRID.toml --out FILE.csv [--data PATH] [--limit N]

Every mask has a row, which is added when the mask has been measured. What has a row is skipped,
so that the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd

from pai_lite.progress import progress_bar
from pai_lite.results import lock_of, write
from pai_lite.workers import map_unordered
from tools.mask_grid import MaskCell, MaskGrid, read_mask_grid
from tools.mask_rows import (
    COLUMNS,
    key_of,
    keys_in,
    load_grid_data,
    measure_task,
    read_rows,
    settings_of,
)


def measure_masks(
    grid: MaskGrid,
    out: Path,
    *,
    data_path: str | None = None,
    limit: int | None = None,
    workers: int = 2,
    progress: bool = True,
) -> pd.DataFrame:
    """Fill a file until every mask of the grid has its row, and return its rows as text.

    Args:
        data_path: what :func:`pai_lite.load_data` is given; the grid's data if nothing is.
        limit: measure at most so many masks.

    Raises:
        ValueError: the file holds rows of another grid, or the data is not the grid's.
        OSError: the file cannot be written.
    """
    path = data_path or grid.data
    load_grid_data(grid, path)
    prepare(out, grid)
    done = keys_in(read_rows(out))
    todo = [cell for cell in grid.cells if key_of(asdict(cell)) not in done][:limit]
    task = partial(measure_task, grid=grid, data_path=path, out=out)
    bar = progress_bar(progress, total=len(todo), unit="mask")
    with bar, closing(map_unordered(task, plan(todo), workers=workers)) as results:
        for cells, _ in results:
            bar.update(len(cells))
    return read_rows(out)


def plan(cells: Sequence[MaskCell]) -> list[list[MaskCell]]:
    """Return the cells in tasks: one for each seed and method, as they share scores."""
    tasks: dict[tuple[int, str], list[MaskCell]] = {}
    for cell in cells:
        tasks.setdefault((cell.seed, cell.method), []).append(cell)
    return list(tasks.values())


def prepare(out: Path, grid: MaskGrid) -> None:
    """Make an empty file, or raise a ``ValueError`` where one there has rows of another grid."""
    with lock_of(out):
        if not out.exists():
            write(out, pd.DataFrame(columns=list(COLUMNS)))
        frame = read_rows(out)
        for name, wanted in settings_of(grid).items():
            if other := sorted(set(frame[name]) - {wanted}):
                raise ValueError(
                    f"{out} holds rows with {name} {other[0]}; this grid has {wanted}. "
                    "Write to another file, or make the grid the same."
                )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.measure_masks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("grid", type=Path, help="a TOML file, see tools/mask_grid.py")
    parser.add_argument("--out", type=Path, required=True, help="a CSV file, made if missing")
    parser.add_argument("--data", help="a name or path of data that bears the name in the grid")
    parser.add_argument("--limit", type=int, help="measure at most so many masks")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    given = parse(arguments)
    how = {"data_path": given.data, "limit": given.limit, "workers": given.workers}
    try:
        measure_masks(read_mask_grid(given.grid), given.out, **how)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
