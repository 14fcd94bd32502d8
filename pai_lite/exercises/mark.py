"""Exercises of the chapter "Missing the mark"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "mark"

EXERCISES: dict[int, Exercise] = {}
