"""The README and the page on how to use the book: their code runs, and what they say is so."""

from __future__ import annotations

import re

import pytest

import pai_lite as pai
from tools.scorecard import headline, judge_all
from tools.site import ROOT

README = (ROOT / "README.md").read_text(encoding="utf8")
HOW_TO_USE = (ROOT / "book" / "how-to-use.md").read_text(encoding="utf8")
API = (ROOT / "book" / "api.md").read_text(encoding="utf8")


def run_code(text: str) -> None:
    """Run the Python of a page, block after block."""
    scope: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(block, scope)


def test_the_ten_lines_train_a_pruned_network(capsys: pytest.CaptureFixture[str]) -> None:
    run_code(README)
    accuracy = float(re.search(r"sparsity 95.00%\) ([\d.]+)", capsys.readouterr().out)[1])
    assert accuracy > 0.5


@pytest.mark.filterwarnings("ignore::pai_lite.LayerCollapseWarning")
def test_the_code_on_the_page_for_users_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run_code(HOW_TO_USE)
    assert re.search(r"ratio +[\d.]+ +[\d.]+ +[\d.]+", capsys.readouterr().out)


def test_every_method_is_named_and_every_name_is_a_method() -> None:
    table = API.split("| family | names |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([\w-]+)`", table)) == set(pai.METHODS)


def test_the_verdicts_are_those_of_the_scorecard() -> None:
    assert headline(judge_all(ROOT)) in README


@pytest.mark.parametrize("place", ["srcset", "src"])
def test_the_picture_is_there(place: str) -> None:
    assert (ROOT / re.search(f' {place}="([^"]+)"', README)[1]).exists()


def test_the_picture_says_in_words_what_it_shows() -> None:
    assert len(re.search(r'<img [^>]*alt="([^"]+)"', README)[1].split()) > 5


def test_every_file_that_is_named_is_there() -> None:
    named = re.findall(r"`([\w.-]+/[\w./-]*|[\w-]+\.\w+|[A-Z]+)`", README)
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
