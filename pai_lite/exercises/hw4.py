"""Checks of assignment 4."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "hw4"

EXERCISES: dict[int, Exercise] = {}
