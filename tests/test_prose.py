"""Every measured number in the prose of the book is tied to a source, a claim or a cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import notebooks
from tools.grounds import numbers_in
from tools.prose import measured_numbers, untied
from tools.site import ROOT, chapter_paths, notebook_path

PAGES = [
    *chapter_paths(),
    ROOT / "book" / "index.md",
    ROOT / "book" / "how-to-use.md",
    ROOT / "README.md",
]
CODE = """
found = measure(sparsities=(0.9, 0.98), tolerance=0.005, seeds=5)
assert abs(found["mean"]) < 2
"""
SHOWN = "          accuracy   share\nsnip      89.43      0.412\nresnet-20 91.96      7"
CLAIMS = """
- {id: grasp-random, claim: GraSP beats random pruning clearly at 95%., numbers: 88.8 / 71.8}
- {id: prospr-cost, claim: The step costs about 30 seconds.}
"""
Book = Callable[[str], Path]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_measured_number_is_tied(page: Path) -> None:
    assert untied(page) == []


def notebook() -> NotebookNode:
    """Two sections; only the second one has code, and shows numbers."""
    cell = new_code_cell(CODE, outputs=[new_output("stream", text=SHOWN)])
    parts = [new_markdown_cell("## Derivation"), new_markdown_cell("## The experiment"), cell]
    return new_notebook(cells=parts)


@pytest.fixture
def write(tmp_path: Path) -> Book:
    """Write a chapter of these words, in the section of an experiment."""

    def write_chapter(words: str) -> Path:
        chapter = tmp_path / "book" / "chapters" / "01_one.md"
        chapter.parent.mkdir(parents=True, exist_ok=True)
        chapter.write_text(f"# One\n\n## The experiment\n\n{words}\n", encoding="utf8")
        (tmp_path / "book" / "claims.yml").write_text(CLAIMS, encoding="utf8")
        notebooks._write(notebook(), notebook_path(chapter, tmp_path))
        return chapter

    return write_chapter


TIED = {
    "cited in its sentence": "{cite:t}`wang2020grasp` report 37% there.",
    "cited in its cell": "| claim | {cite:p}`wang2020grasp`: 37% | ours |",
    "in the numbers of a claim": "| `grasp-random` | 88.8% against 71.8% | holds |",
    "in the words of a claim": "As `prospr-cost` has it, thirty seconds are enough.",
    "shown": "SNIP reaches 89.43%.",
    "shown, rounded": "SNIP reaches 89.4% and the network 92.0%.",
    "shown as a fraction": "It keeps 41.2% of the units.",
    "a setting": "At 98% all is lost; at 90 and 98% it is not.",
    "a setting in points": "The tolerance is half a point.",
    "a setting without unit": "At a sparsity of 0.98 all is lost.",
    "a bound": "It loses no more than two points, as asserted.",
    "exact arithmetic": "The floor is $92.5 - 0.5 = 92.0$.",
    "code": "The option `--share 0.37` asks for it.",
    "a way of speaking": "One of the two layers is empty.",
    "a number of a table": "Table 3.1, section 4.2 and appendix 5.1 say so.",
    "the data of an exercise": "```{exercise} E\nA network reaches 37.5%.\n```",
    "from the data of an exercise": (
        "```{exercise} E\nA network reaches 37.5%.\n```\n\n```{solution} E\nNot 37.5%.\n```"
    ),
}
UNTIED = {
    "a percentage": ("SNIP reaches 37% there.", "37"),
    "a percentage in words": ("SNIP loses forty percent.", "forty"),
    "a decimal": ("SNIP reaches 88.7%.", "88.7"),
    "more precise than what is shown": ("SNIP reaches 89.432%.", "89.432"),
    "less precise than what is shown": ("SNIP reaches 89%.", "89"),
    "written with more places than shown": ("It takes 7.0 minutes.", "7.0"),
    "a setting that is no fraction of points": ("SNIP is five points ahead.", "five"),
    "a setting that is no time": ("It takes five times as long.", "five"),
    "the other one of a list": ("At 90, 37 and 98% it is lost.", "37"),
    "points": ("SNIP is 3 points ahead.", "3"),
    "points in words": ("SNIP is three percentage points ahead.", "three"),
    "half a point": ("SNIP is 0.6 points ahead, or half a minute.", "0.6"),
    "a time": ("It takes half a minute.", "half"),
    "times": ("It takes three times as long.", "three"),
    "a factor": ("It is a 3.5x gain.", "3.5"),
    "x of y": ("It wins with 4 of the 5 seeds.", "4"),
    "out of": ("It wins four out of five times.", "four"),
    "without a unit": ("They overlap by 0.37.", "0.37"),
    "a number set as mathematics": ("They overlap by $0.37$, or $37\\%$.", "0.37"),
    "a whole number that is shown": ("It takes 7 minutes.", "7"),
    "a number in a name": ("It reaches 20%.", "20"),
    "cited in another sentence": ("{cite:t}`wang2020grasp` see it.\nWe see 37%.", "37"),
    "cited in another cell": ("| {cite:p}`wang2020grasp` | we see 37% |", "37"),
    "another claim's": ("| `prospr-cost` | 71.8% | holds |", "71.8"),
    "in a caption": (
        "```{code-cell}\n---\nmystnb:\n  figure:\n    caption: At 37%.\n---\n1\n```",
        "37",
    ),
    "in an admonition": ("```{note}\nSNIP reaches 37%.\n```", "37"),
    "in a list": ("- GraSP\n- SNIP, with 37%", "37"),
    "in a solution": ("```{solution} E\nIt reaches 37.5%.\n```", "37.5"),
    "in another section": ("## Derivation\n\nSNIP reaches 89.4%.", "89.4"),
}


@pytest.mark.parametrize("words", TIED.values(), ids=TIED)
def test_what_is_tied(write: Book, tmp_path: Path, words: str) -> None:
    assert untied(write(words), tmp_path) == []


@pytest.mark.parametrize(("words", "number"), UNTIED.values(), ids=UNTIED)
def test_what_is_untied(write: Book, tmp_path: Path, words: str, number: str) -> None:
    messages = untied(write(words), tmp_path)
    assert messages
    assert f"{number!r} in" in messages[0]


def test_a_section_that_looks_back_may_use_the_numbers_of_all(write: Book, tmp_path: Path) -> None:
    words = "## Claims and findings\n\n| SNIP reaches 89.4% | two points |"
    assert untied(write(words), tmp_path) == []


def test_the_message_says_where_what_and_how(write: Book, tmp_path: Path) -> None:
    (message,) = untied(write("We look.\nSNIP loses three points."), tmp_path)
    assert message.startswith("book/chapters/01_one.md:6: 'three' in 'three points' is tied to ")
    assert "let a cell of this section print it" in message


def test_a_number_planted_in_a_chapter_is_found(tmp_path: Path) -> None:
    chapter, planted = chapter_paths()[0], "Pruning costs 13.7 points on average."
    copy = tmp_path / chapter.relative_to(ROOT)
    copy.parent.mkdir(parents=True)
    heading, text = "## What goes wrong\n", chapter.read_text(encoding="utf8")
    copy.write_text(text.replace(heading, f"{heading}\n{planted}\n", 1), encoding="utf8")
    stored = notebook_path(copy, tmp_path)
    stored.parent.mkdir()
    stored.write_bytes(notebook_path(chapter).read_bytes())
    line = copy.read_text(encoding="utf8").splitlines().index(planted) + 1
    (message,) = untied(copy, tmp_path)
    assert message.startswith(f"{copy.relative_to(tmp_path)}:{line}: '13.7' in '13.7 points'")


def test_the_book_has_numbers_to_look_at() -> None:
    assert sum(len(measured_numbers(page)) for page in chapter_paths()) > 200


def test_the_numbers_of_a_text() -> None:
    text = "ResNet-20: 1,797 images, 95-99.5%, 88.8/71.8, -3 and 1e-05, v1.2"
    assert sorted(map(float, numbers_in(text))) == [1e-5, 3, 71.8, 88.8, 95, 99.5, 1797]
