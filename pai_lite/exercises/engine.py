"""Checking an answer to an exercise, and saying why it is wrong.

An exercise holds its right answer and the mistakes that are likely, each with its explanation.
Answers are values (numbers, tensors, strings, mappings, ...) or functions; a probe turns a
function into values by calling it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that a reader may well give.

    Attributes:
        name: a short name, unique within the exercise.
        answer: what such a reader would hand to ``check``.
        reason: what is wrong with it, and where to look.
    """

    name: str
    answer: Any
    reason: str


@dataclass(frozen=True)
class Exercise:
    """An exercise with its right answer.

    Attributes:
        right: the right answer, a value or a function.
        praise: what a right answer shows, in a sentence.
        hint: what to say of a wrong answer that matches no known mistake.
        mistakes: at least three.
        probe: turns an answer into the value that is compared; needed where it is a function.
    """

    right: Any
    praise: str
    hint: str
    mistakes: tuple[Mistake, ...]
    probe: Callable[[Any], Any] = lambda answer: answer


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and why not."""

    correct: bool
    reason: str

    def __bool__(self) -> bool:
        return self.correct

    def __repr__(self) -> str:
        return f"{'Correct.' if self.correct else 'Not yet.'} {self.reason}"


class NoAnswerError(Exception):
    """A function still returns nothing."""


def or_value(probe: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let what is no function pass a probe as it is.

    The right answer to a graded question is given as a value: its check must hold no solution.
    """

    @wraps(probe)
    def probe_or_value(answer: Any) -> Any:
        return probe(answer) if callable(answer) else answer

    return probe_or_value


def returned(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of the reader returns, which is something."""
    value = function(*arguments)
    if value is None or value is ...:
        raise NoAnswerError("Your function returns None: replace the three dots, and return.")
    return value


def chosen_of(letters: str) -> Callable[[str], str]:
    """Return a probe of answers that choose among letters: those chosen, in order and once."""
    return lambda answer: "".join(sorted(set(answer.lower()) & set(letters)))


def judge(exercise: Exercise, answer: Any) -> Verdict:
    """Compare an answer with the right one and with the known mistakes."""
    if answer is ...:
        return Verdict(False, "There is no answer: replace the three dots with yours.")
    if callable(exercise.right) and not callable(answer):
        return Verdict(False, f"A function is wanted; this is a {type(answer).__name__}.")
    try:
        value = exercise.probe(answer)
    except NoAnswerError as error:
        return Verdict(False, str(error))
    except Exception as error:  # whatever the reader's code raises is the answer to it
        return Verdict(False, f"Your answer raised {type(error).__name__}: {error}")
    if same(value, exercise.probe(exercise.right)):
        return Verdict(True, exercise.praise)
    for mistake in exercise.mistakes:
        if same(value, exercise.probe(mistake.answer)):
            return Verdict(False, mistake.reason)
    return Verdict(False, exercise.hint)


def same(a: Any, b: Any) -> bool:
    """Say whether a value agrees with the one wanted: floats to three digits, all else exactly."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if is_number(a) and is_number(b) and not isinstance(b, int):
        x, y = torch.as_tensor(a).double().cpu(), torch.as_tensor(b).double().cpu()
        return x.shape == y.shape and torch.allclose(x, y, rtol=2e-3, atol=1e-8)
    return is_number(a) == is_number(b) and bool(a == b)


def is_number(value: Any) -> bool:
    """Say whether a value is a number or a tensor; True and False are neither."""
    if isinstance(value, Tensor):
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)
