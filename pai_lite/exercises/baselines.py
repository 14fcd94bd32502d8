"""Exercises of a chapter."""

from pai_lite.exercises.engine import Exercise

PREFIX = "baselines"
EXERCISES: dict[int, Exercise] = {}
