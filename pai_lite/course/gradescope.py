"""Grading on Gradescope: the one submission of a container, in the form that it reads."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from pai_lite.course.bundle import Assignment, read_assignment
from pai_lite.course.grade import Graded, Limits
from pai_lite.course.submissions import find_notebooks, grade_file
from pai_lite.files import whole_file


def gradescope_results(graded: Graded, assignment: Assignment) -> dict[str, Any]:
    """Return what Gradescope reads from results.json; it has written questions graded apart."""
    tests = [
        {
            "name": f"Question {question.name.removeprefix('q')}, test {number}",
            "score": case.points if passed else 0,
            "max_score": case.points,
            "output": "" if passed else case.hint,
        }
        for question in assignment.questions
        for number, (case, passed) in enumerate(
            zip(question.cases, graded.outcomes(question), strict=True), 1
        )
    ]
    return {"tests": tests, "output": "\n".join(graded.problems), "visibility": "visible"}


def write_gradescope_results(
    folder: str | PathLike[str],
    tests: str | PathLike[str],
    out: str | PathLike[str],
    *,
    limits: Limits,
) -> None:
    """Grade the one notebook of a folder, and write Gradescope's results.json to a path.

    Raises:
        ValueError: the folder holds no notebook, or several.
    """
    notebooks = find_notebooks(Path(folder))
    if len(notebooks) > 1:
        raise ValueError(f"{folder} holds {len(notebooks)} notebooks: hand in one.")
    assignment = read_assignment(tests)
    graded = grade_file(*notebooks.values(), assignment, limits)
    with whole_file(Path(out)) as path:
        path.write_text(json.dumps(gradescope_results(graded, assignment)), encoding="utf8")
