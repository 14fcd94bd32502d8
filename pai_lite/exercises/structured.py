"""Exercises of the chapter "Channels, not weights"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "structured"

EXERCISES: dict[int, Exercise] = {}
