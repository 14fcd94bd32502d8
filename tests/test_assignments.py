"""The assignments: what a submission earns, and that students see no solution.

Every assignment has a module in `fixtures/assignments` with wrong answers and whole submissions.
"""

from __future__ import annotations

import contextlib
import html
import importlib
import io
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import yaml
from nbformat import NotebookNode

import pai_lite as pai
from pai_lite.course.bundle import Assignment, Question, read_assignment
from pai_lite.course.grade import Graded, Limits, grade
from tools.assignments import build
from tools.convert import convert
from tools.site import ROOT, assignment_paths, notebook_path

LIMITS = Limits(cell=60, submission=600)
ENDLESS = Limits(cell=15, submission=600)
MASTERS = {path.stem.split("_")[0]: path for path in assignment_paths()}
SUBMISSIONS = ("half-right", "crashing", "endless", "cheating")
SOLUTION = re.compile(r"# BEGIN SOLUTION\n(.*?)# END SOLUTION", re.DOTALL)
LONG = 30
each_assignment = pytest.mark.parametrize("name", MASTERS)


@dataclass(frozen=True)
class Made:
    """What was made of a master."""

    student: NotebookNode
    solution: NotebookNode
    assignment: Assignment
    folder: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("instructors")

    @cache
    def make(name: str) -> Made:
        student, folder = build(MASTERS[name], out, run_tests=False)
        solution = nbformat.read(folder / "solution.ipynb", as_version=4)
        return Made(student, solution, read_assignment(folder / "autograder.zip"), folder)

    return make


def fixtures(name: str) -> ModuleType:
    return importlib.import_module(f"fixtures.assignments.{name}")


