"""The tests of an assignment, as otter-grader writes them into ``autograder.zip``.

A test is code and the text that it prints for the right answer. Only the code is run beside a
student's; the text stays in the process that compares.
"""

from __future__ import annotations

import ast
import doctest
import json
import math
import re
import zipfile
from dataclasses import dataclass
from os import PathLike

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Case:
    """A hidden test.

    Attributes:
        source: statements, run in a copy of the student's names.
        wanted: what they print for the right answer.
        points: what it earns.
        hint: what a student is told who fails it.
    """

    source: str
    wanted: str
    points: float
    hint: str

    def passes(self, printed: str) -> bool:
        """Say whether a text is the one wanted: numbers to three digits, all else exactly."""
        return same_text(printed, self.wanted)


@dataclass(frozen=True)
class Question:
    """A question: coded, with tests; or written, with none, for a person to grade."""

    name: str
    points: float
    cases: tuple[Case, ...] = ()

    @property
    def written(self) -> bool:
        """Whether a person grades it."""
        return not self.cases


@dataclass(frozen=True)
class Assignment:
    """The questions of an assignment, in order."""

    name: str
    questions: tuple[Question, ...]

    @property
    def possible(self) -> float:
        """The points of all questions."""
        return sum(question.points for question in self.questions)


def read_assignment(path: str | PathLike[str]) -> Assignment:
    """Read the ``autograder.zip`` that ``make assignments`` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    try:
        with zipfile.ZipFile(path) as bundle:
            name = json.loads(bundle.read("otter_config.json"))["assignment_name"]
            written = json.loads(bundle.read("written.json"))
            files = [bundle.read(file) for file in bundle.namelist() if file.startswith("tests/")]
        questions = [_question(file.decode()) for file in files]
    except (zipfile.BadZipFile, KeyError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{path} holds no tests of an assignment ({error}): give the autograder.zip that "
            "`make assignments` writes."
        ) from error
    questions += [Question(name, points) for name, points in written.items()]
    return Assignment(name, tuple(sorted(questions, key=lambda q: (len(q.name), q.name))))


def _question(text: str) -> Question:
    """Return the question of a test file: it assigns a dictionary, which is read and not run."""
    test = ast.literal_eval(text.partition("test = ")[2])
    cases = tuple(_case(case) for case in test["suites"][0]["cases"])
    return Question(test["name"], sum(case.points for case in cases), cases)


def _case(case: dict) -> Case:
    examples = doctest.DocTestParser().get_examples(case["code"])
    sources = [example.source for example in examples]
    wanted = "".join(example.want for example in examples)
    each = f"for _line in {sources!r}: exec(compile(_line, 'hidden test', 'single'), globals())"
    # In a copy of the student's names: a test leaves none behind, and changes none of them.
    source = f"exec({each!r}, {{**globals()}})"
    return Case(source, wanted, case["points"], case.get("failure_message", ""))


def same_text(printed: str, wanted: str) -> bool:
    """Compare two texts: numbers with a point to three digits, all else exactly.

    Where a digit beyond that is rounded otherwise on another machine, the answer is still right.
    """
    if _NUMBER.sub("#", printed).split() != _NUMBER.sub("#", wanted).split():
        return False
    pairs = zip(_NUMBER.findall(printed), _NUMBER.findall(wanted), strict=True)
    return all(_same_number(a, b) for a, b in pairs)


def _same_number(printed: str, wanted: str) -> bool:
    if re.fullmatch(r"[-+]?\d+", wanted):
        return printed == wanted
    return math.isclose(float(printed), float(wanted), rel_tol=2e-3, abs_tol=1e-8)
