"""Looking a thing up by its name, with an error that helps."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

Thing = TypeVar("Thing")


def look_up(table: Mapping[str, Thing], name: str, kind: str) -> Thing:
    """Return the entry of that name.

    Raises:
        ValueError: there is none; the message names the nearest and lists all.
    """
    if name in table:
        return table[name]
    beginnings = [known for known in table if known.startswith(name.lower())]
    nearest = beginnings[:1] or get_close_matches(name.lower(), table, n=1, cutoff=0.4)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"Unknown {kind} {name!r}.{guess} Known: {', '.join(table)}.")
