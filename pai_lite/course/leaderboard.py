"""The leaderboard: criteria of students, evaluated beside baselines on what they have not seen.

A submission is a file NAME.py with one function::

    def criterion(model, batch):
        ...
        return {name: scores}

``batch`` is one pair (inputs, targets); the mapping has a tensor of scores (larger = keep) for
each prunable weight, of its name and shape. The function is called once for each data set and seed,
in a confined process (see ``criterion``); masks are chosen, and networks trained and tested, here.

What is hidden from students: the seed of the initial weights, of the batches and of the training.
The embedded digits are split anew from it, so that nobody knows which images are tested; but they
come with scikit-learn, and code may load and use them all. Other data that go by a name keep their
published split, which anyone has. An .npz file of your own hides its images: where the machine has
Landlock, the process cannot read it, unless it lies in a folder of Python, of the package or of its
downloads. Read the code of those who lead before you believe it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from pai_lite.course.criterion import CriterionError, Start
from pai_lite.course.leaderboard_page import write_page
from pai_lite.course.trials import (
    Pruned,
    Settings,
    failed_rows,
    make_starts,
    prune_baseline,
    prune_submission,
    train_all,
)
from pai_lite.data import Data
from pai_lite.files import whole_file
from pai_lite.progress import progress_bar

BASELINES = ("random", "magnitude", "snip", "synflow")
ASKED = ("kind", "submission", "data", "model", "sparsity", "control", "seed")
COLUMNS = (*ASKED, "reached", "test_accuracy", "prune_seconds", "note")


@dataclass(frozen=True)
class Entry:
    """A criterion that is evaluated.

    Attributes:
        kind: "baseline" or "submission".
        content: the bytes of its file, or the name of a method.
    """

    kind: str
    name: str
    content: bytes
    prune: Callable[[Sequence[Start], Settings], list[Pruned]]


def run_leaderboard(
    folder: str | PathLike[str],
    out: str | PathLike[str],
    settings: Settings,
    *,
    seed_base: int | None = None,
    device: str = "cpu",
    workers: int | None = None,
) -> pd.DataFrame:
    """Evaluate every criterion in a folder, and write a table and a page.

    Writes into ``out``: leaderboard.csv, a row for each network; leaderboard.html, the page; and
    kept/, the rows of each criterion, which is not run again while its file and the settings stay.

    Args:
        folder: of submissions NAME.py, or one of them.
        out: a folder, made where it is missing.
        seed_base: the first seed; by default it is drawn once and kept in ``out``/seed_base.txt.
        device: where networks are trained; criteria run on the CPU.
        workers: as for :func:`pai_lite.fit_many`.

    Returns:
        The rows of leaderboard.csv, whose seeds are counted from 0.

    Raises:
        ValueError: there are no submissions, or the settings do not fit the data.
        RuntimeError: a process for students' code could not be started.
    """
    entries, out = [*baselines(), *submissions(Path(folder))], Path(out)
    (out / "kept").mkdir(parents=True, exist_ok=True)
    base = keep_seed_base(seed_base, out / "seed_base.txt")
    starts = make_starts(settings, base, device)
    same = describe(settings, starts) | {"base": base, "device": starts[0].data.device.type}
    rows = []
    with progress_bar(True, iterable=entries, unit="criterion") as bar:
        for entry in bar:
            path = out / "kept" / f"{digest(entry, same)}.json"
            found = remember(path, partial(evaluate, entry, starts, settings, workers))
            rows += [{"kind": entry.kind, "submission": entry.name, **row} for row in found]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    with whole_file(out / "leaderboard.csv") as path:
        frame.to_csv(path, index=False)
    write_page(frame, settings, out / "leaderboard.html")
    return frame


def baselines() -> list[Entry]:
    """Return the methods of the package that stand beside the submissions."""
    return [
        Entry("baseline", name, name.encode(), partial(prune_baseline, name)) for name in BASELINES
    ]


def submissions(folder: Path) -> list[Entry]:
    """Return the submissions in a folder, by name; hidden files are none.

    Raises:
        ValueError: there are none.
    """
    paths = [folder] if folder.is_file() else sorted(folder.glob("*.py"))
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        raise ValueError(f"There is no submission (NAME.py) in {folder}.")
    return [
        Entry("submission", path.stem, path.read_bytes(), partial(prune_submission, path))
        for path in paths
    ]


def evaluate(
    entry: Entry, starts: Sequence[Start], settings: Settings, workers: int | None
) -> list[dict[str, Any]]:
    """Return the rows of a criterion; where it fails they say why."""
    try:
        pruned = entry.prune(starts, settings)
    except CriterionError as error:
        return failed_rows(str(error), starts, settings)
    return train_all(pruned, settings, workers)


def remember(path: Path, compute: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows that a file holds, or compute and keep them."""
    if path.exists():
        return json.loads(path.read_text(encoding="utf8"))
    rows = compute()
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1), encoding="utf8")
    return rows


def keep_seed_base(given: int | None, path: Path) -> int:
    """Return the given number, or the one that was drawn for this leaderboard."""
    if given is not None:
        return given
    if not path.exists():
        path.write_text(f"{secrets.randbelow(10**9)}\n", encoding="utf8")
    return int(path.read_text(encoding="utf8"))


def describe(settings: Settings, starts: Sequence[Start]) -> dict[str, Any]:
    """Return the settings as plain values, with the images in the place of the names of data."""
    data = dict.fromkeys(start.data for start in starts)
    return asdict(settings) | {"data": [[one.name, hash_images(one)] for one in data]}


def hash_images(data: Data) -> str:
    """Return a hash of all images and labels of a data set."""
    found = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        for tensor in (split.images, split.labels):
            found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def digest(entry: Entry, same: dict[str, Any]) -> str:
    """Return a hash of all that decides the rows of a criterion."""
    content = hashlib.sha256(entry.content).hexdigest()
    decides = {"kind": entry.kind, "content": content, "version": version("pai-lite"), **same}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