def answer_cells(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """The cells of the coded answers, by question."""
    return {
        cell.metadata.otter.tests[0]: cell
        for cell in notebook.cells
        if cell.metadata.get("otter", {}).get("tests")
    }


def solutions(made: Made) -> dict[str, str]:
    return {name: cell.source for name, cell in answer_cells(made.solution).items()}


def submission(made: Made, answers: dict[str, str | None]) -> NotebookNode:
    """The students' notebook with the solutions filled in, except where an answer is given."""
    notebook = nbformat.from_dict(made.student)
    for name, cell in answer_cells(notebook).items():
        given = answers.get(name, solutions(made)[name])
        cell.source = cell.source if given is None else given
    return notebook


def marks(graded: Graded, assignment: Assignment) -> dict[str, float]:
    return {q.name: graded.points(q) for q in assignment.questions if not q.written}


def possible(assignment: Assignment) -> dict[str, float]:
    return {q.name: q.points for q in assignment.questions if not q.written}


def test_there_are_four_assignments_and_a_project() -> None:
    assert sorted(MASTERS) == ["hw1", "hw2", "hw3", "hw4", "project"]
    found = {path.name for path in (ROOT / "notebooks" / "assignments").glob("*.ipynb")}
    assert found == {notebook_path(master).name for master in MASTERS.values()}


@each_assignment
def test_the_students_notebook_is_what_the_master_says(name: str, made) -> None:
    stored = nbformat.read(notebook_path(MASTERS[name]), as_version=4)
    assert made(name).student == stored, "run `make assignments`"


@each_assignment
def test_a_perfect_submission_earns_everything(name: str, made) -> None:
    it = made(name)
    graded = grade(submission(it, {}), it.assignment, LIMITS)
    assert marks(graded, it.assignment) == possible(it.assignment)
    assert graded.problems == []


@each_assignment
def test_a_blank_submission_earns_nothing(name: str, made) -> None:
    it = made(name)
    graded = grade(it.student, it.assignment, LIMITS)
    assert marks(graded, it.assignment) == dict.fromkeys(possible(it.assignment), 0)
    assert set(graded.written.values()) == {""}
    assert set(graded.written) == {q.name for q in it.assignment.questions if q.written}


@each_assignment
@pytest.mark.parametrize("kind", SUBMISSIONS)
def test_a_submission_earns_what_it_solved(name: str, kind: str, made) -> None:
    it = made(name)
    answers, expected = fixtures(name).SUBMISSIONS[kind]
    graded = grade(submission(it, answers), it.assignment, ENDLESS if kind == "endless" else LIMITS)
    assert marks(graded, it.assignment) == expected
    assert 0 < sum(expected.values()) < sum(possible(it.assignment).values())


@each_assignment
def test_every_plausible_mistake_costs_points(name: str, made) -> None:
    it = made(name)
    names, wrong = solved(it), fixtures(name).WRONG
    assert set(wrong) == set(possible(it.assignment))
    for question in it.assignment.questions:
        if not question.written:
            assert earned(names, question, solutions(it)[question.name]) == question.points
            assert len(wrong[question.name]) >= 4
        for mistake, (code, points) in wrong.get(question.name, {}).items():
            assert earned(names, question, code) == points, f"{question.name}: {mistake}"
            assert points < question.points


def solved(made: Made) -> dict[str, object]:
    """The names of the solution, found in this process: the code is ours."""
    names: dict[str, object] = {}
    for cell in made.solution.cells:
        if cell.cell_type == "code" and not re.search(r"pai\.check\(|%pip", cell.source):
            exec(cell.source, names)
    return names


def earned(names: dict[str, object], question: Question, answer: str) -> float:
    """The points of an answer where all other questions are solved."""
    own = dict(names)
    exec(answer, own)
    return sum(case.points for case in question.cases if passes(case, own))


def passes(case, names: dict[str, object]) -> bool:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(Exception):
        exec(case.source, dict(names))
        return case.passes(printed.getvalue())
    return False


@each_assignment
def test_the_visible_checks_accept_the_solutions(name: str, made) -> None:
    cells = [cell for cell in made(name).solution.cells if cell.source.startswith("pai.check(")]
    checked = [re.match(r'pai\.check\("(\S+)", \w+\)$', cell.source)[1] for cell in cells]
    assert checked == [i for i in pai.QUESTIONS if i.startswith(f"{name}.")]
    assert [f"q{i.split('.')[1]}" for i in checked] == list(possible(made(name).assignment))
    for cell in cells:
        (shown,) = [out["data"]["text/plain"] for out in cell.outputs if "data" in out]
        assert shown.startswith("Correct."), cell.source


def coded_mistakes() -> list[tuple[str, str]]:
    return [(i, m.name) for i, question in pai.QUESTIONS.items() for m in question.mistakes]


@pytest.mark.parametrize(("question", "name"), coded_mistakes())
def test_a_visible_check_explains_a_mistake(question: str, name: str) -> None:
    mistakes = {mistake.name: mistake for mistake in pai.QUESTIONS[question].mistakes}
    assert len(mistakes) >= 3
    verdict = pai.check(question, mistakes[name].answer)
    assert not verdict
    assert verdict.reason == mistakes[name].reason


@pytest.mark.parametrize("question", pai.QUESTIONS)
def test_a_visible_check_holds_no_solution(question: str) -> None:
    exercise = pai.QUESTIONS[question]
    assert not callable(exercise.right)
    assert not any(callable(mistake.answer) for mistake in exercise.mistakes)
    assert "None" in pai.check(question, lambda *_, **__: None).reason
    assert "no answer" in pai.check(question, ...).reason


@each_assignment
def test_hidden_tests_print_what_cannot_be_guessed(name: str, made) -> None:
    for question in made(name).assignment.questions:
        for case in question.cases:
            words = set(re.findall(r"[\w.]+", case.wanted))
            assert words - {"True", "False", "None", "0", "1"}, case.source
            assert case.hint, case.source
            assert case.points > 0


@each_assignment
def test_a_question_is_worth_its_tests(name: str, made) -> None:
    raw = [cell.source for cell in convert(MASTERS[name]).cells if cell.cell_type == "raw"]
    stated = [yaml.safe_load(text) for text in raw if text.startswith("# BEGIN QUESTION")]
    assert {q["name"]: q["points"] for q in stated} == {
        q.name: q.points for q in made(name).assignment.questions
    }
    prompts = "\n".join(cell.source for cell in made(name).student.cells)
    for question in stated:
        kind = "written" if question.get("manual") else "code"
        number = question["name"].removeprefix("q")
        assert f"**Question {number}** ({question['points']} points, {kind})" in prompts


def test_otter_gives_a_perfect_submission_everything(made, tmp_path: Path) -> None:
    it = made("hw1")
    nbformat.write(submission(it, {}), tmp_path / "hw1.ipynb")
    otter = Path(sys.executable).with_name("otter")
    tests = it.folder / "autograder.zip"
    command = [otter, "run", "-a", tests, "-o", tmp_path, "--no-logo", tmp_path / "hw1.ipynb"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    total = sum(possible(it.assignment).values())
    assert f"Total Score: {total:.3f} / {total:.3f}" in done.stdout


# What students must not see.


def secrets(name: str) -> tuple[set[str], set[str]]:
    """The long lines of solutions, and those of hidden tests."""
    cells = convert(MASTERS[name]).cells
    inside, solved, tested = "", [], []
    for cell in cells:
        if cell.cell_type == "raw":
            inside = cell.source.split("\n")[0].removeprefix("# ")
        elif inside == "BEGIN SOLUTION" and cell.cell_type == "code":
            solved += [
                line for block in SOLUTION.findall(cell.source) for line in block.split("\n")
            ]
        elif inside == "BEGIN SOLUTION":
            solved += cell.source.split("\n")
        elif inside == "BEGIN TESTS":
            tested += cell.source.split("\n")
    return long_lines(solved), long_lines(tested)


def long_lines(lines: list[str]) -> set[str]:
    return {" ".join(line.split()) for line in lines if len(line.strip()) > LONG}


@each_assignment
def test_no_student_notebook_holds_a_solution_or_a_hidden_test(name: str) -> None:
    solved, tested = secrets(name)
    assert len(solved) > 10
    assert len(tested) > 10
    for master in MASTERS.values():
        text = notebook_path(master).read_text(encoding="utf8")
        notebook = nbformat.reads(text, as_version=4)
        shown = " ".join(" ".join(cell.source.split()) for cell in notebook.cells)
        assert [line for line in solved | tested if line in shown] == []
        assert not any(cell.get("outputs") for cell in notebook.cells)
        assert "BEGIN SOLUTION" not in text
        assert "BEGIN TEST" not in text


@pytest.mark.book
@each_assignment
def test_the_built_book_holds_no_solution_and_no_hidden_test(name: str) -> None:
    solved, tested = secrets(name)
    text = built_book()
    assert [line for line in solved | tested if line in text] == []


@cache
def built_book() -> str:
    """All text of the built book, without markup."""
    folder = ROOT / "_build" / "html"
    if not folder.is_dir():
        pytest.skip("there is no built book; `make book` builds it")
    pages = [path for path in folder.rglob("*") if path.suffix in (".html", ".txt", ".js")]
    assert len(pages) > 20
    texts = (re.sub(r"<[^>]+>", "", path.read_text(encoding="utf8")) for path in pages)
    return " ".join(" ".join(html.unescape(text).split()) for text in texts)


def test_the_search_for_secrets_finds_one() -> None:
    solved, tested = secrets("hw1")
    page = "<pre><span>" + html.escape(min(solved)) + "</span></pre>"
    assert min(solved) in html.unescape(re.sub(r"<[^>]+>", "", page))
    assert not solved & tested
