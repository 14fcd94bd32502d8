"""Checks of assignment 3."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "hw3"

EXERCISES: dict[int, Exercise] = {}
