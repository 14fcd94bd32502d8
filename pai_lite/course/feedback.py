"""The page of feedback on one submission: one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from pai_lite.course.bundle import Assignment
from pai_lite.course.grade import Graded
from pai_lite.files import whole_file

HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; what a student wrote is escaped."""
    pages = Environment(
        loader=PackageLoader("pai_lite", "course"),
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["zip"] = lambda first, second: zip(first, second, strict=True)
    style = (HERE / "page.css").read_text(encoding="utf8")
    return pages.get_template(template).render(style=style, **values)


def write_feedback(
    name: str, graded: Graded, assignment: Assignment, marks: pd.DataFrame, path: Path
) -> None:
    """Write the page of a submission.

    Args:
        marks: rows of written.csv by question, with columns points, comment and answer.
    """
    coded = sum(graded.points(q) for q in assignment.questions if not q.written)
    page = render(
        "feedback.html",
        name=name,
        graded=graded,
        assignment=assignment,
        marks=marks,
        total=coded + marks["points"].sum(),
        ungraded=int(marks["points"].isna().sum()),
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf8")
