"""Exercises of the chapter "Synaptic flow"."""

from __future__ import annotations

from pai_lite.exercises.engine import Exercise

PREFIX = "synflow"

EXERCISES: dict[int, Exercise] = {}
