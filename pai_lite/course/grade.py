"""Grading one notebook: its cells run in order, and a question is graded where its check stands.

What a student's code does to itself later takes nothing back that it has earned before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from nbformat import NotebookNode

from pai_lite.course.bundle import Assignment, Case, Question
from pai_lite.course.kernel import START_SECONDS, Kernel, Outcome

_CHECK = re.compile(r"""\bcheck\(\s*["']\w+\.(\d+)["']""")
_WRITTEN = re.compile(r"<!--\s*BEGIN QUESTION\s*-->.*?\*\*Question (\d+)\*\*", re.DOTALL)
_PLACEHOLDER = "_Type your answer here, replacing this text._"
_WRITTEN_END = re.compile(r"<!--\s*END QUESTION\s*-->")


@dataclass(frozen=True)
class Limits:
    """Seconds: of a cell or a test, and of a whole submission."""

    cell: float = 60.0
    submission: float = 900.0


@dataclass
class Graded:
    """What came of one submission.

    Attributes:
        passed: for each coded question, whether each of its tests was passed.
        written: the answers to the written questions.
        problems: what went wrong, a line each.
        seconds: how long it took.
    """

    passed: dict[str, list[bool]] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def outcomes(self, question: Question) -> list[bool]:
        """Whether each test of a coded question was passed; one that was not reached was not."""
        passed = self.passed.get(question.name, [])
        return passed + [False] * (len(question.cases) - len(passed))

    def points(self, question: Question) -> float:
        """The points of a coded question."""
        outcomes = zip(question.cases, self.outcomes(question), strict=True)
        return sum(case.points for case, passed in outcomes if passed)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Step:
    """A cell, or a test of a question where ``case`` is given."""

    source: str
    label: str
    question: str = ""
    case: Case | None = None


def grade(notebook: NotebookNode, assignment: Assignment, limits: Limits) -> Graded:
    """Run a notebook in a kernel of its own and run the hidden tests on it.

    Where its process dies, a new one runs what came before, without what killed it.
    """
    started = time.monotonic()
    graded = Graded(written=dict(written_answers(notebook)))
    steps, done, fatal = list(_steps(notebook, assignment)), set(), set()
    left = limits.submission
    while left > 0 and _run(steps, done, fatal, graded, limits, started):
        left = limits.submission - (time.monotonic() - started)
    if len(done) < len(steps):
        graded.problems.append(f"It was stopped after {limits.submission:.0f} seconds.")
    graded.seconds = round(time.monotonic() - started, 1)
    return graded


def _run(
    steps: list[_Step],
    done: set[int],
    fatal: set[int],
    graded: Graded,
    limits: Limits,
    started: float,
) -> bool:
    """Take the steps in a new kernel; return whether another kernel is needed for the rest."""
    with Kernel() as kernel:
        if any("pai_lite" in step.source for step in steps):
            kernel.run("__import__('pai_lite')", START_SECONDS)  # takes seconds of nobody's limit
        for number, step in enumerate(steps):
            if number in fatal or (step.case and number in done):
                continue
            left = limits.submission - (time.monotonic() - started)
            if left <= 0:
                return False
            outcome = kernel.run(step.source, min(limits.cell, left))
            if number not in done:
                _note(step, outcome, graded)
            done.add(number)
            if outcome.status in ("timeout", "died"):
                fatal.add(number)
            if outcome.status == "died":
                return True
    return False


def _note(step: _Step, outcome: Outcome, graded: Graded) -> None:
    """Write down what came of a step that was taken for the first time."""
    if step.case is not None:
        passed = outcome.status == "ok" and step.case.passes(outcome.text)
        graded.passed.setdefault(step.question, []).append(passed)
    if outcome.status == "timeout":
        graded.problems.append(f"{step.label} took too long and was interrupted.")
    elif outcome.status != "ok":
        graded.problems.append(f"{step.label}: {outcome.error}")


def _steps(notebook: NotebookNode, assignment: Assignment) -> Iterator[_Step]:
    """The cells, each question's tests after the last cell that checks it, or at the end."""
    codes = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    last = {f"q{k}": i for i, source in enumerate(codes) for k in _CHECK.findall(source)}
    for number, source in enumerate(codes):
        yield _Step(source, f"Code cell {number + 1}")
        for question in assignment.questions:
            if last.get(question.name, len(codes) - 1) == number:
                yield from _tests(question)


def _tests(question: Question) -> Iterator[_Step]:
    for number, case in enumerate(question.cases, 1):
        label = f"Question {question.name.removeprefix('q')}, test {number}"
        yield _Step(case.source, label, question.name, case)


def written_answers(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield name and answer of each written question: the text between its prompt and its end."""
    name, answer = "", []
    for cell in notebook.cells:
        begins = _WRITTEN.search(cell.source) if cell.cell_type == "markdown" else None
        if begins:
            name, answer = f"q{begins[1]}", []
        elif name and _WRITTEN_END.search(cell.source):
            yield name, "\n\n".join(answer).replace(_PLACEHOLDER, "").strip()
            name = ""
        elif name and cell.cell_type == "markdown":
            answer.append(cell.source)
