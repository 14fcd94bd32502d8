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
    """Return the values of every row on the cards, one a network, by its name.

    Raises:
        ValueError: the file lacks a row.
    """
    measured = pd.read_csv(path).set_index("what")["measured"]
    if missing := set(ROWS.values()) - set(measured.index):
        raise ValueError(
            f'{path} has no row {sorted(missing)}; measure it with make bench ARGS="--out {COSTS}".'
        )
    return {
        name: " and ".join(f"{units:.2f}" for units in measured.loc[[what]])
        for name, what in ROWS.items()
    }
