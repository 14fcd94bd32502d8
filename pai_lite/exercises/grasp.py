"""Exercises of the chapter "Gradient flow"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "grasp"

EXERCISES: dict[int, Exercise] = {}
