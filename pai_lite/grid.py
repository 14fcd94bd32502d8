"""Grids: a file of settings, and a results file that is filled until every cell has its row."""

from __future__ import annotations

import json
import tomllib
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from pai_lite.cells import Cell, Experiment, make_cells, plan, task_name
from pai_lite.data import Data, load_data
from pai_lite.lookup import look_up
from pai_lite.masks import LayerCollapseWarning
from pai_lite.models import find_builder
from pai_lite.paper_recipes import find_recipe
from pai_lite.precision import PRECISIONS
from pai_lite.progress import progress_bar
from pai_lite.recipes import Recipe
from pai_lite.results import add_row, cells_in, prepare, read_text
from pai_lite.sweep import run_task
from pai_lite.workers import map_unordered

Engine = Callable[[Callable[[Any], Any], Sequence[Any]], Generator[tuple[Any, Any], None, None]]


@dataclass(frozen=True)
class Grid:
    """Methods x sparsities x seeds, and what they have in common.

    Attributes:
        data: a name or a path that :func:`pai_lite.load_data` knows.
        cells: one for each network.
        experiment: model, recipe, images scored and options.
    """

    data: str
    cells: tuple[Cell, ...]
    experiment: Experiment

    def expected(self, data_name: str) -> list[dict[str, str]]:
        """Return what the columns of settings hold in the rows of this grid."""
        shared = {
            "model": self.experiment.model,
            "data": data_name,
            "recipe": json.dumps(asdict(self.experiment.recipe), sort_keys=True),
            "per_class": str(self.experiment.per_class),
            "version": version("pai-lite"),
        }
        methods = dict.fromkeys(cell.method for cell in self.cells)
        options = {m: dict(self.experiment.options.get(m, {})) for m in methods}
        return [
            shared,
            *({"method": m, "options": json.dumps(o, sort_keys=True)} for m, o in options.items()),
        ]


def read_grid(path: str | Path) -> Grid:
    """Read a grid from a TOML file.

    The keys are data, model, methods, sparsities, seeds, and, where they are wanted, per_class,
    ablations, prune_at, the recipe (a name, or a table of settings in which base may be a name),
    and tables of options by method::

        data = "digits"
        model = "small-conv"
        methods = ["dense", "random", "snip", "prospr"]
        sparsities = [0.9, 0.98]
        seeds = [0, 1, 2]

        [recipe]
        epochs = 12

        [options.prospr]
        lr = 0.1

    Raises:
        ValueError: the file is not TOML, a key is unknown or missing, or a value is not possible.
        OSError: the file cannot be read.
    """
    needed = ("data", "model", "methods", "sparsities", "seeds")
    settings = read_settings(
        path, needed, ("per_class", "ablations", "prune_at", "recipe", "options")
    )
    lists = {key: settings[key] for key in ("ablations", "prune_at") if key in settings}
    cells = make_cells(settings["methods"], settings["sparsities"], settings["seeds"], **lists)
    find_builder(settings["model"])
    experiment = Experiment(
        settings["model"],
        read_recipe(settings.get("recipe", {})),
        settings.get("per_class", 10),
        settings.get("options", {}),
    )
    return Grid(settings["data"], tuple(cells), experiment)


def read_settings(path: str | Path, needed: Sequence[str], optional: Sequence[str]) -> dict:
    """Return the settings of a TOML file.

    Raises:
        ValueError: the file is not TOML, or a key is unknown or missing.
        OSError: the file cannot be read.
    """
    try:
        settings = tomllib.loads(Path(path).read_text(encoding="utf8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}.") from error
    check_keys(settings, needed, optional, str(path))
    return settings


def check_keys(
    table: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str], where: str
) -> None:
    """Raise a ``ValueError`` where a key is unknown or missing."""
    known = dict.fromkeys((*needed, *optional))
    for key in table:
        look_up(known, key, f"key of {where}")
    if lacking := [key for key in needed if key not in table]:
        raise ValueError(f"{where} lacks {', '.join(lacking)}.")


def read_recipe(settings: str | dict[str, Any]) -> Recipe:
    """Return the recipe of a name, or of a table of settings."""
    if isinstance(settings, str):
        return find_recipe(settings)
    known = dict.fromkeys(["base", *(field.name for field in fields(Recipe))])
    for key in settings:
        look_up(known, key, "setting of a recipe")
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    base = given.pop("base", None)
    return replace(find_recipe(base) if base else Recipe(), **given)


def run_grid(
    grid: Grid,
    out: str | Path,
    *,
    device: str = "cpu",
    workers: int | None = None,
    limit: int | None = None,
    engine: Engine | None = None,
    precision: str = "float32",
    progress: bool = True,
) -> pd.DataFrame:
    """Fill a results file until every cell of the grid has its row, and return its rows as text.

    A row is written when its network is done. What has a row is skipped, so that the same call
    goes on after an interruption; two processes may fill one file.

    Args:
        out: a CSV file; it is made where there is none.
        workers: processes on a CPU, one thread each; by default one a core. On a GPU there is one.
        limit: train at most so many networks.
        engine: where tasks are run, in place of local processes.
        precision: of the training, as in :func:`pai_lite.fit`; the column hardware shows it.

    Raises:
        ValueError: the file holds rows of another grid or version, or is no results file, or
            the precision is unknown.
        OSError: the file cannot be written.
    """
    out = Path(out)
    look_up(dict.fromkeys(PRECISIONS), precision, "precision")
    grid = replace(grid, experiment=replace(grid.experiment, precision=precision))
    prepare(out, grid.expected(load(grid.data, device).name))
    todo = [cell for cell in grid.cells if cell not in cells_in(read_text(out))][:limit]
    run = partial(run_cells, grid=grid, device=device, out=None if engine else out)
    local = partial(map_unordered, workers=workers if device == "cpu" else 1)
    results = (engine or local)(run, plan(todo))
    with progress_bar(progress, total=len(todo), unit="network") as bar, closing(results):
        for cells, rows in results:
            for row in rows if engine else []:
                add_row(out, row)
            bar.update(len(cells))
    rows = read_text(out)
    if set(grid.cells) <= cells_in(rows):
        for claim in out.parent.glob(f"{out.name}.*.lock"):  # of processes that were killed
            claim.unlink(missing_ok=True)
        for part in out.parent.glob(f"{out.name}.*.part"):
            part.unlink(missing_ok=True)
    return rows


@cache
def load(name: str, device: str) -> Data:
    """Return the data; a worker reads it once."""
    return load_data(name, device=device)


def run_cells(cells: Sequence[Cell], *, grid: Grid, device: str, out: Path | None) -> list[dict]:
    """Run a task, and return its rows, or add them to the file as they come.

    A task that another process has claimed is left to it.
    """
    warnings.simplefilter("ignore", LayerCollapseWarning)  # the density of a layer is not asked
    data = load(grid.data, device)
    if out is None:
        return list(run_task(cells, grid.experiment, data))
    claim = FileLock(out.with_name(f"{out.name}.{task_name(cells[0])}.lock"))
    try:
        with claim.acquire(blocking=False):
            done = cells_in(read_text(out))
            for row in run_task([c for c in cells if c not in done], grid.experiment, data):
                add_row(out, row)
    except Timeout:
        return []
    Path(claim.lock_file).unlink(missing_ok=True)
    return []
