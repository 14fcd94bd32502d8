"""The evidence: what the measured rows say about a claim."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from pai_lite.lookup import look_up
from tools.claims import Check, Claim
from tools.intervals import FEWEST, student_interval

HOLDS, FAILS, OPEN, PART, UNTESTED = "holds", "does not hold", "open", "holds in part", "not tested"
#: What rows are meant where a check does not say: networks pruned once, as the method does.
USUAL = {"ablation": ("none",), "prune_at": ("0", "end")}


@dataclass(frozen=True)
class Effect:
    """A difference, or a value, with its interval over seeds.

    Attributes:
        name: of the value of `each` that it belongs to, or "".
        mean, low, high: in the units of the column; low and high are Student's 95% interval.
        rows: from which it was computed.
    """

    name: str
    mean: float
    low: float
    high: float
    seeds: int
    outcome: str
    rows: pd.DataFrame


@dataclass(frozen=True)
class Finding:
    """A check and what came of it."""

    check: Check
    outcome: str
    effects: tuple[Effect, ...] = ()


def judge(claim: Claim, root: Path) -> tuple[str, list[Finding]]:
    """Return the verdict that the rows give, and what came of every check.

    Tests are taken as passed here, for the suite runs them; that they are there is looked up.

    Raises:
        ValueError: a check names a file, a column, a test or rows that are not there, has fewer
            than three seeds, or says that nothing was measured where something was.
    """
    try:
        findings = [examine(check, root) for check in claim.checks]
    except ValueError as error:
        raise ValueError(f"{claim.id}: {error}") from error
    return verdict(finding.outcome for finding in findings), findings


def verdict(outcomes: Iterable[str]) -> str:
    """Return the verdict on a claim from the outcomes of its checks."""
    tested = {outcome for outcome in outcomes if outcome != UNTESTED}
    if not tested:
        return UNTESTED
    if HOLDS in tested:
        return HOLDS if tested == {HOLDS} else PART
    return FAILS if FAILS in tested else OPEN


def examine(check: Check, root: Path) -> Finding:
    """Return what came of a check."""
    if check.tests:
        for test in check.tests:
            find_test(test, root)
        return Finding(check, HOLDS)
    if check.no_rows:
        refuse_rows(check.no_rows, root)
        return Finding(check, UNTESTED)
    effects = tuple(effects_of(check, root))
    outcomes = {effect.outcome for effect in effects}
    outcome = FAILS if FAILS in outcomes else OPEN if OPEN in outcomes else HOLDS
    return Finding(check, outcome, effects)


def effects_of(check: Check, root: Path) -> Iterable[Effect]:
    """Yield the effect of a check for every value of its `each`."""
    frame = pd.concat([read(name, root) for name in check.results], ignore_index=True)
    for value in combinations(check.each or {}):
        of = select(frame, {**(check.of or {}), **value}, check)
        rows, values = of, by_seed(of, check)
        if check.against:
            against = select(frame, {**value, **check.against}, check)
            rows, values = pd.concat([of, against]), (values - by_seed(against, check)).dropna()
        if len(values) < FEWEST:
            raise ValueError(
                f"{check.says!r} rests on {len(values)} seeds; an interval needs {FEWEST}. "
                "Measure more, or drop the check."
            )
        mean, (low, high) = float(values.mean()), student_interval(values.to_numpy())
        name = ", ".join(map(str, value.values()))
        yield Effect(name, mean, low, high, len(values), outcome_of(low, high, check), rows)


def outcome_of(low: float, high: float, check: Check) -> str:
    """Say whether the interval lies in the range that the claim gives, outside it, or neither.

    The end of a range without another end is not in it: above zero is not zero.
    """
    least, most = check.holds_in
    if least is not None and most is not None:
        inside, outside = least <= low and high <= most, high < least or low > most
    elif least is not None:
        inside, outside = low > least, high <= least
    else:
        inside, outside = most is None or high < most, most is not None and low >= most
    return HOLDS if inside else FAILS if outside else OPEN


def select(frame: pd.DataFrame, cell: Mapping[str, Any], check: Check) -> pd.DataFrame:
    """Return the rows of a cell, in all combinations of the check's `where`."""
    wanted = {name: [value] for name, value in cell.items()} | (check.where or {})
    usual = {name: values for name, values in USUAL.items() if name in frame}
    for name, values in {**usual, **wanted}.items():
        look_up(dict.fromkeys(frame.columns), name, f"column of {', '.join(check.results)}")
        frame = frame[frame[name].isin(values)]
    return frame


def by_seed(rows: pd.DataFrame, check: Check) -> pd.Series:
    """Return the quantity of every seed that has all combinations, as the mean over them.

    Raises:
        ValueError: there are no rows, several of one combination and seed, or no number in one.
    """
    look_up(dict.fromkeys(rows.columns), check.quantity, "quantity")
    names = list(check.where or {})
    if rows.duplicated(["seed", *names]).any():
        raise ValueError(
            f"{check.says!r} means several rows of one seed; name what they differ in."
        )
    if rows[check.quantity].isna().any():
        raise ValueError(f"{check.says!r} meets rows without {check.quantity}; leave them out.")
    seeds = rows.groupby("seed")[check.quantity]
    complete = seeds.size() == math.prod(len(v) for v in (check.where or {}).values())
    return seeds.mean()[complete]


def combinations(lists: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Return every combination of the values, as dictionaries."""
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]


def results_paths(root: Path) -> dict[str, Path]:
    """Return the results files by name."""
    return {path.stem: path for path in sorted((root / "book" / "results").glob("*.csv"))}


def read(name: str, root: Path) -> pd.DataFrame:
    """Return the rows of a results file."""
    path = look_up(results_paths(root), name, "results file")
    return read_rows(path, path.stat().st_mtime_ns)


@cache
def read_rows(path: Path, _changed: int) -> pd.DataFrame:
    """Return the rows of a file as it was at that time."""
    return pd.read_csv(path, dtype={"prune_at": str, "commit": str})


def refuse_rows(cell: Mapping[str, Any], root: Path) -> None:
    """Raise a ``ValueError`` where a results file has rows of the cell."""
    for name in results_paths(root):
        rows = read(name, root)
        if not set(cell) <= set(rows):
            continue
        if (rows[list(cell)] == pd.Series(cell)).all(axis=1).any():
            raise ValueError(f"{name}.csv has rows of {dict(cell)} now: write a check with them.")


def find_test(test: str, root: Path) -> None:
    """Raise a ``ValueError`` where there is no such test."""
    file, name = test.split("::")
    path = root / file
    tree = ast.parse(path.read_text(encoding="utf8")) if path.exists() else ast.Module([], [])
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    look_up(functions, name, f"test of {file}")
