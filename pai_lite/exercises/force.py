"""Exercises of the chapter "Progressive pruning: FORCE"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "force"

EXERCISES: dict[int, Exercise] = {}
