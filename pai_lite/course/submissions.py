"""Grading a folder of submissions: a table of scores, and a page of feedback for each.

What was graded is kept beside the table, so that an interrupted run goes on where it stopped, and
so that points for written answers can be filled in afterwards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from os import PathLike
from pathlib import Path

import nbformat
import pandas as pd
from nbformat.reader import NotJSONError

from pai_lite.course.bundle import Assignment, read_assignment
from pai_lite.course.feedback import write_feedback
from pai_lite.course.grade import Graded, Limits, grade
from pai_lite.files import whole_file

WRITTEN_COLUMNS = ("submission", "question", "possible", "points", "comment", "answer")


def grade_submissions(
    folder: str | PathLike[str],
    tests: str | PathLike[str],
    out: str | PathLike[str],
    *,
    limits: Limits | None = None,
    workers: int = 1,
) -> pd.DataFrame:
    """Grade every notebook below a folder, or one notebook.

    Writes into ``out``: scores.csv, a row a submission; feedback/NAME.html; written.csv, a row for
    each written answer, whose columns points and comment are for you to fill in: run the same
    again to add them up; and graded/NAME.json, what was found, which is not found again while the
    notebook and the tests stay the same.

    Args:
        folder: of .ipynb files, at any depth.
        tests: the autograder.zip of the assignment.
        out: a folder, made where it is missing.
        limits: times; by default a minute a cell, a quarter of an hour a submission.
        workers: submissions graded at once.

    Returns:
        The rows of scores.csv; the points of a written question are NaN until they are given.

    Raises:
        ValueError: there are no notebooks, the tests are of another kind, or written.csv holds
            points that are no numbers or out of range.
    """
    assignment, out = read_assignment(tests), Path(out)
    notebooks = find_notebooks(Path(folder))
    for part in ("graded", "feedback"):
        (out / part).mkdir(parents=True, exist_ok=True)
    work = partial(
        _graded, assignment=assignment, tests=Path(tests), out=out, limits=limits or Limits()
    )
    with ThreadPoolExecutor(workers) as pool:
        graded = pool.map(work, notebooks.keys(), notebooks.values())
        results = dict(zip(notebooks, graded, strict=True))
    written = _update_written(results, assignment, out / "written.csv")
    for name, graded in results.items():
        marks = written[written["submission"] == name].set_index("question")
        write_feedback(name, graded, assignment, marks, out / "feedback" / f"{name}.html")
    scores = pd.DataFrame([_row(name, results[name], assignment, written) for name in results])
    with whole_file(out / "scores.csv") as path:
        scores.to_csv(path, index=False)
    return scores


def find_notebooks(folder: Path) -> dict[str, Path]:
    """Return the notebooks below a folder by name: their path, with "__" for each slash.

    Raises:
        ValueError: there are none, or two of one name.
    """
    if folder.is_file():
        return {folder.stem: folder}
    found = sorted(p for p in folder.rglob("*.ipynb") if not _hidden(p.relative_to(folder)))
    names = ["__".join(path.relative_to(folder).with_suffix("").parts) for path in found]
    if not found:
        raise ValueError(f"There is no notebook (*.ipynb) in {folder}: unpack archives first.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"Two notebooks are both called {', '.join(twice)}: rename one.")
    return dict(zip(names, found, strict=True))


def _hidden(path: Path) -> bool:
    """Say whether some part of a path begins with a dot, as copies that editors keep do."""
    return any(part.startswith(".") for part in path.parts)


def _graded(
    name: str, notebook: Path, *, assignment: Assignment, tests: Path, out: Path, limits: Limits
) -> Graded:
    """Return what was found before, or grade the notebook and keep what is found."""
    digest = hashlib.sha256(notebook.read_bytes() + tests.read_bytes()).hexdigest()
    kept = out / "graded" / f"{name}.json"
    if kept.exists():
        stored = json.loads(kept.read_text(encoding="utf8"))
        if stored.pop("sha256") == digest:
            return Graded(**stored)
    graded = grade_file(notebook, assignment, limits)
    with whole_file(kept) as path:
        path.write_text(json.dumps({"sha256": digest, **asdict(graded)}, indent=1), "utf8")
    return graded


def grade_file(path: Path, assignment: Assignment, limits: Limits) -> Graded:
    """Grade a file; one that is no notebook earns nothing, and says why."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (NotJSONError, UnicodeDecodeError, ValueError, AttributeError, KeyError) as error:
        problem = f"This file is no notebook: {str(error)[:200]}"
        return Graded(problems=[problem])
    return grade(notebook, assignment, limits)


def _update_written(
    results: Mapping[str, Graded], assignment: Assignment, path: Path
) -> pd.DataFrame:
    """Add rows for answers that have none, keep every point and comment, and return all rows."""
    keys = ["submission", "question"]
    rows = pd.DataFrame(_written_rows(results, assignment), columns=list(WRITTEN_COLUMNS))
    if path.exists():
        old = pd.read_csv(path, dtype={"submission": str, "comment": str, "answer": str})
        given = old.set_index(keys)[["points", "comment"]]
        rows = rows.drop(columns=["points", "comment"]).join(given, on=keys)
    rows["points"] = pd.to_numeric(rows["points"], errors="coerce")
    bad = rows[(rows["points"] < 0) | (rows["points"] > rows["possible"])]
    if len(bad):
        first = bad.iloc[0]
        raise ValueError(
            f"{path} gives {first['points']:g} points to {first['submission']} for "
            f"{first['question']}, which has {first['possible']:g}: correct that row."
        )
    with whole_file(path) as temporary:
        rows[list(WRITTEN_COLUMNS)].to_csv(temporary, index=False)
    return rows


def _written_rows(results: Mapping[str, Graded], assignment: Assignment) -> Iterator[tuple]:
    for name, graded in results.items():
        for question in assignment.questions:
            if question.written:
                answer = graded.written.get(question.name, "")
                yield name, question.name, question.points, float("nan"), "", answer


def _row(name: str, graded: Graded, assignment: Assignment, written: pd.DataFrame) -> dict:
    """Return the row of scores.csv of one submission."""
    own = written[written["submission"] == name].set_index("question")["points"]
    points = {
        question.name: own[question.name] if question.written else graded.points(question)
        for question in assignment.questions
    }
    total = sum(value for value in points.values() if value == value)
    ungraded = sum(value != value for value in points.values())
    return {
        "submission": name,
        **points,
        "total": total,
        "possible": assignment.possible,
        "written_ungraded": ungraded,
        "seconds": graded.seconds,
        "note": " ".join(graded.problems)[:500],
    }
