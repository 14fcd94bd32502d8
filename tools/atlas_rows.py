"""The rows behind the results atlas: what each results file of runs compares, as lines of panels.

A file of runs is one of three kinds. Where networks were pruned at several steps of training it
shows accuracy against the step; where masks were ablated it shows the controls of each method;
otherwise it shows accuracy against sparsity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pai_lite.cells import ABLATIONS, DENSE, END
from pai_lite.plots import OTHER, STYLE
from pai_lite.results import COLUMNS, KEY, read_results
from tools.intervals import student_interval

SPARSITY, CONTROLS, LATER = "sparsity", "controls", "later"
#: Panels of the methods, by what they look at.
FAMILIES = {
    "At random": ("random", "random-uniform", "random-erk"),
    "Without data": ("magnitude", "synflow"),
    "Connection sensitivity": ("snip", "iter-snip", "force"),
    "Gradient flow": ("grasp", "grasp-abs", "grasp-it", "iter-grasp"),
    "Through the first steps of training": ("prospr", "prospr-first-order"),
    "After training": ("magnitude-after", "lottery-ticket"),
}
#: What the lines of a panel of controls are called, and how they are drawn.
CONTROL_LINES = {
    "none": ("as chosen", "#0072B2", "o"),
    "shuffle": ("shuffled within layers", "#CC79A7", "X"),
    "reinitialize": ("new initial values", "#009E73", "^"),
    "invert": ("inverted", "#D55E00", "v"),
}
#: What has to be the same for all rows of a file, and for rows borrowed from another.
SETTING = ["model", "data", "recipe"]


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        color, marker: as in :data:`pai_lite.plots.STYLE`.
        points: by sparsity or step, the columns seeds, mean, low and high, in points of accuracy.
    """

    label: str
    color: str
    marker: str
    points: pd.DataFrame


@dataclass(frozen=True)
class Panel:
    """A small figure: its lines, and grey ones behind them."""

    title: str
    lines: tuple[Line, ...]
    behind: tuple[Line, ...] = ()

    @property
    def slug(self) -> str:
        """The title as a part of a file's name."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


@dataclass(frozen=True)
class Section:
    """What a results file shows.

    Attributes:
        name: of the file, without its ending.
        rows: of the file.
        dense: one row, as the points of a :class:`Line`; empty where no such network was trained.
        borrowed: names of the files that lent the dense network or the masks as chosen.
    """

    name: str
    kind: str
    rows: pd.DataFrame
    panels: tuple[Panel, ...]
    dense: pd.DataFrame
    borrowed: tuple[str, ...] = ()


def read_sections(root: Path) -> list[Section]:
    """Return a section for each results file of runs, in the order of their names."""
    files = read_runs(root)
    return [make_section(name, files) for name in files]


def read_runs(root: Path) -> dict[str, pd.DataFrame]:
    """Return the rows of every results file of runs; files with other columns are left out.

    Raises:
        ValueError: a file holds several networks, data sets or recipes, or a cell twice.
    """
    paths = (root / "book" / "results").glob("*.csv")
    paths = sorted(paths, key=lambda path: ("rehearsal" in path.stem, path.stem))
    runs = [path for path in paths if set(COLUMNS) <= set(pd.read_csv(path, nrows=0))]
    files = {path.stem: read_results(path) for path in runs}
    for name, rows in files.items():
        check_rows(name, rows)
    return files


def check_rows(name: str, rows: pd.DataFrame) -> None:
    """Raise a ``ValueError`` where the rows of a file are not those of one grid."""
    for column in (*SETTING, "per_class"):
        if (values := rows[column].unique()).size > 1:
            raise ValueError(
                f"{name}.csv holds rows with {column} {values[0]} and {values[1]}; "
                "give each a file of its own."
            )
    if rows.duplicated(list(KEY)).any():
        cell = rows.loc[rows.duplicated(list(KEY)), list(KEY)].iloc[0].to_dict()
        raise ValueError(f"{name}.csv has several rows of {cell}; keep one of them.")
    if rows["ablation"].nunique() > 1 and len(steps_in(rows)) > 1:
        raise ValueError(f"{name}.csv has ablations and several steps; give each a file.")
    after = rows[(rows["prune_at"] == END) & (rows["method"] != DENSE)]
    if len(after) and len(steps_in(rows)) > 1:
        raise ValueError(
            f"{name}.csv has several steps, and {after['method'].iloc[0]}, which has none; "
            "give the methods that prune after training a file of their own."
        )


def kind_of(rows: pd.DataFrame) -> str:
    """Return what the rows compare."""
    if len(steps_in(rows)) > 1:
        return LATER
    return CONTROLS if set(rows["ablation"]) != {"none"} else SPARSITY


def steps_in(rows: pd.DataFrame) -> list[int]:
    """Return the steps of training at which networks were pruned, in order."""
    return sorted(int(step) for step in set(rows["prune_at"]) - {END})


def make_section(name: str, files: dict[str, pd.DataFrame]) -> Section:
    """Return the section of a file; what it lacks is looked for in files of the same setting."""
    rows = files[name]
    kind = kind_of(rows)
    dense, lenders = dense_of(name, files)
    pruned = rows[rows["method"] != DENSE]
    if kind == CONTROLS and "none" not in set(rows["ablation"]):
        pruned, lender = with_chosen(pruned, files)
        lenders += lender
    make = {SPARSITY: family_panels, CONTROLS: control_panels, LATER: step_panels}[kind]
    others = tuple(dict.fromkeys(lender for lender in lenders if lender != name))
    return Section(name, kind, rows, make(pruned), dense, others)


def alike(rows: pd.DataFrame, setting: pd.Series) -> pd.DataFrame:
    """Return the rows of the same network, data and recipe."""
    return rows[(rows[SETTING] == setting[SETTING]).all(axis=1)]


def dense_of(name: str, files: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the accuracy of the dense network, and the file that has it, this one first."""
    setting = files[name].iloc[0]
    for lender in (name, *files):
        rows = alike(files[lender], setting)
        if len(dense := rows[rows["method"] == DENSE]):
            return summarize(dense, "sparsity"), (lender,)
    return summarize(files[name].iloc[:0], "sparsity"), ()


