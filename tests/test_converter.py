"""The converter: every feature of the chapters' grammar, and loud failure at anything else."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from fixtures.mini_book import FIRST_LINE, make_mini_book, write_chapter
from nbformat import NotebookNode

from tools.convert import convert
from tools.site import ROOT, chapter_paths, colab_url, repository

RAW_MYST = re.compile(
    r"^\s*(>\s*)*(```+|:::+)\s*\{|(?<!`)\{[a-z:]+\}`|^\([\w:.-]+\)=", re.MULTILINE
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_mini_book(tmp_path)


@pytest.fixture
def sample(root: Path) -> NotebookNode:
    return convert(root / "book" / "chapters" / "02_second.md", root)


def markdown(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def converted(root: Path, body: str) -> str:
    return markdown(convert(write_chapter(root, body), root))


@pytest.mark.parametrize(
    "expected",
    [
        "# 2. The second chapter\n",
        "As [Lee et al. (2019)](https://arxiv.org/abs/1810.02340) say",
        "([Lee et al., 2019](https://arxiv.org/abs/1810.02340); LeCun and Denker, 1990)",
        "A mask hides; masks hide.",
        "See (2.1) and [(1.1)](01_first.ipynb), Figure 2.1 and [The first chapter](01_first.ipynb)",
        "[the other one](01_first.ipynb), [The first chapter](01_first.ipynb), the first page.",
        "By Theorem 2.1, and Algorithm 2.1.",
        "A literal `` {eq}`kept` `` stays.",
        "\\frac{1}{2} \\tag{2.1}\n$$",
        "$$ t = u \\tag{2.2} $$",
        "*Figure 2.1. A line, by (2.2).*",
        "| a | b |\n|---|---|\n| 1 | $x$ |",
        '> **Note**\n>\n> A note with a fence.\n>\n> ```python\n> x = {"eq": 1}\n> ```',
        "> **Trap: the sign of (2.1)**\n>\n> Beware.",
        "<details>\n<summary>Tip</summary>\n\nFolded.\n\n</details>",
        "> **Theorem 2.1 (On sums)**\n>\n> It holds.\n>\n> $$ v = w \\tag{2.3} $$",
        "> **Proof**\n>\n> Clear.",
        "> **Algorithm 2.1 (Adding)**\n>\n> 1. Add.",
        "![A dot](data:image/png;base64,",
        "*Figure 2.2. A dot.*",
        "And Fig. 2.2, Exercise 2.1.",
        "**Exercise 2.1: The units of a score**\n\n★☆☆ · 5 minutes · `second.1`",
        "<summary>Solution to Exercise 2.1</summary>\n\nThree.\n\n"
        "```python\nanswer = 3\n```\n\n</details>",
        "- Namhoon Lee, Thalaiyasingam Ajanthan and Philip H. S. Torr (2019). "
        "[SNIP: Single-shot network pruning](https://arxiv.org/abs/1810.02340). ICLR.",
    ],
)
def test_sample_chapter_reads_well(sample: NotebookNode, expected: str) -> None:
    assert expected in markdown(sample)


def test_unlabelled_equation_stays(root: Path) -> None:
    assert "$$\na = b\n$$" in markdown(convert(root / "book" / "chapters" / "01_first.md", root))


def test_only_cited_works_are_listed(root: Path) -> None:
    text = converted(root, "By {cite:t}`lecun1990damage`.\n\n```{bibliography}\n```")
    assert text.count("\n- ") == 1
    assert "- Yann LeCun and John Denker (1990). Optimal brain damage. NIPS." in text


def test_indented_directive_stays_in_its_list(root: Path) -> None:
    text = converted(root, "1. One\n\n   ```{note}\n   Inside.\n   ```\n\n2. Two")
    assert "1. One\n\n   > **Note**\n   >\n   > Inside.\n\n2. Two" in text


def test_nested_directives(root: Path) -> None:
    text = converted(root, "````{note}\n```{tip}\nDeep {eq}`eq-first-law`.\n```\n````")
    assert "> **Note**\n>\n> > **Tip**\n> >\n> > Deep [(1.1)](01_first.ipynb)." in text


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("Text.\n\n```{list-table}\n* - a\n```", 2, "unknown directive {list-table}"),
        ("> A box.\n\n````{note}\n```{mermaid}\nx\n```\n````", 3, "unknown directive {mermaid}"),
        ("One.\nTwo {kbd}`x`.", 1, "unknown role {kbd}"),
        ("````{note}\nOne.\n\nTwo {kbd}`x`.\n````", 3, "unknown role {kbd}"),
        ("By {eq}`eq-nowhere`.", 0, "no label 'eq-nowhere'"),
        ("By {cite}`nobody`.", 0, "'nobody' is not in book/references.bib"),
        ("See {doc}`nothing`.", 0, "no page 'nothing'"),
        ("See [it](../index.md).", 0, "use {doc} or {ref}"),
        ("```{note}\nNever closed.", 0, "never closed"),
        ("```{note} About `x`\nText.\n```", 0, "fence of colons"),
        ("```{exercise} Nameless\nText.\n```", 0, "has no label"),
        ("$$ a $$ (eq-a)\n\n```{note}\n$$ b $$ (eq-a)\n```", 3, "used twice"),
        ("```{image} nothing.png\n```", 0, "no image 'nothing.png'"),
        ("```{code-cell}\n---\ntags: [\n---\n1\n```", 1, "not valid YAML"),
    ],
)
def test_what_the_grammar_does_not_know_fails_loudly(
    root: Path, body: str, line: int, message: str
) -> None:
    chapter = write_chapter(root, body)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        convert(chapter, root)
    assert str(error.value).startswith(f"{chapter}:{FIRST_LINE + line}: ")


def test_first_cells_are_for_colab(sample: NotebookNode) -> None:
    badge, install = sample.cells[:2]
    assert colab_url("notebooks/02_second.ipynb") in badge.source
    assert "Without a GPU everything here runs on small data" in badge.source
    assert install.metadata.tags == ["install"]
    assert f"pai-lite @ git+{repository()}" in install.source
    assert install.source.endswith("print(pai.setting())")  # it says how to get a GPU


def test_install_cell_is_skipped_when_the_package_is_there(sample: NotebookNode) -> None:
    source = sample.cells[1].source
    install = next(line for line in source.splitlines() if "%pip" in line)
    installed: list[bool] = []
    exec(source.replace(install, "    installed.append(True)"), {"installed": installed})
    assert not installed


def test_metadata_and_tags(sample: NotebookNode) -> None:
    nbformat.validate(sample)
    assert sample.metadata.accelerator == "GPU"
    assert sample.metadata.kernelspec.name == "python3"
    folded = [c for c in sample.cells if "hide-input" in c.metadata.get("tags", [])]
    assert [c.metadata.cellView for c in folded] == ["form"]
    assert [c.metadata.jupyter.source_hidden for c in folded] == [True]


def test_conversion_is_the_same_every_time(root: Path) -> None:
    chapter = root / "book" / "chapters" / "02_second.md"
    first, second = convert(chapter, root), convert(chapter, root)
    assert nbformat.writes(first) == nbformat.writes(second)
    assert len({cell.id for cell in first.cells}) == len(first.cells)


@pytest.mark.parametrize("raw", ["```{note}", "> ```{tip} x", "by {eq}`x`", ":::{tip}", "(here)="])
def test_the_check_for_raw_myst_sees_it(raw: str) -> None:
    assert RAW_MYST.search(raw)


@pytest.mark.parametrize("chapter", chapter_paths(), ids=lambda path: path.stem)
def test_no_raw_myst_in_a_chapter(chapter: Path) -> None:
    assert not RAW_MYST.findall(markdown(convert(chapter, ROOT)))
