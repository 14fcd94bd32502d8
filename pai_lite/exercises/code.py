"""Exercises of the chapter "Reading the code"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "code"

EXERCISES: dict[int, Exercise] = {}
