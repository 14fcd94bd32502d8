"""Exercises of the chapter "Beyond initialisation"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "beyond"

EXERCISES: dict[int, Exercise] = {}
