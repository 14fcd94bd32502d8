"""The method cards: a reference of one sheet, with the costs that were measured."""

from __future__ import annotations

from pathlib import Path
from string import Template

import pandas as pd

PAGE = Path("book/method-cards.md")
COSTS = Path("book/results/scoring_costs.csv")
#: What is measured, by its name in the template.
ROWS = {
    "magnitude": "magnitude with exact-k selection",
    "snip": "snip",
    "grasp": "grasp, one batch",
    "synflow": "synflow, 100 steps",
    "force": "force, 60 steps, beside the passes",
    "grad_norm": "grad_norm",
    "prospr": "prospr over plain unroll, M = 3",
    "prospr_first_order": "prospr first-order, M = 3",
}


class PageTemplate(Template):
    """A template for pages with formulas, where a dollar has its own meaning."""

    delimiter = "@"


TEMPLATE = Path(__file__).with_name("method_cards_template.md")


def make_page(root: Path) -> str:
    """Return the page in Markdown."""
    template = PageTemplate(TEMPLATE.read_text(encoding="utf8"))
    return template.substitute(measured_costs(root / COSTS))


def measured_costs(path: Path) -> dict[str, str]:
    """Return the measured values of every row on the cards, one a network.

    Raises:
        ValueError: the file lacks a row.
    """
    costs = pd.read_csv(path).drop_duplicates(["what", "network"], keep="last")
    found = {name: costs.loc[costs["what"] == what, "measured"] for name, what in ROWS.items()}
    if missing := [ROWS[name] for name, values in found.items() if values.empty]:
        raise ValueError(f"{path} has no row {missing}; measure it with make bench.")
    return {name: " and ".join(map("{:.2f}".format, v)) for name, v in found.items()}
