"""The exercises of the book: ``check("snip.3", answer)`` says whether an answer is right."""

from __future__ import annotations

from typing import Any

from pai_lite.exercises import (
    baselines,
    beyond,
    code,
    force,
    grasp,
    mark,
    problem,
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

#: The exercises by identifier.
EXERCISES: dict[str, Exercise] = {
    f"{chapter.PREFIX}.{number}": exercise
    for chapter in CHAPTERS
    for number, exercise in chapter.EXERCISES.items()
}


def check(exercise_id: str, answer: Any) -> Verdict:
    """Check an answer to an exercise of the book.

    Args:
        exercise_id: chapter and number, for example "snip.3".
        answer: a value or a function, as the exercise asks.

    Raises:
        ValueError: there is no such exercise.
    """
    return judge(look_up(EXERCISES, exercise_id, "exercise"), answer)


__all__ = ["EXERCISES", "Exercise", "Mistake", "Verdict", "check"]
