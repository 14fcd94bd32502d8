"""Exercises: right answers pass, every named mistake is told what is wrong, solutions are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import pai_lite as pai
from pai_lite.exercises.engine import Exercise, judge

CHAPTERS = sorted((Path(__file__).parent.parent / "book" / "chapters").glob("*.md"))
SOLUTION = re.compile(r"^(`{3,})\{solution\} (\S+)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def solutions() -> list[tuple[str, str]]:
    """Return pairs (exercise id, python of its solution) from all chapters."""
    found = []
    for chapter in CHAPTERS:
        for match in SOLUTION.finditer(chapter.read_text()):
            exercise_id = match[2].removeprefix("ex-").replace("-", ".")
            found.append((exercise_id, "\n".join(PYTHON.findall(match[3]))))
    return found


MISTAKES = [(i, m.name) for i, e in pai.EXERCISES.items() for m in e.mistakes]


def test_every_chapter_has_five_exercises_and_each_a_solution() -> None:
    assert len(CHAPTERS) >= 3
    assert sorted(i for i, _ in solutions()) == sorted(pai.EXERCISES)
    chapters = [exercise_id.split(".")[0] for exercise_id in pai.EXERCISES]
    assert all(chapters.count(name) >= 5 for name in set(chapters))
    assert len(set(chapters)) == len(CHAPTERS)


@pytest.mark.parametrize("exercise_id", pai.EXERCISES)
def test_the_right_answer_is_accepted(exercise_id: str) -> None:
    exercise = pai.EXERCISES[exercise_id]
    verdict = pai.check(exercise_id, exercise.right)
    assert verdict
    assert exercise.praise in str(verdict)
    assert len(exercise.mistakes) >= 3
    assert len({mistake.name for mistake in exercise.mistakes}) == len(exercise.mistakes)


@pytest.mark.parametrize(("exercise_id", "name"), MISTAKES)
def test_a_named_mistake_is_rejected_with_its_own_reason(exercise_id: str, name: str) -> None:
    mistake = next(m for m in pai.EXERCISES[exercise_id].mistakes if m.name == name)
    verdict = pai.check(exercise_id, mistake.answer)
    assert not verdict
    assert verdict.reason == mistake.reason


@pytest.mark.parametrize(("exercise_id", "source"), solutions())
def test_the_solution_in_the_chapter_is_right(exercise_id: str, source: str) -> None:
    namespace = {"torch": torch, "pai": pai}
    exec(source, namespace)
    verdict = pai.check(exercise_id, namespace["answer"])
    assert verdict, verdict


def test_no_answer_a_wrong_type_and_a_crash_are_told_apart() -> None:
    exercise = Exercise(lambda x: x, "", "hint", (), probe=lambda answer: answer(torch.ones(2)))
    assert "no answer" in str(judge(exercise, ...))
    assert "function is wanted" in str(judge(exercise, 3))
    assert "ZeroDivisionError" in str(judge(exercise, lambda _: 1 / 0))
    assert str(judge(exercise, lambda x: x + 1)) == "Not yet. hint"


@pytest.mark.parametrize(
    ("wanted", "answer", "correct"),
    [
        (1.0, 1.0 + 1e-6, True),
        (1.0, 1, True),
        (1.0, 1.01, False),
        (1.0, True, False),
        (1.0, "1", False),
        (1.0, [1.0], False),
        (1.0, torch.tensor(1.0), True),
        (1500, 1500.0, True),
        (1500, 1499, False),
        (1500, "1500", False),
        (True, True, True),
        (True, 1, False),
        ("c", "c", True),
        ((1.0, 3), [1.0, 3], True),
        ((1.0, 3), (1.0, 4), False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)
def test_floats_agree_to_three_digits_and_all_else_exactly(
    wanted: object, answer: object, correct: bool
) -> None:
    assert bool(judge(Exercise(wanted, "", "", ()), answer)) is correct


def test_an_unknown_exercise_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'snip\.1'"):
        pai.check("snipp.1", 0)
