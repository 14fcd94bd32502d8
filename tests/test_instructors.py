"""The tables of the instructors' page say what the chapters and the assignments say."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import yaml

from tools.convert import convert
from tools.site import ROOT, assignment_paths, chapter_paths

PAGE = (ROOT / "book" / "instructors.md").read_text(encoding="utf8")
HIDDEN = re.compile(r"^(`{3,})\{(?:code-cell|solution)\}.*?^\1$", re.MULTILINE | re.DOTALL)
MINUTES = re.compile(r"★[^\n]*?(\d+) minutes")


def row(first: str) -> list[str]:
    """The cells of the row of the page whose first cell is this."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize("chapter", chapter_paths(), ids=lambda path: path.stem)
def test_the_times_of_a_chapter_are_its_own(chapter: Path) -> None:
    text = chapter.read_text(encoding="utf8")
    seconds = dict(csv.reader((ROOT / "book" / "execution_times.csv").open(encoding="utf8")))
    _, reading, exercises, running = row(f"{{doc}}`chapters/{chapter.stem}`")
    assert int(exercises) == sum(map(int, MINUTES.findall(text)))
    assert running == seconds[chapter.stem]
    assert abs(int(reading) - len(HIDDEN.sub("", text).split()) / 100) < 4


@pytest.mark.parametrize("master", assignment_paths(), ids=lambda path: path.stem)
def test_the_points_of_an_assignment_are_its_own(master: Path) -> None:
    raw = [cell.source for cell in convert(master).cells if cell.cell_type == "raw"]
    questions = [yaml.safe_load(text) for text in raw if text.startswith("# BEGIN QUESTION")]
    *_, points, written, minutes = row(f"`{master.stem.split('_')[0]}`")
    assert int(points) == sum(q["points"] for q in questions)
    assert int(written) == sum(q["points"] for q in questions if q.get("manual"))
    total = re.search(r"^\|[^\n]*\b(?:total|together)\b[^\n]*$", master.read_text(), re.MULTILINE)
    assert {points, minutes} <= set(re.findall(r"\d+", total[0]))
