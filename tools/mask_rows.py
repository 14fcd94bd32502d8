"""The rows of masks: how a mask is made, what is measured on it, and the file that it goes to."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pai_lite.ablations import shuffle
from pai_lite.data import Data
from pai_lite.grid import load
from pai_lite.masks import LayerCollapseWarning, Mask
from pai_lite.methods import METHODS
from pai_lite.models import build_model
from pai_lite.pruning import prune
from pai_lite.results import lock_of, write
from pai_lite.rows import commit, hardware
from pai_lite.sweep import Remembered, scored_batches
from tools.mask_grid import MaskCell, MaskGrid
from tools.mask_quantities import QUANTITIES, Reference, common_share, measure

KEY = tuple(f.name for f in fields(MaskCell))
SETTINGS = ("model", "data", "per_class")
#: All columns, in the order of the file.
COLUMNS = (
    *KEY,
    *SETTINGS,
    *("reached", "seconds", *QUANTITIES, "overlap_batch"),
    *("note", "hardware", "version", "commit"),
)
#: The methods of one step for which a second batch is cheap.
TWO_BATCHES = ("snip", "grasp", "grasp-abs", "prospr-first-order")
#: Added to a seed, it is that of another batch; far from those of a method's further batches.
OTHER_BATCH = 500_000


@dataclass
class Pruner:
    """One method on one network: it scores the unpruned network once for all sparsities.

    Attributes:
        seconds: that each mask took, with the time of scores that were remembered.
    """

    reference: Reference
    data: Data
    method: str
    seed: int
    per_class: int
    criteria: dict[int, Remembered] = field(default_factory=dict)
    masks: dict[MaskCell, Mask] = field(default_factory=dict)
    seconds: dict[MaskCell, float] = field(default_factory=dict)

    def mask(self, cell: MaskCell) -> Mask:
        """Return the mask of a cell, with its ablation."""
        plain = replace(cell, ablation="none")
        if plain not in self.masks:
            self.masks = {plain: self.prune(plain, self.seed)}  # the last: ablations follow
        mask = self.masks[plain]
        return shuffle(mask, seed=self.seed) if cell.ablation == "shuffle" else mask

    def prune(self, cell: MaskCell, batch_seed: int) -> Mask:
        """Return the mask that the method chooses with the batches of a seed."""
        preset = METHODS[self.method]
        criterion = self.criteria.setdefault(batch_seed, Remembered(preset.criterion))
        options: dict[str, Any] = {"seed": self.seed} if self.method.startswith("random") else {}
        if cell.steps:
            options |= {"steps": int(cell.steps), "schedule": cell.schedule}
        batches = scored_batches(self.data, preset.batches, self.per_class, batch_seed)
        begin, remembered = time.perf_counter(), criterion.seconds
        method = replace(preset, criterion=criterion)
        how = {"sparsity": cell.sparsity, "progress": False, **options}
        mask = prune(self.reference.model, method, batches, **how)
        self.seconds[cell] = time.perf_counter() - begin + remembered
        return mask

    def overlap(self, cell: MaskCell, mask: Mask) -> float:
        """Return the share of kept weights that another batch keeps, too; NaN if not asked."""
        if self.method not in TWO_BATCHES or cell.ablation != "none":
            return math.nan
        return common_share(mask, self.prune(cell, self.seed + OTHER_BATCH))


def measure_task(
    cells: Sequence[MaskCell], *, grid: MaskGrid, data_path: str, out: Path
) -> list[MaskCell]:
    """Measure the masks of one seed and method, and add their rows as they come."""
    warnings.simplefilter("ignore", LayerCollapseWarning)  # emptied layers are counted
    data = load_grid_data(grid, data_path)
    seed, method = cells[0].seed, cells[0].method
    reference = reference_of(grid.model, data, seed, grid.per_class)
    pruner = Pruner(reference, data, method, seed, grid.per_class)
    for cell in cells:
        add_row(out, make_row(cell, grid, data, pruner))
    return list(cells)


@lru_cache(maxsize=1)
def reference_of(model: str, data: Data, seed: int, per_class: int) -> Reference:
    """Return what masks of a seed are compared with; a worker makes it once for all methods."""
    batch = data.batch(per_class=per_class, seed=seed)
    # With channels last a gradient takes a quarter less time, and differs in rounding only.
    network = build_model(model, data, seed=seed).to(memory_format=torch.channels_last)
    return Reference(network, batch)


def make_row(cell: MaskCell, grid: MaskGrid, data: Data, pruner: Pruner) -> dict[str, Any]:
    """Return the row of a mask; where it could not be made, its note says why."""
    found, note = {}, ""
    try:
        mask = pruner.mask(cell)
        found = {"reached": mask.sparsity, "overlap_batch": pruner.overlap(cell, mask)}
        found |= measure(pruner.reference, mask, cell.sparsity, cell.seed)
    except ValueError as error:
        found, note = {}, f"failed: {error}"
    return {
        **dict.fromkeys(COLUMNS, ""),
        **asdict(cell),
        **settings_of(grid),
        "seconds": pruner.seconds.get(replace(cell, ablation="none"), math.nan),
        **found,
        "note": note,
        "hardware": hardware(data.device, "float32"),
        "version": version("pai-lite"),
        "commit": commit(),
    }


def settings_of(grid: MaskGrid) -> dict[str, str]:
    """Return what the columns of settings hold in all rows of a grid."""
    return {name: str(getattr(grid, name)) for name in SETTINGS}


def load_grid_data(grid: MaskGrid, path: str) -> Data:
    """Return the data of a grid from a name or a path.

    Raises:
        ValueError: as :func:`pai_lite.load_data`, or the data has another name than the grid says.
    """
    data = load(path, "cpu")
    if data.name != grid.data:
        raise ValueError(
            f"{path} holds data named {data.name!r}; this grid is for {grid.data!r}. "
            f"Pass other data, or name the file {grid.data}.npz if it is that."
        )
    return data


def add_row(out: Path, row: Mapping[str, Any]) -> None:
    """Add a row by writing the file anew, unless another process has added it."""
    text = {name: "" if row[name] != row[name] else str(row[name]) for name in COLUMNS}
    with lock_of(out):
        frame = read_rows(out)
        if key_of(text) not in keys_in(frame):
            write(out, pd.concat([frame, pd.DataFrame([text])], ignore_index=True))


def read_rows(out: Path) -> pd.DataFrame:
    """Return the rows as text, just as they stand in the file.

    Raises:
        ValueError: the file is not one of masks.
    """
    frame = pd.read_csv(out, dtype=str, keep_default_na=False)
    if lacking := set(COLUMNS) - set(frame):
        raise ValueError(
            f"{out} is not a file of masks: it has no column {', '.join(sorted(lacking))}. "
            "Write to another file."
        )
    return frame


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what tells a row from all others, as text."""
    return tuple(str(row[name]) for name in KEY)


def keys_in(frame: pd.DataFrame) -> set[tuple[str, ...]]:
    """Return the keys that have a row."""
    return set(frame[list(KEY)].itertuples(index=False, name=None))
