"""Grading one notebook: its cells run in order, and a question is graded where its check stands.

What a student's code does to itself later takes nothing back that it has earned before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from nbformat import NotebookNode

from pai_lite.course.bundle import Assignment, Case, Question
from pai_lite.course.kernel import START_SECONDS, Kernel, Outcome, Status

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
    graded = Graded(written=dict(written_answers(notebook)))
    grading = _Grading(list(_steps(notebook, assignment)), limits, graded)
    while grading.left > 0 and grading.run():
        pass
    if len(grading.done) < len(grading.steps):
        graded.problems.append(f"It was stopped after {limits.submission:.0f} seconds.")
    graded.seconds = round(limits.submission - grading.left, 1)
    return graded


class _Grading:
    """The grading of one notebook: what was done, what is fatal, and the time that is left."""

    def __init__(self, steps: list[_Step], limits: Limits, graded: Graded) -> None:
        self.steps, self.limits, self.graded = steps, limits, graded
        self.done: set[int] = set()
        self.fatal: set[int] = set()
        self.deadline = time.monotonic() + limits.submission

    @property
    def left(self) -> float:
        """Seconds; below 0 where the last step overran them."""
        return self.deadline - time.monotonic()

    def run(self) -> bool:
        """Take the steps in a new kernel; return whether another one is needed for the rest."""
        with Kernel() as kernel:
            if any("pai_lite" in step.source for step in self.steps):
                # Importing PyTorch takes seconds, and none of the student's.
                kernel.run("__import__('pai_lite')", START_SECONDS)
            for number, step in enumerate(self.steps):
                if self.left <= 0:
                    return False
                if self.needed(number) and self.take(kernel, number, step) == "died":
                    return True
        return False

    def needed(self, number: int) -> bool:
        """Cells are run in every kernel, unless they are fatal; a test is run once."""
        return number not in (self.done if self.steps[number].case else self.fatal)

    def take(self, kernel: Kernel, number: int, step: _Step) -> Status:
        """Take a step, and write down what came of it if it is the first time."""
        outcome = kernel.run(step.source, min(self.limits.cell, self.left))
        if number not in self.done:
            _note(step, outcome, self.graded)
        self.done.add(number)
        if outcome.status in ("timeout", "died"):
            self.fatal.add(number)
        return outcome.status


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
