"""Exercises of the chapter "The shoot-out"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "shootout"

EXERCISES: dict[int, Exercise] = {}
