"""The exercises of the book: ``check("snip.3", answer)`` says whether an answer is right."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from pai_lite.exercises import (
    baselines,
    beyond,
    code,
    force,
    grasp,
    hw1,
    hw2,
    hw3,
    hw4,
    mark,
    problem,
    project,
    prospr,
    shootout,
    snip,
    structured,
    synflow,
)
from pai_lite.exercises.engine import Exercise, Mistake, Verdict, judge
from pai_lite.lookup import look_up

CHAPTERS = (
    problem,
    baselines,
    snip,
    grasp,
    synflow,
    force,
    prospr,
    structured,
    mark,
    shootout,
    code,
    beyond,
)

HOMEWORK = (hw1, hw2, hw3, hw4, project)


def by_identifier(modules: Iterable[ModuleType]) -> dict[str, Exercise]:
    """Return the exercises of modules by identifier."""
    return {
        f"{module.PREFIX}.{number}": exercise
        for module in modules
        for number, exercise in module.EXERCISES.items()
    }


#: The exercises of the chapters by identifier.
EXERCISES: dict[str, Exercise] = by_identifier(CHAPTERS)

#: The checks that students see in the assignments; hidden tests give the points.
QUESTIONS: dict[str, Exercise] = by_identifier(HOMEWORK)


def check(exercise_id: str, answer: Any) -> Verdict:
    """Check an answer to an exercise of the book, or to a question of an assignment.

    Args:
        exercise_id: chapter or assignment and number, for example "snip.3" or "hw1.2".
        answer: a value or a function, as the exercise asks.

    Raises:
        ValueError: there is no such exercise.
    """
    return judge(look_up(EXERCISES | QUESTIONS, exercise_id, "exercise"), answer)


__all__ = ["EXERCISES", "QUESTIONS", "Exercise", "Mistake", "Verdict", "check"]
