"""The method cards and the map on the first page leave nothing out, and say what is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pandas as pd
import pytest

import pai_lite as pai
from tools.method_cards import COSTS, PAGE, ROWS, make_page, measured_costs
from tools.site import ROOT, chapter_paths

TEXT = make_page(ROOT)
CARDS = dict(re.findall(r"^## ([^\n]+)\n\n(.*?)(?=\n## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
LATER = CARDS.pop("Pruning later")
FIELDS = ["Keeps", "Costs", "Needs", "Fails", "Source"]
each_card = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)


def in_code(text: str) -> set[str]:
    """The names that stand in code, and are no role's."""
    return set(re.findall(r"`([^`]+)`", re.sub(r"{[\w:]+}`[^`]+`", "", text)))


@pytest.mark.parametrize("method", pai.METHODS)
def test_every_method_is_named_on_the_card_of_its_criterion(method: str) -> None:
    preset = pai.METHODS[method]
    if preset.prune_at != 0:
        assert method in in_code(LATER)
        return
    function = f"{{func}}`pai_lite.{preset.criterion.__name__}`"
    assert any(method in in_code(card) and function in card for card in CARDS.values())


def test_every_function_that_is_named_is_in_the_package() -> None:
    named = re.findall(r"{func}`pai_lite\.(\w+)`", TEXT)
    assert len(named) > len(CARDS)
    assert all(callable(getattr(pai, name, None)) for name in named)


@each_card
def test_a_card_has_a_formula_and_every_field(card: str) -> None:
    assert re.match(r"\$\$\nz_i .+\n\$\$\n", card)
    assert re.findall(r"^(\w+)\n: ", card, re.MULTILINE) == FIELDS


@each_card
def test_a_card_links_the_failure_to_a_chapter_and_cites_a_source(card: str) -> None:
    _, failure, source = re.split(r"\n(?:Fails|Source)\n: ", card)
    numbers = re.findall(r"{doc}`chapter (\d+) <chapters/(\d\d)_\w+>`", failure)
    assert numbers
    assert all(int(said) == int(linked) for said, linked in numbers)
    assert "{cite:t}`" in source


def test_the_defaults_are_those_of_the_package() -> None:
    temperature = inspect.signature(pai.grasp).parameters["temperature"].default
    assert f"a temperature of {temperature:g}." in CARDS["GraSP"]
    assert f"in each of {pai.METHODS['synflow'].steps} steps" in CARDS["SynFlow"]
    for name, card in (("force", "Iter-SNIP and FORCE"), ("grasp-it", "GRASP-It")):
        assert f"by default ${pai.METHODS[name].steps}\\,u$" in CARDS[card]


def test_the_costs_are_the_measured_ones() -> None:
    costs = pd.read_csv(ROOT / COSTS)
    resnet, vgg = costs.loc[costs["what"] == "snip", "measured"]
    assert f"({resnet:.2f} and {vgg:.2f})" in CARDS["SNIP"]


def test_a_row_that_was_not_measured_is_named(tmp_path: Path) -> None:
    costs = pd.read_csv(ROOT / COSTS)
    costs[costs["what"] != ROWS["force"]].to_csv(tmp_path / "costs.csv", index=False)
    with pytest.raises(ValueError, match=r"no row \['force, 60 steps.*make bench"):
        measured_costs(tmp_path / "costs.csv")


def test_the_committed_page_is_the_one_that_is_made() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf8") == TEXT, "run `make results-pages`"


def test_the_map_leads_through_every_chapter_in_order() -> None:
    index = (ROOT / "book" / "index.md").read_text(encoding="utf8")
    (steps,) = re.findall(r"::::{div} method-map\n(.*?)::::", index, re.DOTALL)
    items = re.findall(
        r"^(\d+)\. {doc}`[^<`]+ <chapters/(\w+)>`\n\n +(.+)\n\n +(.+)\n", steps, re.M
    )
    assert [name for _, name, *_ in items] == [path.stem for path in chapter_paths()]
    assert [int(number) for number, *_ in items] == list(range(1, len(items) + 1))
