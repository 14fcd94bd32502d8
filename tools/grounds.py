"""The numbers that a chapter's code shows, sets and asserts, and those that its exercises set."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from decimal import Decimal
from pathlib import Path

import nbformat
import yaml

from tools.passages import problem_data, section_in
from tools.site import ROOT, notebook_path

LOOKS_BACK = {"Claims and findings", "What goes wrong", "Exercises"}
DIGITS = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_IN_TEXT = re.compile(rf"(?<![\w.])(?<![A-Za-z]-)(?:{DIGITS})(?:e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Grounds:
    """The numbers in the outputs, in the code and in the assertions of some cells."""

    outputs: frozenset[Decimal] = frozenset()
    settings: frozenset[Decimal] = frozenset()
    bounds: frozenset[Decimal] = frozenset()

    def __or__(self, other: Grounds) -> Grounds:
        """The numbers of both."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Grounds(*(mine | others for mine, others in pairs))


def read_grounds(page: Path, root: Path = ROOT) -> dict[str, Grounds]:
    """The numbers of a page's stored notebook by section; none where there is no notebook.

    A section that looks back has those of the whole chapter.
    """
    path = notebook_path(page, root)
    if page.parent.name != "chapters" or not path.exists():
        return {}
    section, found = "", dict.fromkeys(LOOKS_BACK, Grounds())
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            section = section_in(cell.source) or section
        elif "install" not in cell.metadata.get("tags", []):
            for name in {section, *LOOKS_BACK}:
                found[name] = found.get(name, Grounds()) | _of_cell(cell)
    return found


def read_given(page: Path) -> frozenset[Decimal]:
    """The numbers that the page's exercises set, in words or in code."""
    data = problem_data(page)
    code = (ast.parse(python) for _, python in data)
    return _typed(code).union(*(numbers_in(words) for words, _ in data))


def read_claimed(root: Path = ROOT) -> dict[str, frozenset[Decimal]]:
    """The numbers of every claim by its id; none when there is no file of claims."""
    path = root / "book" / "claims.yml"
    claims = yaml.safe_load(path.read_text(encoding="utf8")) if path.exists() else []
    return {c["id"]: numbers_in(f"{c['claim']} {c.get('numbers', '')}") for c in claims}


def numbers_in(text: str) -> frozenset[Decimal]:
    """The numbers that stand in a text, without their signs and not those in names."""
    return frozenset(Decimal(number.replace(",", "")) for number in _IN_TEXT.findall(text))


def _of_cell(cell: nbformat.NotebookNode) -> Grounds:
    tree = ast.parse(cell.source)
    asserted = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    shown = (text for output in cell.outputs for text in _texts(output))
    return Grounds(frozenset().union(*map(numbers_in, shown)), _typed([tree]), _typed(asserted))


def _texts(output: nbformat.NotebookNode) -> Iterator[str]:
    yield output.get("text", "")
    data = output.get("data", {})
    yield data.get("text/plain", "")
    markup = re.sub(r"<style.*?</style>", "", data.get("text/html", ""), flags=re.DOTALL)
    yield re.sub(r"<[^>]+>", " ", markup)


def _typed(trees: Iterable[ast.AST]) -> frozenset[Decimal]:
    """The numbers that are typed in code."""
    constants = (n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return frozenset(Decimal(str(n.value)) for n in constants if type(n.value) in (int, float))
