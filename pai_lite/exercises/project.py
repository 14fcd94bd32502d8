"""Checks of the project."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "project"

EXERCISES: dict[int, Exercise] = {}
