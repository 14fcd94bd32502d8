"""Exercises of the chapter "Meta-gradients: ProsPr"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "prospr"

EXERCISES: dict[int, Exercise] = {}