def with_chosen(
    rows: pd.DataFrame, files: dict[str, pd.DataFrame]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Add the networks without ablation of the same methods, sparsities and seeds."""
    shared = ["method", "sparsity", "seed", "prune_at", "per_class"]
    wanted = pd.MultiIndex.from_frame(rows[shared])
    for lender, others in files.items():
        same = alike(others, rows.iloc[0])
        same = same[same["ablation"] == "none"]
        found = same[pd.MultiIndex.from_frame(same[shared]).isin(wanted)]
        if len(found):
            return pd.concat([found, rows], ignore_index=True), (lender,)
    return rows, ()


def family_panels(rows: pd.DataFrame) -> tuple[Panel, ...]:
    """Return a panel for each family of methods, the other families behind it."""
    known = {method for family in FAMILIES.values() for method in family}
    others = tuple(method for method in rows["method"].unique() if method not in known)
    present = set(rows["method"])
    lines = {method: method_line(method, rows, "sparsity") for method in present}
    panels = []
    for title, family in {**FAMILIES, "Other": others}.items():
        shown = [lines[method] for method in family if method in present]
        behind = [lines[method] for method in sorted(present - set(family))]
        if shown:
            panels.append(Panel(title, tuple(shown), tuple(behind)))
    return tuple(panels)


def control_panels(rows: pd.DataFrame) -> tuple[Panel, ...]:
    """Return a panel for each method, with a line for each ablation."""
    panels = []
    for method, its in rows.groupby("method", sort=False):
        lines = []
        for name in ABLATIONS:
            points = summarize(its[its["ablation"] == name], "sparsity")
            if len(points):
                lines.append(Line(*CONTROL_LINES[name], points))
        panels.append(Panel(str(method), tuple(lines)))
    return tuple(panels)


def step_panels(rows: pd.DataFrame) -> tuple[Panel, ...]:
    """Return a panel for each sparsity, with a line for each method over the steps."""
    rows = rows.assign(step=rows["prune_at"].astype(int))
    return tuple(
        Panel(
            f"{percent(sparsity)}% removed",
            tuple(method_line(method, its, "step") for method in its["method"].unique()),
        )
        for sparsity, its in rows.groupby("sparsity")
    )


def method_line(method: str, rows: pd.DataFrame, by: str) -> Line:
    """Return the line of a method, in its colour."""
    color, marker = STYLE.get(method, OTHER)
    return Line(method, color, marker, summarize(rows[rows["method"] == method], by))


def summarize(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return seeds, mean and Student's 95% interval of the test accuracy in points.

    Networks without an accuracy, because they could not be pruned, do not count.
    """
    known = rows.dropna(subset=["test_accuracy"])
    found = {}
    for value, group in known.groupby(by):
        accuracy = 100 * group["test_accuracy"].to_numpy()
        low, high = student_interval(accuracy)
        # Rounded far below a test image, so that no machine prints another last digit.
        found[value] = (len(accuracy), *np.round([accuracy.mean(), low, high], 6))
    columns = ["seeds", "mean", "low", "high"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)


def percent(fraction: float) -> str:
    """Return a fraction as a percentage without needless digits."""
    return f"{100 * fraction:.4g}"
