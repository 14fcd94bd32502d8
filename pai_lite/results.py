"""Results: a CSV file of finished runs to which several processes may add.

A row is added under a lock, by writing the whole file anew and renaming it. A process that is
killed leaves the old file or the new one, and the system releases its lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from pai_lite.cells import Cell
from pai_lite.files import whole_file
from pai_lite.lookup import look_up

KEY = ("method", "sparsity", "seed", "ablation", "prune_at")
COUNTS = ("seed", "per_class", "epochs")
FRACTIONS = ("sparsity", "reached", "test_accuracy", "best_test_accuracy")
SECONDS = ("prune_seconds", "train_seconds")
#: All columns, in the order of the file.
COLUMNS = (
    *KEY,
    *("reached", "options", "model", "data", "recipe", "per_class", "epochs"),
    *("test_accuracy", "best_test_accuracy", "prune_seconds", "train_seconds"),
    *("note", "hardware", "version", "commit"),
)


def read_results(path: str | Path) -> pd.DataFrame:
    """Return the rows of a results file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a results file.
    """
    frame = read_text(Path(path))
    try:
        for name in COUNTS:
            frame[name] = frame[name].astype(int)
        for name in (*FRACTIONS, *SECONDS):
            frame[name] = frame[name].replace("", "nan").astype(float)
    except ValueError as error:
        raise ValueError(f"{path}, column {name}: {error}.") from error
    return frame


def measured(name: str) -> pd.DataFrame:
    """Return what was measured for the book under a name, for example "digits".

    Raises:
        ValueError: there is no such file.
    """
    package = Path(__file__).parent
    # Beside the package in a checkout; within it where it was installed without the book.
    folders = package.parent / "book" / "results", package / "measured"
    files = {path.stem: path for folder in folders for path in sorted(folder.glob("*.csv"))}
    return pd.read_csv(look_up(files, name, "results file"), dtype={"prune_at": str})


def read_text(path: Path) -> pd.DataFrame:
    """Return the rows as text, just as they stand in the file."""
    if not path.exists():
        raise FileNotFoundError(f"There are no results at {path}.")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a results file: {error}.") from error
    if lacking := set(COLUMNS) - set(frame):
        raise ValueError(
            f"{path} is not a results file of this version: it has no column "
            f"{', '.join(sorted(lacking))}. Write to another file."
        )
    return frame


def prepare(path: Path, expected: Sequence[Mapping[str, Any]]) -> None:
    """Make an empty results file, or check that the rows of one there fit what is to come.

    Args:
        expected: as for :func:`check_same`.

    Raises:
        ValueError: there is no such folder, or as :func:`read_text` and :func:`check_same`.
        OSError: the file cannot be written.
    """
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent} for {path.name}; make it first.")
    with lock_of(path):
        if path.exists():
            check_same(path, expected)
        # Writing what is there already shows a full disk or a locked folder before any training.
        write(path, read_text(path) if path.exists() else pd.DataFrame(columns=COLUMNS))


def add_row(path: Path, row: Mapping[str, Any]) -> bool:
    """Add a row unless the file has one of the same cell, and return whether it was added.

    Raises:
        OSError: the file cannot be written; it is as it was.
    """
    with lock_of(path):
        frame = read_text(path)
        if key_of(row) in cells_in(frame):
            return False
        text = {name: "" if value != value else str(value) for name, value in row.items()}
        write(path, pd.concat([frame, pd.DataFrame([text])], ignore_index=True))
        return True


def lock_of(path: Path) -> FileLock:
    """Return the lock of a results file."""
    return FileLock(path.with_name(f"{path.name}.lock"))


def write(path: Path, frame: pd.DataFrame) -> None:
    """Write the file: the whole of it or nothing."""
    with whole_file(path) as temporary:
        frame.to_csv(temporary, index=False)


def key_of(row: Mapping[str, Any]) -> Cell:
    """Return the cell of a row."""
    values = {name: row[name] for name in KEY}
    return Cell(**values | {"seed": int(values["seed"]), "sparsity": float(values["sparsity"])})


def cells_in(frame: pd.DataFrame) -> set[Cell]:
    """Return the cells that have a row."""
    return {key_of(row) for row in frame[list(KEY)].to_dict("records")}


def check_same(path: Path, expected: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ``ValueError`` where a file's rows were made with other settings than expected.

    Args:
        expected: for each method, its name and what the columns of settings should hold; rows of
            other methods may have other options.
    """
    frame = read_text(path)
    for settings in expected:
        rows = frame if "method" not in settings else frame[frame.method == settings["method"]]
        for name, wanted in settings.items():
            if other := sorted(set(rows[name]) - {str(wanted)}):
                raise ValueError(
                    f"{path} holds rows with {name} {other[0]}; this grid has {wanted}. "
                    "Write to another file, or make the grid the same."
                )
