"""Exercises of a chapter."""

from pai_lite.exercises.engine import Exercise

PREFIX = "problem"
EXERCISES: dict[int, Exercise] = {}
