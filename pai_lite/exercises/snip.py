"""Exercises of a chapter."""

from pai_lite.exercises.engine import Exercise

PREFIX = "snip"
EXERCISES: dict[int, Exercise] = {}
